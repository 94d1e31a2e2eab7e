"""A small blocking view of the MongoDB client, for health checks and administration."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from pymongo.asynchronous.mongo_client import AsyncMongoClient

T = TypeVar("T")
OpenClient = Callable[[], "AbstractAsyncContextManager[AsyncMongoClient[dict[str, Any]]]"]


class Runner(Protocol):
    """Runs async work to its end for a blocking caller."""

    def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


class SyncClient:
    """Blocking commands to the server that a store uses; the connection is looked up at every call."""

    def __init__(self, open_client: OpenClient, run: Runner) -> None:
        self._open_client = open_client
        self._run = run

    @property
    def admin(self) -> "SyncDatabase":
        return self["admin"]

    def __getitem__(self, database: str) -> "SyncDatabase":
        return SyncDatabase(database, self._open_client, self._run)

    def server_info(self) -> dict[str, Any]:
        async def work() -> dict[str, Any]:
            async with self._open_client() as client:
                return await client.server_info()

        return self._run(work)

    def list_database_names(self) -> list[str]:
        async def work() -> list[str]:
            async with self._open_client() as client:
                return await client.list_database_names()

        return self._run(work)

    def __repr__(self) -> str:
        return "SyncClient()"


class SyncDatabase:
    """Blocking commands against one database."""

    def __init__(self, name: str, open_client: OpenClient, run: Runner) -> None:
        self.name = name
        self._open_client = open_client
        self._run = run

    def command(self, command: Any, value: Any = 1, **options: Any) -> dict[str, Any]:
        """Run one database command: its name, value and further fields, or all of them in a mapping."""

        async def work() -> dict[str, Any]:
            async with self._open_client() as client:
                return await client[self.name].command(command, value, **options)

        return self._run(work)

    def list_collection_names(self) -> list[str]:
        async def work() -> list[str]:
            async with self._open_client() as client:
                return await client[self.name].list_collection_names()

        return self._run(work)

    def __repr__(self) -> str:
        return f"SyncDatabase({self.name!r})"
