"""Background jobs: MLflow's classes and functions make ours of our URIs, and stay what they are for SQL."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.compat.jobs import JobStatus, JobUpdateStatus
from genesis_flow.compat.source import parameters_of
from genesis_flow.plugins import job_hooks
from genesis_flow.plugins.hooks import apply_loaded_hooks
from genesis_flow.sync.jobs import MongoDBJobLockManager, MongoDBJobStore

URI = "mongodb://localhost:1/nowhere"

# A process of a server: the runner loads a module that loads another one of the table.
LOADS_THE_RUNNER = """
import mlflow
import mlflow.server.jobs._executor_runner
from mlflow.server.jobs import lock_manager, utils
from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
from mlflow.store.jobs.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyJobStore
for store in (SqlAlchemyJobStore, WorkspaceAwareSqlAlchemyJobStore):
    print(type(store("mongodb://localhost:1/nowhere")).__name__)
print(hasattr(utils._for_each_unfinished_job, "replaces"), hasattr(lock_manager.JobLockManager, "replaces"))
"""


# A command of MLflow, and what a server of it loads.
LOADS_A_COMMAND = """
import sys
import mlflow.cli
import mlflow.server.jobs.utils
print("genesis_flow.plugins.after_import" in sys.modules, "genesis_flow.plugins.hooks" in sys.modules)
"""


def printed(program: str, uri: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if "mongodb:" not in value}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"MLFLOW_BACKEND_STORE_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_that_loads_the_runner_has_the_hooks() -> None:
    assert printed(LOADS_THE_RUNNER, URI) == ["MongoDBJobStore", "MongoDBJobStore", "True", "True"]


@pytest.mark.parametrize(("uri", "loaded"), [("sqlite:///x", "False"), (URI, "True")])
def test_commands_on_another_store_load_none(uri: str, loaded: str) -> None:
    assert printed(LOADS_A_COMMAND, uri) == ["True", loaded]


@pytest.fixture(autouse=True)
def hooks() -> None:
    for name in ("mlflow.server.jobs.lock_manager", "mlflow.server.jobs.utils"):
        importlib.import_module(name)
        apply_loaded_hooks(name)


def test_sql_stays_sql(tmp_path: Path) -> None:
    from mlflow.server.jobs.lock_manager import JobLockManager
    from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
    from mlflow.utils.uri import extract_db_type_from_uri

    assert type(SqlAlchemyJobStore.__new__(SqlAlchemyJobStore, "sqlite:///x")) is SqlAlchemyJobStore
    sql: Any = SimpleNamespace(db_type="sqlite", ManagedSessionMaker=None)
    assert type(JobLockManager(sql)) is JobLockManager
    assert extract_db_type_from_uri("postgresql://x") == "postgresql"
    with pytest.raises(MlflowException):
        extract_db_type_from_uri("file:///x")


@pytest.mark.parametrize("uri", [URI, "mongodb+srv://db.example.com/x", "genesis:///nowhere"])
def test_ours_is_a_database(uri: str) -> None:
    from mlflow.server.jobs.utils import _check_requirements

    _check_requirements(uri)


def test_the_lock_manager_looks_for_lost_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.server.jobs.lock_manager import JobLockManager

    looked: list[Callable[[], None]] = []
    monkeypatch.setattr(job_hooks, "_look_for_lost", looked.append)
    assert isinstance(JobLockManager(MongoDBJobStore(URI)), MongoDBJobLockManager)
    assert len(looked) == 1


def job(job_id: str, status: JobStatus = JobStatus.PENDING) -> Any:
    return SimpleNamespace(job_id=job_id, status=status)


@pytest.mark.parametrize("won", [True, False])
def test_recovery_hands_on_what_waits_and_lets_alone_what_runs(
    won: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_hooks, "recovery_contexts", lambda: [nullcontext()])
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    store.list_lost_jobs.return_value = ["lost", "claimed again"]
    store.take_over_job.return_value = JobUpdateStatus.APPLIED if won else JobUpdateStatus.WRONG_STATE
    store.get_job.side_effect = lambda each: job(
        each, JobStatus.PENDING if each == "lost" else JobStatus.RUNNING
    )
    store.list_jobs.return_value = iter([job("waiting")])
    handled: list[str] = []
    recover = job_hooks.recovered(pytest.fail)
    recover(store, [JobStatus.PENDING, JobStatus.RUNNING], 5, lambda each, _: handled.append(each.job_id))
    assert handled == (["lost", "waiting"] if won else ["waiting"])
    recover(store, [JobStatus.RUNNING, JobStatus.NEEDS_RECOVERY], 5, pytest.fail)
    assert not store.reset_job.called


def test_a_task_runs_once_and_for_sql_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    monkeypatch.setattr(job_hooks, "server_job_store", lambda: store)
    run = job_hooks.scored_once(lambda: "ran")
    store.take_scheduler_lease.return_value = None
    assert run() is None
    store.take_scheduler_lease.return_value = 1
    assert run() == "ran"
    monkeypatch.setattr(job_hooks, "server_job_store", object)
    assert run() == "ran"


def test_a_job_of_huey_has_a_lease_while_it_runs() -> None:
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    seen: list[int] = []
    run = job_hooks.leased(lambda *_: seen.append(store.renew_job_lease.call_count))
    run("f", {}, None, None, None, "tmp", store, "id", "name", None)
    assert seen == [1]
    assert store.renew_job_lease.call_args.args[0] == "id"


def test_what_is_not_there_is_said_in_words() -> None:
    assert parameters_of("mlflow.server.gateway_api", "get_endpoint_config") == ("endpoint_name", "store")
    for place in (("mlflow.utils.uri", "gone"), ("mlflow.gone", "x"), ("mlflow.utils.uri", "gone.x")):
        with pytest.raises(LookupError):
            parameters_of(*place)
