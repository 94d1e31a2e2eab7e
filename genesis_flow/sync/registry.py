"""The registry store that MLflow works with: the asynchronous one behind MLflow's blocking interface."""

from typing import Any, ClassVar

from mlflow.store.model_registry.abstract_store import AbstractStore

from genesis_flow.core.settings import Settings
from genesis_flow.stores.joined import AsyncModelRegistryStore
from genesis_flow.sync._generated.joined import SyncModelRegistryStore


class MongoDBModelRegistryStore(SyncModelRegistryStore, AbstractStore):
    """MLflow's model registry store on MongoDB.

    Connects at the first call, from whichever process and thread makes it.
    """

    _async_store: ClassVar[type[AsyncModelRegistryStore]] = AsyncModelRegistryStore

    def __init__(self, db_uri: str | None = None) -> None:
        super().__init__(Settings.resolve(db_uri))

    @property
    def db_uri(self) -> str:
        """The URI with its password masked: callers print it."""
        return self._settings.store_uri

    @property
    def supports_workspaces(self) -> bool:
        return True

    def _await_model_version_creation(self, mv: Any, await_creation_for: int) -> None:
        """Nothing to wait for: a version that was created is ready."""
