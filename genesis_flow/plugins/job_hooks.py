"""What MLflow's server does with jobs that our store keeps: the replacements that ``hooks.py`` lists.

MLflow's recovery takes every running job of an earlier time for one of its own that was left behind. Here
jobs have leases: those that run elsewhere are let alone, and those whose runner is gone are taken over by
the first that sees it, at any time. Jobs that run by the clock run once for all servers of a database.
"""

import atexit
import base64
import contextvars
import functools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genesis_flow.compat.jobs import (
    GATEWAY_TOKEN_VARIABLE,
    JobStatus,
    JobUpdateStatus,
    gateway_token,
    lease_seconds,
    recovery_contexts,
    running_job_id,
    server_job_store,
)
from genesis_flow.core.settings import ENV_JOB_RUN, ENV_JOBS_USER, ENV_QUEUES_NOTE
from genesis_flow.core.uri import is_ours
from genesis_flow.sync.jobs import MongoDBJobLockManager, MongoDBJobStore

_logger = logging.getLogger("genesis_flow")

Function = Callable[..., Any]

# How often a runner looks for jobs whose runner is gone, and how often a running job renews its lease.
LOOK_SECONDS = 5.0
RENEWALS = 3
# Periodic tasks come each minute; a lease that is a little shorter ends before the next.
SOONER_SECONDS = 10
MINUTE_SECONDS = 60 - SOONER_SECONDS

# Parameters of MLflow's function that runs a job in a process of its own.
EXECUTED = (
    *("function_fullname", "params", "python_env", "transient_error_classes", "timeout", "tmpdir"),
    *("job_store", "job_id", "job_name", "workspace", "extra_envs"),
)
# Parameters of the one that prepares that process, whoever then starts it.
PREPARED = (
    *("function_fullname", "params", "python_env", "transient_error_classes", "tmpdir"),
    *("job_id", "job_name", "workspace", "extra_envs"),
)
_job_stores: dict[str, MongoDBJobStore] = {}


def told_the_type(original: Function) -> Function:
    def extract_db_type_from_uri(db_uri: Any) -> Any:
        return "mongodb" if is_ours(db_uri) else original(db_uri)

    return extract_db_type_from_uri


