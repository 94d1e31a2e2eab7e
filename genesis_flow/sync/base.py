"""What the generated blocking classes stand on: an async store behind the portal."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Protocol, Self, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED

from genesis_flow.mongo.operation import LONG, Area
from genesis_flow.sync import direct
from genesis_flow.sync.client import SyncClient
from genesis_flow.sync.missing import refusals
from genesis_flow.sync.portal import PortalTimeout, portal

if TYPE_CHECKING:
    from pymongo.asynchronous.mongo_client import AsyncMongoClient

    from genesis_flow.core.settings import Settings
    from genesis_flow.mongo.connection import Database

P = ParamSpec("P")
T = TypeVar("T")

# Operations end at their own deadline. The portal's is for what they cannot see: a stuck loop.
_BACKSTOP_MARGIN_SECONDS = 15.0


class AsyncStore(Protocol):
    """What the facade needs of an async store besides the operations."""

    def __init__(self, settings: "Settings") -> None: ...

    async def close(self) -> None: ...


class SyncFacade:
    """Blocking calls to an async store.

    A concrete store names its async store in ``_async_store``; its constructor only makes settings and hands
    them on, because a copy or an unpickled store is made from the settings alone.
    """

    _async_store: ClassVar[type[AsyncStore]]

    def __init__(self, settings: "Settings", *base_args: Any, **base_kwargs: Any) -> None:
        """Arguments after ``settings`` go to the next class, MLflow's base of the store."""
        self._settings = settings
        # By the portal's generation. Stores of past ones stay: their connections belong to another loop, or
        # to the parent process, and must not be closed from here, not even by the garbage collector.
        self._stores: dict[int, AsyncStore] = {}
        # On the instance and not the class: what a class of ours defines counts as there.
        self.__dict__.update(refusals(type(self)))
        super().__init__(*base_args, **base_kwargs)

    @classmethod
    def from_settings(cls, settings: "Settings") -> Self:
        """A store for settings that are resolved already."""
        store = cls.__new__(cls)
        SyncFacade.__init__(store, settings)
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        # Connections, locks and MLflow's logging threads stay in this process; the settings travel.
        return _rebuild, (type(self), self._settings)

    @property
    def client(self) -> SyncClient:
        """The MongoDB client for health checks: ``store.client.admin.command("ping")``."""
        return SyncClient(self._open_client, self._in_portal)

    @property
    def last_opened(self) -> "Database | None":
        """The database, if it was opened before: for what this process remembers of it."""
        store = self._store()
        assert isinstance(store, Area)  # as all stores of ours are
        return store.last_opened

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        store = self._stores.pop(portal.generation, None)
        if store is not None:
            self._in_portal(store.close)

    def _run(
        self, method: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the async store's method of this name (an override counts) and wait for its result."""
        bound: Callable[P, Awaitable[T]] = getattr(self._store(), method.__name__)
        return self._in_portal(lambda: bound(*args, **kwargs))

    def _run_direct(
        self, method: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make a call that this thread may make itself; else the loop makes it."""
        store = self._store()
        assert isinstance(store, Area)  # nothing else has direct calls
        bound: Callable[P, Coroutine[Any, Any, T]] = getattr(store, method.__name__)
        return direct.run(
            store,
            lambda: bound(*args, **kwargs),
            lambda: self._in_portal(lambda: bound(*args, **kwargs)),
            bound,
        )

    def _asked(self, name: str, ask: "Callable[[Database], T]") -> T | None:
        """What this thread asks of the database itself, as calls of this name do; None if it must not."""
        store = self._store()
        assert isinstance(store, Area)  # as all stores of ours are
        return direct.asked(store, name, ask)

    def _run_long(
        self, method: Callable[Concatenate[Any, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call the async store's method of this name, with the deadline of a long operation."""
        bound: Callable[P, Awaitable[T]] = getattr(self._store(), method.__name__)
        return self._in_portal(lambda: bound(*args, **kwargs), patience=LONG)

    def _in_portal(self, work: Callable[[], Awaitable[T]], patience: int = 1) -> T:
        settings = self._settings
        limit = settings.timeout * patience + settings.open_timeout + _BACKSTOP_MARGIN_SECONDS
        try:
            return portal.run(work, limit)
        except PortalTimeout as error:
            raise MlflowException(str(error), DEADLINE_EXCEEDED) from error

    def _store(self) -> AsyncStore:
        """The async store of this process; a forked child makes its own."""
        generation = portal.generation
        store = self._stores.get(generation)
        if store is None:
            # Threads may race to here; setdefault() lets one win without a lock that a fork could catch held.
            store = self._stores.setdefault(generation, type(self)._async_store(self._settings))
        return store

    @asynccontextmanager
    async def _open_client(self) -> "AsyncIterator[AsyncMongoClient[dict[str, Any]]]":
        """The client, as long as it is used; the store is a user of it afterwards, too."""
        from genesis_flow.mongo.connection import open_database

        store, use = self._store(), object()
        database = await open_database(self._settings, store)
        while not database.enter(use):  # the store was closed at this moment
            database = await open_database(self._settings, store)
        try:
            yield database.client
        finally:
            database.leave(use)


def _rebuild(cls: type[SyncFacade], settings: "Settings") -> SyncFacade:
    return cls.from_settings(settings)
