"""Background jobs: MLflow's classes and functions make ours of our URIs, and stay what they are for SQL."""

import base64
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.compat.jobs import JobStatus, JobUpdateStatus
from genesis_flow.compat.source import parameters_of
from genesis_flow.core.settings import ENV_JOB_RUN
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


def test_a_process_has_one_store_of_a_database() -> None:
    """A store knows the runs of jobs that it has begun, and two threads may be the first to ask for one."""
    theirs: Any = job_hooks.stored(type("Theirs", (), {}))
    assert theirs(URI) is theirs(URI)
    assert theirs(URI) is not theirs(f"{URI}2")


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


@pytest.mark.parametrize(
    ("interval", "took", "left"),
    [(3600, 0, 3590), (3600, 600, 2990), (60, 5, 45), (60, 300, 1)],
)
def test_a_period_of_archival_is_one_of_all_servers(
    interval: int, took: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it took longer than the lease."""
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    store.take_scheduler_lease.return_value = 7
    clock = mock.Mock(side_effect=[1000.0, 1000.0 + took])
    monkeypatch.setattr(job_hooks, "server_job_store", lambda: store)
    monkeypatch.setattr(job_hooks, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(job_hooks, "_repeated", lambda *_: nullcontext())
    run = job_hooks.archived_once(lambda tracking_store, *, settings: "ran")
    assert run("store", settings=SimpleNamespace(interval_seconds=interval)) == "ran"
    assert store.renew_scheduler_lease.call_args.args == ("trace-archival", 7, 50, left)


def test_a_lease_is_renewed_until_the_block_ends() -> None:
    renewed = threading.Event()
    calls: list[int] = []

    def renew() -> None:
        calls.append(1)
        if len(calls) > 2:
            renewed.set()
        raise RuntimeError("the database is away")

    with job_hooks._repeated(renew, 0.01, "a test"):
        assert renewed.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "lease of a test"]


def test_runners_get_time_to_renew_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine slept, or the database was away: whoever is alive renews his lease first."""
    monkeypatch.setenv("MLFLOW_SERVER_JOB_LEASE_TTL", "30")
    now, seen, away = [1000.0], [], [False]

    def look() -> None:
        seen.append(now[0])
        if away[0]:
            raise RuntimeError("the database is away")

    looks = job_hooks.Looks(look, lambda: now[0])

    def at(*times: float) -> list[float]:
        seen.clear()
        for now[0] in times:
            looks.look()
        return list(seen)

    assert at(1005, 1010) == [1005, 1010]
    assert at(9000, 9005, 9010, 9015, 9020, 9025, 9030, 9035) == [9030, 9035]
    away[0] = True
    assert at(9040) == [9040]
    away[0] = False
    assert at(9045, 9050, 9055, 9060, 9065, 9070) == [9070]


def test_a_job_of_huey_has_a_lease_while_it_runs() -> None:
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    seen: list[int] = []
    run = job_hooks.leased(lambda *_: seen.append(store.renew_job_lease.call_count))
    run("f", {}, None, None, None, "tmp", store, "id", "name", None)
    assert seen == [1]
    assert store.renew_job_lease.call_args.args[0] == "id"


@pytest.mark.parametrize("positional", [True, False])
def test_the_process_of_a_job_is_told_the_run(positional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever engine it is started; not of SQL, nor where it was claimed elsewhere."""
    store = mock.create_autospec(MongoDBJobStore, instance=True)
    store.run_of.side_effect = {"job": "run"}.get
    prepare = job_hooks.told_the_run(lambda *_, **__: SimpleNamespace(env={}))

    def told(job_id: str) -> str | None:
        given = dict.fromkeys(job_hooks.PREPARED) | {"job_id": job_id}
        prepared = prepare(*given.values()) if positional else prepare(**given)
        return prepared.env.get(ENV_JOB_RUN)

    monkeypatch.setattr(job_hooks, "server_job_store", lambda: store)
    assert told("job") == "job run"
    assert told("another") is None
    monkeypatch.setattr(job_hooks, "server_job_store", object)
    assert told("job") is None


def test_what_is_not_there_is_said_in_words() -> None:
    assert parameters_of("mlflow.server.gateway_api", "get_endpoint_config") == ("endpoint_name", "store")
    for place in (("mlflow.utils.uri", "gone"), ("mlflow.gone", "x"), ("mlflow.utils.uri", "gone.x")):
        with pytest.raises(LookupError):
            parameters_of(*place)


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, str] | None]]:
    """What a job tells the gateway of itself: whose it is, and what the environment of its process has."""

    def headers(
        creator: str | None, credentials: dict[str, str] | None = None, **environment: str
    ) -> dict[str, str] | None:
        job_hooks._user_of.cache_clear()
        made = {"_MLFLOW_SERVER_FILE_STORE": URI, "_MLFLOW_SERVER_JOB_ID": "a job", **environment}
        for name, value in made.items():
            monkeypatch.setenv(name, value)
        store = SimpleNamespace(get_job=lambda job_id: SimpleNamespace(creator=creator))
        monkeypatch.setattr(job_hooks, "server_job_store", lambda: store)
        found: dict[str, str] | None = job_hooks.addressed(lambda: credentials)()
        return found

    yield headers
    job_hooks._user_of.cache_clear()


TOKEN = {"_MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN": "token", "GENESIS_FLOW_JOBS_USER": "night"}


def login_of(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:token'.encode()).decode()}"}


def test_a_job_asks_the_gateway_as_its_user_and_in_its_workspace(
    in_a_job: Callable[..., dict[str, str] | None],
) -> None:
    assert in_a_job("ann") is None, "without a login nobody asks who it is"
    assert in_a_job("ann", **TOKEN) == login_of("ann")
    assert in_a_job(None, **TOKEN) == login_of("night")
    assert in_a_job("ann", {"Authorization": "given"}, **TOKEN) == {"Authorization": "given"}
    workspaces = {"MLFLOW_ENABLE_WORKSPACES": "true", "MLFLOW_WORKSPACE": "team-a"}
    assert in_a_job("ann", **TOKEN, **workspaces) == login_of("ann") | {"X-MLFLOW-WORKSPACE": "team-a"}


@pytest.mark.parametrize("variable", ["_MLFLOW_SERVER_JOB_ID", "_MLFLOW_SERVER_FILE_STORE"])
def test_what_is_no_job_of_ours_says_what_mlflow_says(
    variable: str, in_a_job: Callable[..., dict[str, str] | None]
) -> None:
    assert in_a_job("ann", **TOKEN, **{variable: ""}) is None


def test_a_job_that_nobody_made_and_no_user_is_named_for_says_no_name(
    in_a_job: Callable[..., dict[str, str] | None],
) -> None:
    assert in_a_job(None, **(TOKEN | {"GENESIS_FLOW_JOBS_USER": ""})) is None


@pytest.mark.parametrize(
    ("token", "asked"), [({}, "http://here"), ({"_MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN": "t"}, URI)]
)
def test_jobs_under_a_login_ask_the_store(
    token: dict[str, str], asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_hooks, "atexit", mock.Mock())
    launch = job_hooks.tidied(lambda environment, pid: environment["MLFLOW_TRACKING_URI"])
    given = {
        "MLFLOW_BACKEND_STORE_URI": URI,
        "MLFLOW_TRACKING_URI": "http://here",
        "_MLFLOW_HUEY_STORAGE_PATH": str(tmp_path),
    }
    assert launch(given | token, 1) == asked
    sql = {"MLFLOW_BACKEND_STORE_URI": "sqlite:///x", "MLFLOW_TRACKING_URI": "http://here"}
    assert launch(sql | token, 1) == "http://here"
