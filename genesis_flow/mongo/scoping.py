"""Workspaces: the one place that says which workspace a query may see."""

from typing import Any

from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME


def current_workspace() -> str:
    """The workspace of this call. A store without workspace support has one, MLflow's default."""
    return DEFAULT_WORKSPACE_NAME


def scoped(query: dict[str, Any]) -> dict[str, Any]:
    """``query``, restricted to the current workspace."""
    return {**query, "workspace": current_workspace()}
