"""PyMongo's blocking client in the clothes of its asynchronous one, for calls in their callers' threads.

A command is sent, and waited for, when its method is called; awaiting what it returns gives the result that
is there already. Only what such calls use is here.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import pymongo
from pymongo.client_session import ClientSession
from pymongo.errors import ConfigurationError, OperationFailure

from genesis_flow.documents.declared import Declared
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.clients import BlockingClient
from genesis_flow.mongo.connection import NO_SESSIONS, Database, Session
from genesis_flow.mongo.patience import in_order
from genesis_flow.mongo.waiting import finish
from genesis_flow.sync.joined import JoinedThreads

Document = dict[str, Any]
T = TypeVar("T")

# Names share locks: to wait for a stranger now and then costs less than to keep a lock for every run.
_LOCKS = 64
_HOLDER = "holder"
# How long a thread waits until it looks at a lock again, should nobody have woken it.
_DOUBT_SECONDS = 0.05
# What a round trip may take that is cheaper than the way to the loop and back.
_NEAR_SECONDS = 0.002


class BlockingDatabase(Database):
    """An opened database, driven by threads instead of its loop."""

    def __init__(self, opened: Database) -> None:
        self.settings = opened.settings
        self.clients = opened.clients
        self.embedded = opened.embedded
        self.documents = opened.documents
        self.has_transactions = opened.has_transactions
        self._collections: dict[type[Declared], BlockingCollection] = {}
        self._threads: dict[type[Declared], JoinedThreads] = {}
        self._round_trip: float | None = None
        self._thread_locks = [_Lock(self.settings.timeout) for _ in range(_LOCKS)]

    @property
    def _blocking_client(self) -> BlockingClient:
        return self.clients.blocking()

    def is_usable(self) -> bool:
        return self.is_open()

    def is_near(self) -> bool:
        # Not the driver's own figure: its first one has the noise of a new connection, and ages slowly.
        if self._round_trip is None:
            self._round_trip = min(self._ping() for _ in range(3))
        return self._round_trip < _NEAR_SECONDS

    def _ping(self) -> float:
        begun = time.perf_counter()
        self._blocking_client.admin.command("ping")
        return time.perf_counter() - begun

    def collection(self, declared: type[Declared]) -> Collection:
        return cast(Collection, self._collection(declared))

    def _collection(self, declared: type[Declared]) -> "BlockingCollection":
        if declared not in self._collections:
            name = self.documents.collection(declared).name
            made = BlockingCollection(self._blocking_client[self.settings.database][name])
            self._collections.setdefault(declared, made)
        return self._collections[declared]

    def joined(self, declared: type[Declared]) -> JoinedThreads:
        if declared not in self._threads:
            self._threads.setdefault(
                declared, JoinedThreads(self._collection(declared).driven, self.settings.timeout)
            )
        return self._threads[declared]

    def lock(self, name: str) -> "_Lock":
        return self._thread_locks[hash(name) % _LOCKS]

    async def atomically(self, write: Callable[[Session | None], Awaitable[T]]) -> T:
        if not self.has_transactions:
            return await write(None)
        try:
            with (
                self._blocking_client.start_session() as session,
                in_order(partial(self.end_session, session.session_id)),
            ):
                return session.with_transaction(lambda begun: finish(_write(write, begun)))
        except ConfigurationError as error:
            if NO_SESSIONS not in str(error):
                raise
            return await write(None)

    async def end_session(self, session_id: Mapping[str, Any]) -> None:
        with suppress(OperationFailure):
            self._blocking_client.admin.command("killSessions", [session_id])


async def _write(write: Callable[[Session | None], Awaitable[T]], session: ClientSession) -> T:
    return await write(cast(Session, _Session(session)))


def _command(name: str) -> Callable[..., "_Done[Any]"]:
    """The driver's method of this name."""

    def send(self: "BlockingCollection", *args: Any, **options: Any) -> "_Done[Any]":
        return _Done(getattr(self.driven, name)(*args, **_passed(options)))

    return send


class BlockingCollection:
    """The commands of a collection."""

    def __init__(self, driven: "pymongo.collection.Collection[Document]") -> None:
        self.driven = driven
        self.name = driven.name

    find_one = _command("find_one")
    find_one_and_update = _command("find_one_and_update")
    insert_one = _command("insert_one")
    insert_many = _command("insert_many")
    update_one = _command("update_one")
    update_many = _command("update_many")
    replace_one = _command("replace_one")
    delete_one = _command("delete_one")
    delete_many = _command("delete_many")
    bulk_write = _command("bulk_write")

    def find(self, *args: Any, **options: Any) -> "_Cursor":
        return _Cursor(self.driven.find(*args, **_passed(options)))

    def aggregate(self, *args: Any, **options: Any) -> "_Done[_Cursor]":
        return _Done(_Cursor(self.driven.aggregate(*args, **_passed(options))))


def _passed(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the driver's own session."""
    if (session := options.get("session")) is not None:
        options["session"] = session.driven
    return options


class _Done(Generic[T]):
    """A result that is there."""

    __slots__ = ("_result",)

    def __init__(self, result: T) -> None:
        self._result = result

    def __await__(self) -> Generator[None, None, T]:
        yield from ()
        return self._result


class _Cursor:
    """The documents that a command finds, read as they are asked for."""

    def __init__(self, driven: Any) -> None:
        self._driven = driven

    def sort(self, keys: Iterable[tuple[str, int]]) -> Self:
        self._driven.sort(keys)
        return self

    def to_list(self, length: int | None = None) -> _Done[list[Document]]:
        return _Done(self._driven.to_list(length))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Document:
        for document in self._driven:
            found: Document = document
            return found
        raise StopAsyncIteration


class _Session:
    """A session in a transaction."""

    def __init__(self, driven: ClientSession) -> None:
        self.driven = driven

    async def abort_transaction(self) -> None:
        self.driven.abort_transaction()


class _Lock:
    """A lock for threads. It spares them aborted transactions, no more, so nobody waits for it for ever.

    One step both takes it and notes who has it. With a lock of Python's, Ctrl-C between taking it and noting
    that would leave it taken until the process ends.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._holder: dict[str, int] = {}
        self._given_up: SimpleQueue[None] = SimpleQueue()

    async def __aenter__(self) -> None:
        me, until = threading.get_ident(), time.monotonic() + self._timeout
        try:
            while self._holder.setdefault(_HOLDER, me) != me:
                if time.monotonic() > until:
                    # Whoever has it was interrupted on the way out, or will do without it.
                    self._holder[_HOLDER] = me
                with suppress(Empty):
                    self._given_up.get(timeout=_DOUBT_SECONDS)
        except BaseException:
            self._give_up()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up()

    def _give_up(self) -> None:
        if self._holder.get(_HOLDER) == threading.get_ident():
            self._holder.pop(_HOLDER, None)
            if self._given_up.empty():
                self._given_up.put(None)
