"""``genesis-flow server --enable-workspaces``: two teams, each with a workspace, over REST."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.client.test_server_command import Server
from tests.mongod import Mongod, unique


class Team:
    """What a client of one workspace asks."""

    def __init__(self, server: Server, workspace: str | None) -> None:
        self._address = server.address
        self._headers = {} if workspace is None else {"X-MLFLOW-WORKSPACE": workspace}

    def answer(self, method: str, path: str, version: str = "2.0", **asked: Any) -> requests.Response:
        address = f"{self._address}/api/{version}/mlflow/{path}"
        content = {"params": asked} if method == "GET" else {"json": asked}
        return requests.request(method, address, headers=self._headers, timeout=150, **content)

    def post(self, path: str, **asked: Any) -> Any:
        return self._good(self.answer("POST", path, **asked))

    def get(self, path: str, **asked: Any) -> Any:
        return self._good(self.answer("GET", path, **asked))

    def _good(self, answer: requests.Response) -> Any:
        assert answer.ok, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def server(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, uri = tmp_path_factory.mktemp("server"), mongod.database_uri(unique("teams"))
    options = ("--backend-store-uri", uri, "--workers", "2", "--enable-workspaces")
    started = Server(folder, *options, GENESIS_FLOW_ARTIFACT_ROOT="s3://bucket/base")
    try:
        started.wait_for_address()
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


@pytest.fixture(scope="module")
def teams(server: Server) -> tuple[Team, Team]:
    everybody = Team(server, None)
    for name in ("team-a", "team-b"):
        answer = everybody.answer("POST", "workspaces", "3.0", name=name, description=f"of {name}")
        assert answer.status_code == 201, answer.text
    return Team(server, "team-a"), Team(server, "team-b")


def test_teams_use_the_same_names_and_see_only_their_own(teams: tuple[Team, Team]) -> None:
    found = []
    for team in teams:
        experiment = team.post("experiments/create", name="same")["experiment_id"]
        run = team.post("runs/create", experiment_id=experiment, start_time=1)["run"]["info"]["run_id"]
        for step in range(2):  # the second time the metric is known
            team.post("runs/log-metric", run_id=run, key="m", value=1.0, timestamp=1, step=step)
        team.post("registered-models/create", name="same")
        found.append((experiment, run))
    (first, theirs), (second, _) = found
    assert first != second
    team, other = teams
    place = team.get("experiments/get", experiment_id=first)["experiment"]["artifact_location"]
    assert place == f"s3://bucket/base/workspaces/team-a/{first}"
    for path, asked in (
        ("experiments/get", {"experiment_id": first}),
        ("runs/get", {"run_id": theirs}),
        ("metrics/get-history", {"run_id": theirs, "metric_key": "m"}),
    ):
        assert team.answer("GET", path, **asked).ok
        assert other.answer("GET", path, **asked).status_code == 404
    point = {"run_id": theirs, "key": "m", "value": 9.0, "timestamp": 9, "step": 9}
    assert other.answer("POST", "runs/log-metric", **point).status_code == 404
    assert len(team.get("metrics/get-history", run_id=theirs, metric_key="m")["metrics"]) == 2


def test_workspaces_are_managed_and_unknown_ones_are_not_there(
    server: Server, teams: tuple[Team, Team]
) -> None:
    everybody = Team(server, None)
    listed = everybody.answer("GET", "workspaces", "3.0").json()["workspaces"]
    assert [each["name"] for each in listed] == ["default", "team-a", "team-b"]
    assert Team(server, "nobody").answer("GET", "experiments/get", experiment_id="0").status_code == 404
    # Without a name it is the default workspace, where the default experiment is.
    assert everybody.answer("GET", "experiments/get", experiment_id="0").ok
    assert teams[0].answer("GET", "experiments/get", experiment_id="0").status_code == 404
    assert everybody.answer("POST", "workspaces", "3.0", name="team-c").status_code == 201
    assert Team(server, "team-c").post("experiments/create", name="last")
    refused = everybody.answer("DELETE", "workspaces/team-c", "3.0").json()
    assert refused["error_code"] == "INVALID_STATE", refused
    gone = requests.delete(
        f"{server.address}/api/3.0/mlflow/workspaces/team-c", params={"mode": "CASCADE"}, timeout=150
    )
    assert gone.status_code == 204, gone.text
    assert Team(server, "team-c").answer("GET", "experiments/get", experiment_id="0").status_code == 404


def test_the_same_database_is_not_served_without_workspaces(
    server: Server, teams: tuple[Team, Team], tmp_path_factory: pytest.TempPathFactory
) -> None:
    teams[0].post("experiments/create", name="of a team")
    uri = next(word for word in server.process.args if "mongodb://" in word)  # type: ignore[union-attr]
    single = Server(tmp_path_factory.mktemp("single"), "--backend-store-uri", str(uri))
    try:
        assert single.process.wait(timeout=120) == 1
        assert "Cannot disable workspaces" in single.said
    finally:
        if single.process.poll() is None:
            single.stop()
