"""What MLflow's server does with jobs that our store keeps: the replacements that ``hooks.py`` lists.

MLflow's recovery takes every running job of an earlier time for one of its own that was left behind. Here
jobs have leases: those that run elsewhere are let alone, and those whose runner is gone are taken over by
whoever sees it first, at any time. What runs by the clock runs once for all servers of a database.
"""

import atexit
import contextvars
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genesis_flow.compat.jobs import (
    JobStatus,
    JobUpdateStatus,
    lease_seconds,
    recovery_contexts,
    server_job_store,
)
from genesis_flow.core.uri import SCHEMES, scheme_of
from genesis_flow.sync.jobs import MongoDBJobLockManager, MongoDBJobStore

_logger = logging.getLogger("genesis_flow")

Function = Callable[..., Any]

# How often a runner looks for jobs whose runner is gone, and how often a running job renews its lease.
LOOK_SECONDS = 5.0
RENEWALS = 3
# Periodic tasks come each minute; a lease that is a little shorter ends before the next.
MINUTE_SECONDS = 50

# What runs a job in a process of its own takes.
EXECUTED = (
    *("function_fullname", "params", "python_env", "transient_error_classes", "timeout", "tmpdir"),
    *("job_store", "job_id", "job_name", "workspace", "extra_envs"),
)


def _is_ours(uri: object) -> bool:
    return isinstance(uri, str) and scheme_of(uri) in SCHEMES


def told_the_type(original: Function) -> Function:
    def extract_db_type_from_uri(db_uri: Any) -> Any:
        return "mongodb" if _is_ours(db_uri) else original(db_uri)

    return extract_db_type_from_uri


def stored(original: type) -> type:
    """The class of the SQL store makes our store from our URIs; what it makes is not initialised again."""

    def new(cls: type, db_uri: Any = None, *args: Any, **kwargs: Any) -> Any:
        return MongoDBJobStore(db_uri) if _is_ours(db_uri) else object.__new__(cls)

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
    def go_on() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                look()
            except Exception:
                _logger.exception("Looking for lost jobs failed; the next look comes.")

    threading.Thread(target=go_on, name="genesis-flow-lost-jobs", daemon=True).start()


def _take_over_everywhere(store: MongoDBJobStore) -> None:
    for context in recovery_contexts():
        with context:
            taken_over(store)


def tidied(original: Function) -> Function:
    """The queues, which hold keys of providers in clear, go with the server."""

    def launch_job_execution_runner(env_map: Any, server_proc_pid: Any) -> Any:
        from mlflow.server.constants import HUEY_STORAGE_PATH_ENV_VAR

        if _is_ours(env_map.get("MLFLOW_BACKEND_STORE_URI")):
            atexit.register(shutil.rmtree, env_map[HUEY_STORAGE_PATH_ENV_VAR], ignore_errors=True)
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
    seconds, stop = lease_seconds(), threading.Event()
    store.renew_job_lease(job_id, seconds)

    def renew() -> None:
        while not stop.wait(seconds / RENEWALS):
            try:
                store.renew_job_lease(job_id, seconds)
            except Exception:
                _logger.exception("The lease of job %s could not be renewed; it is tried again.", job_id)

    context = contextvars.copy_context()  # of the job's workspace
    thread = threading.Thread(target=context.run, args=(renew,), name=f"lease-{job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def scored_once(original: Function) -> Function:
    return _once("online-scoring", original)


def detected_once(original: Function) -> Function:
    return _once("issue-detection", original)


def archived_once(original: Function) -> Function:
    return _once("trace-archival", original)


def _once(task: str, original: Function) -> Function:
    """Each minute one of all servers does the task."""

    def run(*args: Any, **kwargs: Any) -> Any:
        store = server_job_store()
        if isinstance(store, MongoDBJobStore) and store.take_scheduler_lease(task, MINUTE_SECONDS) is None:
            return None
        return original(*args, **kwargs)

    return run
