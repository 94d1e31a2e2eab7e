"""An opened database as the thread of a blocking caller uses it, without the event loop; see ADR 38.

Its collections look like those of PyMongo's asynchronous client and send with the blocking one: a command is
sent, and answered, when its method is awaited. Only what such calls use is here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent import futures
from functools import partial
from typing import Any, Self, TypeVar, cast

import pymongo
from pymongo import InsertOne
from pymongo.client_session import ClientSession
from pymongo.errors import ConfigurationError

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.mongo import observed
from genesis_flow.mongo.binding import Collection, Documents
from genesis_flow.mongo.connection import NO_SESSIONS, Database, Joined, Session
from genesis_flow.mongo.patience import in_order
from genesis_flow.mongo.scoped import ScopedUpdates
from genesis_flow.mongo.scoping import current_workspace, workspaces_enabled
from genesis_flow.mongo.waiting import LeftToLoop, finish

T = TypeVar("T")


class ThreadedDatabase(Database):
    """For a call that its thread makes alone."""

    def __init__(self, opened: Database) -> None:
        super().__init__(opened.settings, opened.clients, opened.client, opened.documents)
        self._opened = opened
        self._alone: dict[type[Declared], _Alone] = {}
        self.has_transactions = opened.has_transactions
        self.embedded = opened.embedded
        self.kept = opened.kept
        self._client = opened.clients.blocking()
        handle = _Handle(
            self._client.get_database(self.settings.database, read_preference=pymongo.ReadPreference.PRIMARY)
        )
        self.documents = Documents(cast(Any, handle), self.settings.prefix)

    def reading(self, declared: type[Declared]) -> Collection:
        if self.clients.clock is not None:
            raise LeftToLoop(has_written=True)  # which knows the members to ask
        return self.collection(declared)

    def joined(self, declared: type[Declared]) -> Joined:
        joined = self._alone.get(declared) or self._alone.setdefault(
            declared, _Alone(self.everywhere(declared))
        )
        return ScopedUpdates(joined, current_workspace()) if workspaces_enabled() else joined

    def lock(self, name: str) -> contextlib.AbstractAsyncContextManager[None]:
        """A thread that makes its calls itself is alone."""
        return contextlib.nullcontext()

    async def atomically(self, write: Callable[[Session | None], Awaitable[T]]) -> T:
        if not self.has_transactions:
            return await write(None)

        async def within(session: ClientSession) -> T:
            return await write(cast(Session, _Session(session)))

        try:
            with (
                self._client.start_session() as session,
                # Should it be cut, the loop makes the next attempt, and ends this one's session first.
                in_order(partial(self._opened.end_session, session.session_id)),
            ):
                return session.with_transaction(lambda begun: finish(within(begun)))
        except ConfigurationError as error:
            if NO_SESSIONS not in str(error):
                raise
            return await write(None)


class SharedDatabase(Database):
    """For calls of threads that meet others: the loop joins their updates into one command."""

    def __init__(self, opened: Database) -> None:
        super().__init__(opened.settings, opened.clients, opened.client, opened.documents)
        self._opened = opened

    def collection(self, declared: type[Declared]) -> Collection:
        raise LeftToLoop(has_written=False)  # updates that are joined may be sent twice

    reading = everywhere = collection

    def joined(self, declared: type[Declared]) -> Joined:
        return _HandedOver(partial(self._opened.update_from_thread, declared))


class _Alone:
    """Updates that the thread sends itself."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def update_one(self, query: Document, change: Document) -> bool:
        return (await self._collection.update_one(query, change)).matched_count > 0


# Of a loop that does not answer, or has ended.
_NOT_TOLD = (TimeoutError, futures.CancelledError, asyncio.CancelledError, RuntimeError)


class _HandedOver:
    """Updates that the loop sends with those of other threads."""

    def __init__(self, hand_over: Callable[[Document, Document], bool]) -> None:
        self._hand_over = hand_over

    async def update_one(self, query: Document, change: Document) -> bool:
        try:
            return self._hand_over(query, change)
        except _NOT_TOLD as error:
            raise LeftToLoop(has_written=False) from error


class _Handle:
    """A database, by its collections."""

    def __init__(self, database: "pymongo.database.Database[Document]") -> None:
        self._database = database

    def __getitem__(self, name: str) -> "_Collection":
        return _Collection(self._database[name])


def _sends(method: str, command: str) -> Callable[..., Any]:
    """The driver's method of this name, which sends this command."""

    async def send(self: "_Collection", *args: Any, **options: Any) -> Any:
        return self.send(method, command, args, options)

    return send


class _Collection:
    """The commands of a collection."""

    def __init__(self, blocking: "pymongo.collection.Collection[Document]") -> None:
        self.blocking = blocking
        self.name = blocking.name

    def send(self, method: str, command: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        with observed.timed(command):
            return getattr(self.blocking, method)(*args, **_passed(options))

    def with_options(self, **options: Any) -> "_Collection":
        return _Collection(self.blocking.with_options(**options))

    find_one = _sends("find_one", "find")
    find_one_and_update = _sends("find_one_and_update", "findAndModify")
    insert_one = _sends("insert_one", "insert")
    insert_many = _sends("insert_many", "insert")
    update_one = _sends("update_one", "update")
    update_many = _sends("update_many", "update")
    replace_one = _sends("replace_one", "update")
    delete_one = _sends("delete_one", "delete")
    delete_many = _sends("delete_many", "delete")

    async def bulk_write(self, requests: Any, **options: Any) -> Any:
        """Requests of one kind, as calls have them, are one command."""
        kind = type(requests[0])
        command = "insert" if kind is InsertOne else "delete" if kind in _DELETIONS else "update"
        return self.send("bulk_write", command, (requests,), options)

    def find(self, *args: Any, **options: Any) -> "_Cursor":
        return _Cursor(self.blocking.find(*args, **_passed(options)), "find")

    async def aggregate(self, *args: Any, **options: Any) -> "_Cursor":
        cursor = self.send("aggregate", "aggregate", args, options)
        return _Cursor(cursor, "getMore" if cursor.cursor_id else None)


def _passed(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the driver's own session."""
    if (session := options.get("session")) is not None:
        options["session"] = session.blocking
    return options


_DELETIONS = (pymongo.DeleteOne, pymongo.DeleteMany)


class _Cursor:
    """The documents that a command finds, read as they are asked for."""

    def __init__(self, blocking: Any, command: str | None) -> None:
        """``command`` is sent when the documents are asked for."""
        self._blocking = blocking
        self._command = command

    def sort(self, order: str | Iterable[tuple[str, int]], direction: int | None = None) -> Self:
        self._blocking.sort(order, direction)
        return self

    def limit(self, limit: int) -> Self:
        self._blocking.limit(limit)
        return self

    async def to_list(self, length: int | None = None) -> list[Document]:
        with observed.timed(self._command) if self._command else contextlib.nullcontext():
            documents: list[Document] = self._blocking.to_list(length)
        return documents

    async def __aiter__(self) -> AsyncIterator[Document]:
        for document in await self.to_list():
            yield document


class _Session:
    """A session in a transaction."""

    def __init__(self, blocking: ClientSession) -> None:
        self.blocking = blocking

    async def abort_transaction(self) -> None:
        self.blocking.abort_transaction()
