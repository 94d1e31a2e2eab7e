"""The asynchronous stores: the same methods as MLflow's, awaitable.

They connect on the running event loop at the first call::

    store = MongoDBStore("mongodb://localhost:27017/mlflow")
    run = await store.get_run(run_id)
    await store.close()
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from mlflow.entities import Run, RunTag, Span, ViewType
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.mlflow_tags import MLFLOW_USER
from mlflow.utils.time import get_current_time_millis

from genesis_flow.core.settings import Settings
from genesis_flow.mongo.operation import Area, connect
from genesis_flow.stores.joined import AsyncModelRegistryStore, AsyncTrackingStore
from genesis_flow.watching.watch import Start, Watch


class _AsContextManager(Area):
    def __getattr__(self, name: str) -> Any:
        """What MLflow's stores have and ours do not yet: a method that refuses in words."""
        if not name.startswith("_"):
            from genesis_flow.sync.missing import missing_methods, refusal_awaited

            if name in missing_methods(self._blocking_store()):
                return refusal_awaited(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _blocking_store(self) -> type:
        """The store that MLflow knows, which shows what its interface has."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        try:
            await connect(self)
        except BaseException:  # with no block to end, nothing would leave the connection
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class MongoDBStore(AsyncTrackingStore, _AsContextManager):
    """MLflow's tracking store on MongoDB, awaitable."""

    def __init__(self, db_uri: str, default_artifact_root: str | None = None) -> None:
        super().__init__(Settings.resolve(db_uri, artifact_root=default_artifact_root))

    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None = None,
        start_time: int | None = None,
        tags: list[RunTag] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Start a run in an active experiment; who and when are filled in as by MLflow's client."""
        if user_id is None:
            user_id = next((tag.value for tag in tags or () if tag.key == MLFLOW_USER), "unknown")
        if start_time is None:
            start_time = get_current_time_millis()
        return await super().create_run(experiment_id, user_id, start_time, tags, run_name)

    async def search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str | None = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """A page of the runs that match, with the token of the next."""
        runs, token = await self._search_runs(
            experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
        )
        return PagedList(runs, token)

    def watch(
        self,
        *,
        run_ids: Iterable[str] | None = None,
        experiment_ids: Iterable[str] | None = None,
        start: Start = "beginning",
        after: str | None = None,
    ) -> Watch:
        """The runs, or those of the experiments, as they change: an endless iterator of events.

        First what there is, unless ``start`` is ``"now"``; behind ``after``, the token of an event, what
        came since. See docs/watching.md.
        """
        return Watch(self, run_ids=run_ids, experiment_ids=experiment_ids, start=start, after=after)

    async def log_spans_async(self, location: str, spans: list[Span]) -> list[Span]:
        """MLflow's name for what ``log_spans`` is here anyway."""
        return await self.log_spans(location, spans)

    def _blocking_store(self) -> type:
        from genesis_flow.sync import tracking

        return tracking.MongoDBStore


class MongoDBModelRegistryStore(AsyncModelRegistryStore, _AsContextManager):
    """MLflow's model registry store on MongoDB, awaitable."""

    def __init__(self, db_uri: str) -> None:
        super().__init__(Settings.resolve(db_uri))

    def _blocking_store(self) -> type:
        from genesis_flow.sync import registry

        return registry.MongoDBModelRegistryStore


__all__ = ["MongoDBModelRegistryStore", "MongoDBStore"]
