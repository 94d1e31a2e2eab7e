"""The store of workspaces that MLflow's server asks, on the tracking store's connection."""

from typing import TYPE_CHECKING, ClassVar

from mlflow.store.workspace.abstract_store import AbstractStore, ResolvedTraceArchivalConfig
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME, get_workspace_store_uri

from genesis_flow.areas.workspaces.methods import Workspaces, archival_of
from genesis_flow.core.settings import Settings
from genesis_flow.sync._generated.workspaces_methods import SyncWorkspaces

if TYPE_CHECKING:
    from mlflow.entities import Workspace


class _Workspaces(Workspaces):
    """Without the tracking store, which asks this one where its default experiment lies."""

    store = "tracking"


class MongoDBWorkspaceStore(SyncWorkspaces, AbstractStore):
    """MLflow's workspace store on MongoDB. Connects at the first call."""

    _async_store: ClassVar = _Workspaces

    def __init__(self, workspace_uri: str | None = None) -> None:
        super().__init__(Settings.resolve(workspace_uri))

    def get_default_workspace(self) -> "Workspace":
        return self.get_workspace(DEFAULT_WORKSPACE_NAME)

    def resolve_artifact_root(
        self, default_artifact_root: str | None, workspace_name: str
    ) -> tuple[str | None, bool]:
        """Where a workspace keeps artifacts, and whether in a folder of its own there."""
        own = self._workspace_settings(workspace_name).get("default_artifact_root")
        return (own, False) if own else (default_artifact_root, True)

    def resolve_trace_archival_config(
        self, default_trace_archival_root: str, default_retention: str, workspace_name: str
    ) -> ResolvedTraceArchivalConfig:
        """Where a workspace's old traces go and when, and whether in a folder of its own there."""
        config, appended = archival_of(
            self._workspace_settings(workspace_name), default_trace_archival_root, default_retention
        )
        return ResolvedTraceArchivalConfig(config=config, append_workspace_prefix=appended)


def workspace_store(settings: Settings) -> AbstractStore:
    """The server's list of workspaces, which any plugin may keep; by itself the database's own."""
    from genesis_flow.compat.workspaces import get_workspace_store

    elsewhere = get_workspace_store_uri()
    return get_workspace_store(elsewhere) if elsewhere else MongoDBWorkspaceStore.from_settings(settings)
