"""Imports keep the workspaces of their source, which MLflow's workspace-aware SQL stores have made.

docs/importing.md says how.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from click.testing import CliRunner
from mlflow.entities import Metric, Param, Workspace
from mlflow.store.db.utils import _upgrade_db
from mlflow.store.model_registry.sqlalchemy_workspace_store import (
    WorkspaceAwareSqlAlchemyStore as SqlRegistry,
)
from mlflow.store.tracking.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore as SqlTracking
from mlflow.store.workspace.sqlalchemy_store import SqlAlchemyStore as SqlWorkspaces
from mlflow.utils.workspace_context import ServerWorkspaceContext

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.cli.migrate import cli
from genesis_flow.sync.workspaces import MongoDBWorkspaceStore
from tests.contract.trace_scenes import span, trace_id
from tests.importing.jobs import Job
from tests.importing.sql_databases import connected, unpacked
from tests.importing.stores import differences, genai_state, registry_state, tracking_state

ROOT = "s3://bucket/base"
WORKSPACES = ("default", "team-a")
SAID = Workspace("team-a", "what it is for", "s3://theirs", None, "30d")


class Source:
    """A database of MLflow's with things of the same names in several workspaces."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"sqlite:///{path}"
        self.tracking = SqlTracking(self.uri, ROOT)
        self.registry = SqlRegistry(self.uri)

    def fill(self) -> None:
        keeper = SqlWorkspaces(self.uri)
        for each in (SAID, Workspace("team-b")):
            keeper.create_workspace(each)
        keeper._engine.dispose()
        for number, workspace in enumerate(WORKSPACES, 1):
            with ServerWorkspaceContext(workspace):
                self._fill(number)

    def _fill(self, number: int) -> None:
        experiment = self.tracking.create_experiment("same")
        run = self.tracking.create_run(experiment, "me", number, [], "a run").info.run_id
        points = [Metric("m", float(number), step, step) for step in range(5)]
        self.tracking.log_batch(run, points, [Param("p", str(number))], [])
        self.tracking.log_spans(experiment, [span(trace_id(number), number)])
        dataset = self.tracking.create_dataset("same", {"of": str(number)}, [experiment])
        self.tracking.upsert_dataset_records(dataset.dataset_id, [{"inputs": {"q": number}}])
        self.tracking.create_gateway_secret("same", {"api_key": f"sk-{number}"})
        self.tracking.create_mcp_server("io.x/same")
        for _ in range(number):
            self._version(run)

    def _version(self, run: str) -> None:
        if not self.registry.search_registered_models():
            self.registry.create_registered_model("same")
        self.registry.create_model_version("same", "s3://x", run)

    def close(self) -> None:
        for stores in (SqlTracking, SqlRegistry):
            if (engine := stores._engine_map.pop(self.uri, None)) is not None:
                engine.dispose()


