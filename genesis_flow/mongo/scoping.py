"""Workspaces: the one place that says which workspace a query may see.

``mongo/scoped.py`` holds every query to it where workspaces are enabled (ADR 29).
"""

import functools
import os
from typing import Any

from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.mongo.scoped import within


def workspaces_enabled() -> bool:
    """Whether MLflow's process knows workspaces; without them there is one, MLflow's default."""
    value = os.environ.get(MLFLOW_ENABLE_WORKSPACES.name)
    return value is not None and _means_yes(value)


@functools.lru_cache(maxsize=8)
def _means_yes(_value: str) -> bool:
    """What MLflow reads in the variable, which has this value now."""
    return bool(MLFLOW_ENABLE_WORKSPACES.get())


def current_workspace() -> str:
    """The workspace of this call: the request's, or the one that the process was told."""
    if not workspaces_enabled():
        return DEFAULT_WORKSPACE_NAME
    workspace = get_request_workspace()
    if workspace is None:
        raise MlflowException.invalid_parameter_value(
            "Active workspace is required. Configure a default workspace or call mlflow.set_workspace() "
            "before interacting with the store."
        )
    return workspace


def workspace_of_call() -> str:
    """The workspace that a call is recorded under: what is done for all of them, under the default one."""
    return (get_request_workspace() if workspaces_enabled() else None) or DEFAULT_WORKSPACE_NAME


def held(query: dict[str, Any]) -> dict[str, Any]:
    """For a command that is sent by another way than a collection that was handed out."""
    return within(current_workspace(), query) if workspaces_enabled() else query


def scoped(query: dict[str, Any]) -> dict[str, Any]:
    """``query``, restricted to the current workspace."""
    return {**query, "workspace": current_workspace()}
