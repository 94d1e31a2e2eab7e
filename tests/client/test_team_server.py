"""The server that docs/server.md starts with everything at once, used as two teams would."""

import json
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.genai.judges import make_judge

from tests.client.team_servers import ENDPOINT, Member, TeamServer, Work, logged, team_server
from tests.client.test_server_command import linux
from tests.mongod import Mongod

# Servers and their jobs are many processes, each of which imports MLflow.
pytestmark = [linux, pytest.mark.slow, pytest.mark.timeout(900)]

ASKED, EVALUATED, SCHEDULED = "asked", "evaluated", "scheduled"


@pytest.fixture
def team(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    with team_server(mongod, tmp_path_factory.mktemp("everything")) as running:
        yield running


def test_teams_use_everything_at_once(team: TeamServer) -> None:
    for name in ("team-a", "team-b"):
        team.workspace(name)
    ann, bob = team.user("ann", "team-a"), team.user("bob", "team-b")
    # One who may do one thing alone, and the one as whom jobs by the clock run.
    cid = team.user("cid", "team-a", role=None)
    night = team.user(team.jobs_user, "team-a", role=None)
    endpoint = team.endpoint("team-a")
    for member in (ann, night):
        team.may_call(member, endpoint)
    work = logged(ann)
    team.grant(ann, "cid", "experiment", work.experiment, "EDIT")

    nobody_else_sees(work, ann, bob)
    assert [ann.calls(), night.calls(), cid.calls(), bob.calls()] == [200, 200, 403, 403]
    assert bob.within("team-a").calls() == 403
    calls_are_counted_and_traced(ann)
    job = jobs_act_for_who_made_them(work, ann, cid)
    judge_by_schedule(work, ann)

    team.restart()
    assert ann.job(job)["status"] == "SUCCEEDED"
    nobody_else_sees(work, ann, bob)
    assert [ann.calls(), cid.calls()] == [200, 403]
    # By nobody's wish, in the workspace, with the permissions of the user whom the command line names.
    team.until(lambda: ann.verdicts(work.bombs, SCHEDULED))
    assert ann.verdicts(work.bombs, SCHEDULED) == ["no"]
    team.until(lambda: ann.verdicts(work.harmless, SCHEDULED))
    assert ann.verdicts(work.harmless, SCHEDULED) == ["yes"]


def nobody_else_sees(work: Work, owner: Member, other: Member) -> None:
    with owner.at_work():
        found = MlflowClient().get_run(work.run)
        assert found.data.metrics == {"loss": 0.5}
        assert mlflow.artifacts.load_text(f"{found.info.artifact_uri}/note.txt") == "kept"
    seen = [each["name"] for each in owner.ask("GET", "/api/3.0/mlflow/workspaces")["workspaces"]]
    assert seen == ["team-a"]
    for path, asked in (
        ("/api/2.0/mlflow/runs/get", {"run_id": work.run}),
        ("/api/2.0/mlflow/experiments/get", {"experiment_id": work.experiment}),
        (f"/api/3.0/mlflow/traces/{work.bombs}", {}),
    ):
        assert owner.answer("GET", path, **asked).ok
        assert other.answer("GET", path, **asked).status_code in (403, 404)
        assert other.within("team-a").answer("GET", path, **asked).status_code == 403
    named = {"experiment_ids": [work.experiment], "max_results": 10}
    assert not other.ask("POST", "/api/2.0/mlflow/runs/search", **named).get("runs")


def calls_are_counted_and_traced(member: Member) -> None:
    """A budget of the workspace ends calls of one endpoint; the traces of calls are in the workspace."""
    admin = member.team.admin.within(member.workspace)
    made = member.team.endpoint(member.workspace, "spent")
    admin.ask(
        *("POST", "/api/3.0/mlflow/gateway/budgets/create"),
        budget_unit="USD",
        budget_amount=0.000001,
        duration={"unit": "DAYS", "value": 40_000},
        target_scope="ENDPOINT",
        target_value=made["endpoint_id"],
        budget_action="REJECT",
    )
    member.team.may_call(member, made)
    member.team.until(lambda: member.calls("spent") == 429)
    assert member.calls() == 200
    with admin.at_work():
        places = [made["experiment_id"]]
        member.team.until(lambda: MlflowClient().search_traces(locations=places, include_spans=False))


def judge(name: str) -> str:
    made = make_judge(
        name=name,
        instructions="Is {{ outputs }} free of bombs? Answer yes or no.",
        model=f"gateway:/{ENDPOINT}",
        feedback_value_type=str,
    )
    return json.dumps(made.model_dump())


def judged(member: Member, work: Work, name: str) -> str:
    asked = member.ask(
        *("POST", "/ajax-api/3.0/mlflow/scorer/invoke"),
        experiment_id=work.experiment,
        serialized_scorer=judge(name),
        trace_ids=work.traces,
        log_assessments=True,
    )
    (made,) = asked["jobs"]
    return str(made["job_id"])


def jobs_act_for_who_made_them(work: Work, may_use: Member, may_not: Member) -> str:
    """A judge, an evaluation and a search for issues call the endpoint as who wants them may."""
    by_owner, by_other = judged(may_use, work, ASKED), judged(may_not, work, "refused")
    evaluated = may_use.ask(
        *("POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke"),
        experiment_id=work.experiment,
        trace_ids=work.traces,
        serialized_scorers=[judge(EVALUATED)],
    )
    found = may_use.ask(
        *("POST", "/ajax-api/3.0/mlflow/issues/invoke"),
        experiment_id=work.experiment,
        trace_ids=work.traces,
        categories=["correctness"],
        provider="openai",
        endpoint_name=ENDPOINT,
    )
    for job_id in (by_owner, evaluated["job_id"], found["job_id"]):
        ended = may_use.ended(job_id)
        assert ended["status"] == "SUCCEEDED", (ended, may_use.team.server.said)
    for name in (ASKED, EVALUATED):
        assert may_use.verdicts(work.harmless, name) == ["yes"]
        assert may_use.verdicts(work.bombs, name) == ["no"]
    assert may_use.ended(found["job_id"])["result"]["total_traces_analyzed"] == 2
    for run in (evaluated["run_id"], found["run_id"]):
        got = may_use.ask("GET", "/api/2.0/mlflow/runs/get", run_id=run)["run"]["info"]
        assert got["status"] == "FINISHED"
    refused = may_not.ended(by_other)
    failures = [failure for each in refused["result"].values() for failure in each["failures"]]
    assert len(failures) == len(work.traces)
    assert all("Permission denied" in json.dumps(failure) for failure in failures), failures
    return by_owner


def judge_by_schedule(work: Work, member: Member) -> None:
    registered: dict[str, Any] = member.ask(
        *("POST", "/api/3.0/mlflow/scorers/register"),
        experiment_id=work.experiment,
        name=SCHEDULED,
        serialized_scorer=judge(SCHEDULED),
    )
    assert registered["version"] == 1
    settings = {"experiment_id": work.experiment, "name": SCHEDULED, "sample_rate": 1.0}
    member.ask("PUT", "/api/3.0/mlflow/scorers/online-config", **settings)