@pytest.fixture
def job(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    """With workspaces, and none of them named."""
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.delenv("MLFLOW_WORKSPACE", raising=False)
    return Job(store_uri)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    path = unpacked("3.17.2", tmp_path_factory.mktemp("source"))
    with connected(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name not in ("alembic_version", "workspaces"):
                connection.execute(f"DELETE FROM {name}")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    _upgrade_db(engine)
    engine.dispose()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        patched.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "a passphrase")
        source = Source(path)
        source.fill()
    yield source
    source.close()


def command(job: Job, *arguments: str) -> tuple[int, Any]:
    """The exit code and the answer of ``genesis-migrate import``."""
    done = CliRunner().invoke(cli, ["--uri", job.uri, "--quiet", "import", *arguments, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    try:
        return done.exit_code, json.loads(done.stdout)
    except ValueError:
        return done.exit_code, done.output


def kept(job: Job) -> dict[str, dict[Any, Any]]:
    """All documents but the notes that readers of sums get when traces may change."""
    return {name: found for name, found in job.contents().items() if name != "trace_sums"}


def state(tracking: Any, registry: Any) -> dict[str, Any]:
    return {
        **tracking_state(tracking),
        **genai_state(tracking),
        **registry_state(registry, with_webhooks=False),
        "servers": [(each.name, each.workspace) for each in tracking.search_mcp_servers()],
        "secrets": [each.secret_name for each in tracking.list_secret_infos()],
    }


def test_each_workspace_comes_into_its_own_is_proven_and_taken_back(made: Source, job: Job) -> None:
    before = kept(job)
    code, planned = command(job, made.uri, "--analyze")
    assert code == 0, planned
    assert [each["workspace"] for each in planned["workspaces"]] == [*WORKSPACES, "team-b"]
    assert kept(job) == before
    code, answer = command(job, made.uri)
    assert code == 0, answer
    assert [each["read"].get("run", 0) for each in answer["workspaces"]] == [1, 1, 0]

    tracking, registry = MongoDBStore(job.uri, ROOT), MongoDBModelRegistryStore(job.uri)
    for workspace in WORKSPACES:
        with ServerWorkspaceContext(workspace):
            ours, theirs = state(tracking, registry), state(made.tracking, made.registry)
        assert ours["runs"], workspace
        assert differences(ours, theirs) == []
    keeper = MongoDBWorkspaceStore(job.uri)
    assert [each.name for each in keeper.list_workspaces()] == [*WORKSPACES, "team-b"]
    assert keeper.get_workspace("team-a") == SAID
    for each in (tracking, registry, keeper):
        each.close()

    code, verified = command(job, made.uri, "--verify")
    assert code == 0, verified
    assert [each["workspace"] for each in verified["workspaces"]] == [*WORKSPACES, "team-b"]
    runs = [each["counts"].get("run", {"source": 0})["source"] for each in verified["workspaces"]]
    assert runs == [1, 1, 0]
    imported = kept(job)
    code, again = command(job, made.uri)
    assert code == 0, again
    assert kept(job) == imported

    _, journals = command(job, "--list")
    assert [each["workspace"] for each in journals] == [*WORKSPACES, "team-b"]
    for each in journals:
        code, answer = command(job, "--rollback", each["journal"])
        assert code == 0, answer
    assert kept(job) == before


def test_what_is_in_another_workspace_is_no_proof(made: Source, job: Job) -> None:
    assert command(job, made.uri)[0] == 0
    with job.database() as database:
        (moved,) = database["experiments"].find({"workspace": "team-a"}).to_list()
        for collection in ("experiments", "runs"):
            database[collection].update_many({"workspace": "team-a"}, {"$set": {"workspace": "team-c"}})
        database["workspaces"].delete_one({"_id": "team-b"})
    code, answer = command(job, made.uri, "--verify")
    assert code == 1
    found = {each["workspace"]: each for each in answer["workspaces"]}
    assert [name for name, each in found.items() if not each["equal"]] == ["team-a", "team-b"]
    wrong = {(each["kind"], each["id"]) for each in found["team-a"]["differences"]}
    assert ("experiment", str(moved["_id"])) in wrong
    assert found["team-b"]["damaged"][0]["reason"] == "the target has no such workspace"


def test_a_workspace_that_is_used_stays_after_a_rollback(made: Source, job: Job) -> None:
    assert command(job, made.uri)[0] == 0
    with closing(MongoDBStore(job.uri, ROOT)) as tracking, ServerWorkspaceContext("team-b"):
        tracking.create_experiment("of the team")
    _, journals = command(job, "--list")
    (key,) = (each["journal"] for each in journals if each["workspace"] == "team-b")
    code, answer = command(job, "--rollback", key)
    assert code == 3
    assert [(each["kind"], each["where"]) for each in answer["kept"]] == [("workspace", "team-b")]
    assert "experiments in it" in answer["kept"][0]["reason"]


def test_of_one_experiment_only_its_workspace_has_something(made: Source, job: Job, tmp_path: Path) -> None:
    path = tmp_path / "renamed.db"
    shutil.copy(made.path, path)
    with connected(path) as connection:
        connection.execute("UPDATE experiments SET name = 'mine' WHERE workspace = 'team-a'")
    code, answer = command(job, f"sqlite:///{path}", "--experiment", "mine")
    assert code == 0, answer
    assert [each["read"].get("run", 0) for each in answer["workspaces"]] == [0, 1, 0]
    code, answer = command(job, f"sqlite:///{path}", "--experiment", "nobody")
    assert code == 1
    assert "no experiment with the id or name 'nobody'" in answer


def test_without_workspaces_it_is_said_how_they_are_kept(
    made: Source, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES")
    code, answer = command(job, made.uri, "--analyze")
    assert code == 3
    told = {each["where"]: each["reason"] for each in answer["problems"] if each["kind"] == "workspace"}
    assert told.keys() == {"team-a"}
    assert all("MLFLOW_ENABLE_WORKSPACES=true" in reason for reason in told.values())
