"""Whoever keeps the server's list of workspaces."""

from mlflow.tracking._workspace.registry import get_workspace_store

__all__ = ["get_workspace_store"]
