"""Searches and histories by the members that ``readPreference`` names, behind what the client has seen.

All else reads from the primary, since what calls decide must not be decided by what is late. A member that is
asked first waits until it has what this client wrote and read so far: a client sees its own writes, and what
it saw once stays. A member that is too far behind is not waited for: the primary answers then.
"""

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self, TypeVar

import pymongo
from pymongo import ReadPreference, monitoring
from pymongo.errors import PyMongoError

from genesis_flow.documents.plain import Document

T = TypeVar("T")

PATIENCE_SECONDS = 5.0
"""What a member gets for an answer; then the primary is asked."""
AVOIDED_SECONDS = 30.0
"""How long the primary is asked at once after a member took too long."""


class Clock(monitoring.CommandListener):
    """The newest moment in the history of a replica set that the clients of a process have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment: Any = None
        self._cluster: Any = None
        self._avoided_until = 0.0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Only answers tell of time."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._see(event.reply)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._see(event.failure)

    def _see(self, reply: Any) -> None:
        moment, cluster = reply.get("operationTime"), reply.get("$clusterTime")
        if moment is None or cluster is None:
            return
        with self._lock:
            if self._moment is None or moment > self._moment:
                self._moment = moment
            if self._cluster is None or cluster["clusterTime"] > self._cluster["clusterTime"]:
                self._cluster = cluster

    def set(self, session: Any) -> None:
        """Have what is read in a session come after all that was seen."""
        with self._lock:
            moment, cluster = self._moment, self._cluster
        if moment is not None:
            session.advance_cluster_time(cluster)
            session.advance_operation_time(moment)

    @property
    def is_avoiding(self) -> bool:
        return time.monotonic() < self._avoided_until

    def avoid(self) -> None:
        self._avoided_until = time.monotonic() + AVOIDED_SECONDS


class Members:
    """The members that a client reads from, and what it has seen."""

    def __init__(self, client: Any, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self.preference = client.read_preference

    async def ask(
        self,
        collection: Any,
        work: Callable[[Any, Any], Awaitable[T]],
        until: contextlib.AsyncExitStack | None = None,
    ) -> T:
        """What ``work`` reads from a collection in a session; by the primary if the members are late.

        The session ends with the answer, or with ``until``.
        """
        if not self._clock.is_avoiding:
            try:
                with pymongo.timeout(PATIENCE_SECONDS):
                    return await self._ask_members(collection, work, until)
            except PyMongoError as error:
                if not error.timeout:
                    raise
                self._clock.avoid()
        return await work(collection.with_options(read_preference=ReadPreference.PRIMARY), None)

    async def _ask_members(
        self,
        collection: Any,
        work: Callable[[Any, Any], Awaitable[T]],
        until: contextlib.AsyncExitStack | None,
    ) -> T:
        async with contextlib.AsyncExitStack() as answered:
            session = self._client.start_session(causal_consistency=True)
            await (until or answered).enter_async_context(session)
            self._clock.set(session)
            return await work(collection.with_options(read_preference=self.preference), session)


class FollowingCollection:
    """As much of a driver's collection as searches and histories read with."""

    def __init__(self, collection: Any, members: Members) -> None:
        self._collection = collection
        self._members = members

    @property
    def name(self) -> str:
        return str(self._collection.name)

    def find(self, *args: Any, **options: Any) -> "FollowingCursor":
        return FollowingCursor(self._collection, self._members, args, options)

    async def find_one(self, *args: Any, **options: Any) -> Any:
        return await self._ask("find_one", *args, **options)

    async def count_documents(self, *args: Any, **options: Any) -> Any:
        return await self._ask("count_documents", *args, **options)

    async def distinct(self, *args: Any, **options: Any) -> Any:
        return await self._ask("distinct", *args, **options)

    async def aggregate(self, *args: Any, **options: Any) -> "FollowingRows":
        async def read(collection: Any, session: Any) -> list[Document]:
            rows: list[Document] = await (
                await collection.aggregate(*args, **options, session=session)
            ).to_list()
            return rows

        return FollowingRows(await self._members.ask(self._collection, read))

    async def _ask(self, name: str, *args: Any, **options: Any) -> Any:
        async def read(collection: Any, session: Any) -> Any:
            return await getattr(collection, name)(*args, **options, session=session)

        return await self._members.ask(self._collection, read)


class FollowingRows:
    """The rows of an aggregation, which a page or a sum has few of."""

    def __init__(self, rows: list[Document]) -> None:
        self._rows = rows

    async def to_list(self, length: int | None = None) -> list[Document]:
        some, self._rows = self._rows[:length], [] if length is None else self._rows[length:]
        return some

    async def __aiter__(self) -> AsyncIterator[Document]:
        for row in await self.to_list():
            yield row


class FollowingCursor:
    """The matching documents."""

    def __init__(
        self, collection: Any, members: Members, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._collection = collection
        self._members = members
        self._args = args
        self._options = options

    def sort(self, order: Any, direction: int = pymongo.ASCENDING) -> Self:
        self._options["sort"] = [(order, direction)] if isinstance(order, str) else order
        return self

    def limit(self, limit: int) -> Self:
        self._options["limit"] = limit
        return self

    async def to_list(self) -> list[Document]:
        async def read(collection: Any, session: Any) -> list[Document]:
            found: list[Document] = await self._opened(collection, session).to_list()
            return found

        return await self._members.ask(self._collection, read)

    async def __aiter__(self) -> AsyncIterator[Document]:
        """One by one: the answer to the first says who answers."""
        async with contextlib.AsyncExitStack() as until_read:

            async def begin(collection: Any, session: Any) -> tuple[Any, Document | None]:
                cursor = self._opened(collection, session)
                return cursor, await anext(cursor, None)

            cursor, first = await self._members.ask(self._collection, begin, until_read)
            if first is not None:
                yield first
                async for document in cursor:
                    yield document

    def _opened(self, collection: Any, session: Any) -> Any:
        return collection.find(*self._args, **self._options, session=session)
