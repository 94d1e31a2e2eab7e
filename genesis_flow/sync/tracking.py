"""The tracking store that MLflow works with: the asynchronous one behind MLflow's blocking interface."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from mlflow.store.tracking.abstract_store import AbstractStore

from genesis_flow.areas.experiments.places import refuse_reserved_root
from genesis_flow.core.settings import Settings
from genesis_flow.mongo.operation import Area
from genesis_flow.mongo.scoping import current_workspace, workspaces_enabled
from genesis_flow.stores.training import AsyncTrainingStore
from genesis_flow.sync._generated.joined import SyncTrackingStore
from genesis_flow.sync.portal import portal

if TYPE_CHECKING:
    from mlflow.store.workspace.abstract_store import ResolvedTraceArchivalConfig

    from genesis_flow.sync.watching import BlockingWatch


# MLflow annotates the values of update_assessment and the points of query_trace_metrics as what they are not.
class MongoDBStore(SyncTrackingStore, AbstractStore):  # type: ignore[misc]
    """MLflow's tracking store on MongoDB.

    Connects at the first call, from whichever process and thread makes it.
    """

    _async_store: ClassVar = AsyncTrainingStore

    def __init__(self, db_uri: str | None = None, default_artifact_root: str | None = None) -> None:
        super().__init__(Settings.resolve(db_uri, artifact_root=default_artifact_root))
        if workspaces_enabled():
            refuse_reserved_root(self._settings.artifact_root)

    @property
    def db_uri(self) -> str:
        """The URI with its password masked: callers print it."""
        return self._settings.store_uri

    @property
    def artifact_root_uri(self) -> str:
        return self._settings.artifact_root

    def watch(
        self,
        *,
        run_ids: Iterable[str] | None = None,
        experiment_ids: Iterable[str] | None = None,
        start: Literal["beginning", "now"] = "beginning",
        after: str | None = None,
    ) -> "BlockingWatch":
        """The runs, or those of the experiments, as they change: an endless iterator of events.

        First what there is, unless ``start`` is ``"now"``; behind ``after``, the token of an event, what
        came since. See docs/watching.md.
        """
        from genesis_flow.sync.watching import BlockingWatch  # a client that logs needs it not
        from genesis_flow.watching import Watch

        store = self._store()
        assert isinstance(store, Area)  # as all stores of ours are

        async def made() -> Watch:
            return Watch(store, run_ids=run_ids, experiment_ids=experiment_ids, start=start, after=after)

        return BlockingWatch(portal.run(made))

    @property
    def supports_trace_archival(self) -> bool:
        return True

    def resolve_trace_archival_config(
        self, *, default_trace_archival_location: str, default_retention: str
    ) -> "ResolvedTraceArchivalConfig":
        """Where old traces of the current workspace go, and when."""
        if not workspaces_enabled():
            return super().resolve_trace_archival_config(
                default_trace_archival_location=default_trace_archival_location,
                default_retention=default_retention,
            )
        from genesis_flow.sync.workspaces import workspace_store  # a client needs it not

        return workspace_store(self._settings).resolve_trace_archival_config(
            default_trace_archival_location, default_retention, current_workspace()
        )

    @property
    def supports_workspaces(self) -> bool:
        return True
