"""Background jobs of ``genesis-flow server --jobs executor``: by REST, and by the clock.

All its processes have in MongoDB what the role ``mlflowServer`` of docs/security.md gives, and no more.
"""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from genesis_flow import MongoDBStore
from tests.client.job_servers import ENDPOINT, JobServer, job_server, judge, log_trace, queue_of
from tests.client.test_server_command import linux
from tests.roles import restricted_mongod

# Servers and their jobs are many processes, each of which imports MLflow.
pytestmark = [linux, pytest.mark.timeout(900)]

ONLINE, ASKED, EVALUATED = "online", "asked", "evaluated"


class Scene:
    """What is in the database when the server starts, whose periodic tasks run at once."""

    def __init__(self) -> None:
        self.harmless = self.bombs = self.old = ""

    def prepare(self, store: MongoDBStore) -> None:
        self.harmless = log_trace(store, 1, "a load of roses", 1)
        self.bombs = log_trace(store, 2, "a load of dynamite", 1)
        self.old = log_trace(store, 3, "a load of dust", 3 * 24 * 60)
        store.register_scorer("0", ONLINE, judge(ONLINE))
        store.upsert_online_scoring_config("0", ONLINE, 1.0, None)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def served(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("jobs")
    archive = {"enabled": True, "location": f"file://{folder}/archive", "retention": "1d"}
    config = folder / "archival.yaml"
    config.write_text(json.dumps({"trace_archival": archive}))
    with (
        restricted_mongod() as mongod,
        job_server(
            mongod, folder, "executor", scene.prepare, MLFLOW_TRACE_ARCHIVAL_CONFIG=str(config)
        ) as made,
    ):
        yield made
        assert "not authorized" not in made.server.said
        assert "The database user may not" not in made.server.said


def test_a_judge_by_rest(served: JobServer, scene: Scene) -> None:
    traces = [scene.harmless, scene.bombs]
    asked = served.ask(
        *("POST", "mlflow/scorer/invoke"),
        experiment_id="0",
        serialized_scorer=judge(ASKED),
        trace_ids=traces,
        log_assessments=True,
    )
    (made,) = asked["jobs"]
    ended = served.ended(made["job_id"])
    assert ended["status"] == "SUCCEEDED", (ended, served.server.said)
    assert set(ended["result"]) == set(traces)
    assert served.verdicts(scene.harmless, ASKED) == ["yes"]
    assert served.verdicts(scene.bombs, ASKED) == ["no"]


def test_a_job_says_how_far_it_is_until_it_is_canceled(served: JobServer) -> None:
    endless = served.submit(word="endless", ends=False)
    quick = served.submit(word="quick")
    job = served.until(lambda: found if (found := served.job(endless))["progress"] else None)
    assert (job["status"], job["status_message"]) == ("RUNNING", "half")
    assert job["progress"] == {"phase": "telling", "completed": 1, "total": 2, "unit": "word"}
    assert job["status_details"] == {"stage": "endless", "run": f"{endless} {served.kept(endless)['claim']}"}
    assert served.ended(quick)["result"] == {"told": "quick"}
    running = served.ask("POST", "jobs/search", job_name="tell", statuses=["RUNNING"])["jobs"]
    assert [each["job_id"] for each in running] == [endless]
    found = served.ask("POST", "jobs/search", params={"word": "quick"})["jobs"]
    assert [each["job_id"] for each in found] == [quick]
    assert served.ask("PATCH", f"jobs/cancel/{endless}")["status"] == "CANCELED"
    assert served.job(endless)["status"] == "CANCELED"
    served.until(lambda: not served.subprocesses())


def test_what_runs_by_the_clock(served: JobServer, scene: Scene) -> None:
    """Judges of an experiment, and the archival of what is older than its retention."""
    served.until(lambda: all(served.verdicts(each, ONLINE) for each in (scene.bombs, scene.harmless)))
    assert served.verdicts(scene.bombs, ONLINE) == ["no"]
    assert served.verdicts(scene.harmless, ONLINE) == ["yes"]
    served.until(lambda: list((served.server.log.parent / "archive").rglob("traces.pb")))
    (span,) = served.store.get_trace(scene.old).data.spans
    assert span.outputs == "a load of dust"


def test_issues_are_detected(served: JobServer, scene: Scene) -> None:
    asked = served.ask(
        *("POST", "mlflow/issues/invoke"),
        experiment_id="0",
        trace_ids=[scene.harmless, scene.bombs],
        categories=["correctness"],
        provider="openai",
        endpoint_name=ENDPOINT,
    )
    ended = served.ended(asked["job_id"])
    assert ended["status"] == "SUCCEEDED", (ended, served.server.said)
    assert ended["result"]["total_traces_analyzed"] == 2
    assert served.store.get_run(asked["run_id"]).info.status == "FINISHED"


def test_an_evaluation_run(served: JobServer, scene: Scene) -> None:
    asked = served.ask(
        *("POST", "mlflow/genai/evaluate/invoke"),
        experiment_id="0",
        trace_ids=[scene.harmless, scene.bombs],
        serialized_scorers=[judge(EVALUATED)],
    )
    ended = served.ended(asked["job_id"])
    assert ended["status"] == "SUCCEEDED", (ended, served.server.said)
    run = served.store.get_run(asked["run_id"])
    assert run.info.status == "FINISHED"
    assert served.verdicts(scene.bombs, EVALUATED) == ["no"], run.data
    assert served.verdicts(scene.harmless, EVALUATED) == ["yes"]


def test_nothing_of_it_is_left(served: JobServer) -> None:
    """The queue of what runs by the clock, and all processes; waiting jobs stay for the next server."""
    queue = queue_of(served)
    assert list(queue.iterdir())
    waiting = [served.submit(word="later", ends=False) for _ in range(4)]
    assert served.server.stop(signal.SIGTERM) == 0
    assert not queue.exists()
    left: dict[str, Any] = {job.job_id: str(job.status) for job in served.store.list_jobs(job_name="tell")}
    assert {left[each] for each in waiting} <= {"PENDING", "RUNNING", "NEEDS_RECOVERY"}