def stored(original: type) -> type:
    """The class of the SQL store makes our store from our URIs; that is not initialised again.

    A process has one for each database, since a store knows only the runs of jobs that it has begun itself.
    MLflow would make two if two threads of Huey's were the first to ask for one.
    """

    def new(cls: type, db_uri: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not is_ours(db_uri):
            return object.__new__(cls)
        return _job_stores.setdefault(db_uri, MongoDBJobStore(db_uri))

    original.__new__ = new  # type: ignore[assignment,method-assign]
    return original


def locked(original: type) -> type:
    """The executor's runner, a program whose functions cannot be replaced, makes one lock manager.

    From then on it also looks for jobs whose runner is gone.
    """

    def new(cls: type, job_store: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(job_store, MongoDBJobStore):
            return object.__new__(cls)
        _look_for_lost(lambda: _take_over_everywhere(job_store))
        return MongoDBJobLockManager(job_store)

    original.__new__ = new  # type: ignore[assignment,method-assign]
    return original


def _look_for_lost(look: Callable[[], None]) -> None:
    looks = Looks(look)

    def go_on() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            looks.look()

    threading.Thread(target=go_on, name="genesis-flow-lost-jobs", daemon=True).start()


class Looks:
    """Looks for jobs whose runner is gone, one after the other.

    Where this machine slept, or the database did not answer, runners that live could not renew their leases:
    they get the time of one before their jobs are taken for lost.
    """

    def __init__(self, look: Callable[[], None], clock: Callable[[], float] = time.time) -> None:
        self._look = look
        self._clock = clock  # a monotonic one stands still while a machine sleeps
        self._last = clock()
        self._not_before = 0.0

    def look(self) -> None:
        now = self._clock()
        slept, self._last = now - self._last > LOOK_SECONDS + lease_seconds() / RENEWALS, now
        if slept:
            self._wait()
        if now < self._not_before:
            return
        try:
            self._look()
        except Exception:
            _logger.exception("Looking for lost jobs failed; the next look comes.")
            self._wait()

    def _wait(self) -> None:
        self._not_before = self._last + lease_seconds()


def _take_over_everywhere(store: MongoDBJobStore) -> None:
    for context in recovery_contexts():
        with context:
            taken_over(store)


def tidied(original: Function) -> Function:
    """The queues, which hold keys of providers in clear, go with the server.

    And under a login jobs ask the store, as those of the executor always do: Huey's ask the server, which
    knows no password of theirs.
    """

    def launch_job_execution_runner(env_map: Any, server_proc_pid: Any) -> Any:
        from mlflow.server.constants import HUEY_STORAGE_PATH_ENV_VAR

        if is_ours(env_map.get("MLFLOW_BACKEND_STORE_URI")):
            queues = env_map[HUEY_STORAGE_PATH_ENV_VAR]
            atexit.register(shutil.rmtree, queues, ignore_errors=True)
            # ``genesis-flow server`` removes them also if this process is killed.
            if note := os.environ.get(ENV_QUEUES_NOTE):
                Path(note).write_text(queues)
            if env_map.get(GATEWAY_TOKEN_VARIABLE):
                env_map = {**env_map, "MLFLOW_TRACKING_URI": env_map["MLFLOW_BACKEND_STORE_URI"]}
        return original(env_map, server_proc_pid)

    return launch_job_execution_runner


def taken_over(store: MongoDBJobStore) -> list[str]:
    """The jobs that this server has taken over now."""
    taken = [each for each in store.list_lost_jobs() if _is_taken(store, each)]
    if taken:
        _logger.warning("Took over jobs whose runner is gone: %s", ", ".join(taken))
    return taken


def _is_taken(store: MongoDBJobStore, job_id: str) -> bool:
    return store.take_over_job(job_id) == JobUpdateStatus.APPLIED


def recovered(original: Function) -> Function:
    """Of the unfinished jobs, hand on those that wait; the executor's runner finds these by itself.

    A job that was taken over waits. It is not reset again: by then it may run elsewhere.
    """

    def for_each_unfinished_job(job_store: Any, statuses: Any, end_timestamp: Any, handler: Any) -> None:
        if not isinstance(job_store, MongoDBJobStore):
            original(job_store, statuses, end_timestamp, handler)
            return
        if JobStatus.PENDING not in statuses:
            return
        for context in recovery_contexts():
            with context as workspace:
                taken = [job_store.get_job(each) for each in taken_over(job_store)]
                waiting = list(job_store.list_jobs(statuses=[JobStatus.PENDING], end_timestamp=end_timestamp))
                for job in {job.job_id: job for job in (*taken, *waiting)}.values():
                    if job.status == JobStatus.PENDING:
                        handler(job, workspace)

    return for_each_unfinished_job


def watched(original: Function) -> Function:
    """Huey's runner goes on looking for jobs whose runner is gone, and queues those here."""

    def enqueue_unfinished_jobs(server_launching_timestamp: int) -> None:
        original(server_launching_timestamp)
        if isinstance(server_job_store(), MongoDBJobStore):
            # None is so old: only those are queued that are taken over now.
            _look_for_lost(lambda: original(0))

    return enqueue_unfinished_jobs


def leased(original: Function) -> Function:
    """A job that a worker of Huey runs has a lease, as those have that the executor runs."""

    def exec_job_in_subproc(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(EXECUTED, args, strict=False)) | kwargs
        if not isinstance(given["job_store"], MongoDBJobStore):
            return original(*args, **kwargs)
        with _renewed(given["job_store"], given["job_id"]):
            return original(*args, **kwargs)

    return exec_job_in_subproc


@contextmanager
def _renewed(store: MongoDBJobStore, job_id: str) -> Iterator[None]:
    seconds = lease_seconds()
    store.renew_job_lease(job_id, seconds)
    with _repeated(lambda: store.renew_job_lease(job_id, seconds), seconds / RENEWALS, f"job {job_id}"):
        yield


@contextmanager
def _repeated(renew: Callable[[], object], seconds: float, leased: str) -> Iterator[None]:
    """Renew a lease time and again, until the block ends."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(seconds):
            try:
                renew()
            except Exception:
                _logger.exception("The lease of %s could not be renewed; it is tried again.", leased)

    context = contextvars.copy_context()  # of the job's workspace
    thread = threading.Thread(target=context.run, args=(go_on,), name=f"lease of {leased}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def told_the_run(original: Function) -> Function:
    """The process of a job knows which run of the job it is, so that it speaks for no other."""

    def prepare_job_subprocess(*args: Any, **kwargs: Any) -> Any:
        prepared = original(*args, **kwargs)
        store = server_job_store()
        if isinstance(store, MongoDBJobStore):
            job_id = (dict(zip(PREPARED, args, strict=False)) | kwargs)["job_id"]
            if run := store.run_of(job_id):
                prepared.env[ENV_JOB_RUN] = f"{job_id} {run}"
        return prepared

    return prepare_job_subprocess


def addressed(original: Function) -> Function:
    """What a job asks the gateway, it asks in its workspace, and as the user whose job it is.

    MLflow does both for judges that somebody runs. It says no workspace where issues are detected, and no
    user there and for what runs by the clock, so that a gateway with workspaces or a login refuses it.
    """

    def build_auth_headers() -> dict[str, str] | None:
        from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR
        from mlflow.utils.workspace_context import get_request_workspace
        from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

        headers: dict[str, str] = dict(original() or {})
        if is_ours(os.environ.get(BACKEND_STORE_URI_ENV_VAR)) and (job_id := running_job_id()):
            token = gateway_token()
            if token and not headers and (user := _user_of(job_id)):
                login = base64.b64encode(f"{user}:{token}".encode()).decode("ascii")
                headers["Authorization"] = f"Basic {login}"
            if workspace := get_request_workspace():
                headers[WORKSPACE_HEADER_NAME] = workspace
        return headers or None

    return build_auth_headers


@functools.lru_cache(maxsize=1)
def _user_of(job_id: str) -> str | None:
    """Who made it; of what runs by the clock, whom the operator named."""
    creator: str | None = server_job_store().get_job(job_id).creator
    return creator or os.environ.get(ENV_JOBS_USER)


def scored_once(original: Function) -> Function:
    return _once("online-scoring", original)


def detected_once(original: Function) -> Function:
    return _once("issue-detection", original)


def archived_once(original: Function) -> Function:
    """MLflow's interval of archival is one of each process; here it is one of all servers."""

    def interval(settings: Any = None) -> float:
        return MINUTE_SECONDS if settings is None else settings.interval_seconds - SOONER_SECONDS

    return _once("trace-archival", original, lambda given: interval(given.get("settings")))


def _once(
    task: str, original: Function, period: Callable[[dict[str, Any]], float] = lambda given: MINUTE_SECONDS
) -> Function:
    """In each period one of all servers does the task; as long as it does, no other begins."""

    def run(*args: Any, **kwargs: Any) -> Any:
        store = server_job_store()
        if not isinstance(store, MongoDBJobStore):
            return original(*args, **kwargs)
        lease = MongoDBJobLockManager(store).acquire_scheduler_lease(task, MINUTE_SECONDS)
        if lease is None:
            return None
        begun, held = time.monotonic(), _Held(store, lease)
        try:
            with _repeated(lambda: held.renew(MINUTE_SECONDS), MINUTE_SECONDS / RENEWALS, task):
                return original(*args, **kwargs)
        finally:
            # From its begin a period is free of others, also if the task took less.
            held.renew(max(1, round(period(kwargs) - (time.monotonic() - begun))))

    return run


class _Held:
    """The lease of a task that is being done."""

    def __init__(self, store: MongoDBJobStore, lease: Any) -> None:
        self._manager = MongoDBJobLockManager(store)
        self._lease = lease

    def renew(self, seconds: int) -> None:
        renewed = self._manager.renew_scheduler_lease(self._lease, seconds)
        if renewed is None:
            _logger.warning("Another server has begun %s meanwhile.", self._lease.lease_key)
        else:
            self._lease = renewed
