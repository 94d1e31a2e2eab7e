"""Background jobs: MLflow's entities, which lie in private modules, and what its stores answer with."""

from contextlib import AbstractContextManager
from typing import Any

from mlflow.entities._job import Job, JobProgress
from mlflow.entities._job_status import JobStatus
from mlflow.environment_variables import (
    MLFLOW_SERVER_JOB_LEASE_TTL,
    MLFLOW_SERVER_JOB_TRANSIENT_ERROR_MAX_RETRIES,
    MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY,
    MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_MAX_DELAY,
)
from mlflow.store.jobs.abstract_store import (
    AbstractJobStore,
    JobTerminalStateUpdateException,
    JobUpdateStatus,
)

__all__ = [
    "AbstractJobStore",
    "Job",
    "JobProgress",
    "JobStatus",
    "JobTerminalStateUpdateException",
    "JobUpdateStatus",
    "lease_seconds",
    "most_retries",
    "recovery_contexts",
    "retry_delay_seconds",
    "server_job_store",
]


def lease_seconds() -> float:
    """How long a job is taken for running after its runner was heard of."""
    return float(MLFLOW_SERVER_JOB_LEASE_TTL.get())


def most_retries() -> int:
    return int(MLFLOW_SERVER_JOB_TRANSIENT_ERROR_MAX_RETRIES.get())


def retry_delay_seconds(retry: int) -> int:
    """How long a job waits before its retry of this number, from 1: twice as long each time."""
    first = MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY.get()
    longest = MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_MAX_DELAY.get()
    return int(min(first * 2 ** (retry - 1), longest))


def server_job_store() -> Any:
    """The job store of this process of a server."""
    from mlflow.server.handlers import _get_job_store

    return _get_job_store()


def recovery_contexts() -> list[AbstractContextManager[str | None]]:
    """The workspaces whose jobs a runner looks after."""
    from mlflow.server.jobs.utils import _workspace_contexts_for_recovery

    contexts: list[AbstractContextManager[str | None]] = _workspace_contexts_for_recovery()
    return contexts
