"""Background jobs: MLflow's entities, which lie in private modules, and what its stores answer with."""

import os
from contextlib import AbstractContextManager
from typing import Any

from mlflow.entities._job import Job, JobProgress
from mlflow.entities._job_status import JobStatus
from mlflow.environment_variables import (
    _MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN,
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
    "GATEWAY_TOKEN_VARIABLE",
    "AbstractJobStore",
    "Job",
    "JobProgress",
    "JobStatus",
    "JobTerminalStateUpdateException",
    "JobUpdateStatus",
    "gateway_token",
    "lease_seconds",
    "most_retries",
    "recovery_contexts",
    "retry_delay_seconds",
    "running_job_id",
    "server_job_store",
]


# There is one where a server has a login.
GATEWAY_TOKEN_VARIABLE: str = _MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN.name


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


def running_job_id() -> str | None:
    """The job that this process runs."""
    from mlflow.server.jobs.utils import MLFLOW_SERVER_JOB_ID_ENV_VAR

    return os.environ.get(MLFLOW_SERVER_JOB_ID_ENV_VAR)


def gateway_token() -> str | None:
    """The password with which the gateway of a server with a login takes each user from its own jobs."""
    token: str | None = _MLFLOW_INTERNAL_GATEWAY_AUTH_TOKEN.get()
    return token


def server_job_store() -> Any:
    """The job store of this process of a server."""
    from mlflow.server.handlers import _get_job_store

    return _get_job_store()


def recovery_contexts() -> list[AbstractContextManager[str | None]]:
    """The workspaces whose jobs a runner looks after."""
    from mlflow.server.jobs.utils import _workspace_contexts_for_recovery

    contexts: list[AbstractContextManager[str | None]] = _workspace_contexts_for_recovery()
    return contexts
