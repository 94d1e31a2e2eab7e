"""Opened databases: one per event loop, process and server."""

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pymongo
from pymongo import ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConfigurationError, OperationFailure

from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.documents.declared import Declared
from genesis_flow.mongo.binding import Collection, Documents
from genesis_flow.mongo.clients import Client, Clients, owner
from genesis_flow.mongo.error_edge import retry_delay
from genesis_flow.mongo.following import Members
from genesis_flow.mongo.joined import JoinedUpdates
from genesis_flow.mongo.patience import in_order
from genesis_flow.mongo.reaching import reach
from genesis_flow.mongo.schema import ready_schema
from genesis_flow.mongo.scoped import ScopedUpdates
from genesis_flow.mongo.scoping import current_workspace, held, workspaces_enabled

if TYPE_CHECKING:
    from genesis_flow.embedded import EmbeddedServer

Session = AsyncClientSession
BlockingCollection = pymongo.collection.Collection[dict[str, Any]]
T = TypeVar("T")

NO_SESSIONS = "Sessions are not supported"


class Joined(Protocol):
    """Updates of many callers, sent together."""

    async def update_one(self, query: dict[str, Any], change: dict[str, Any]) -> bool:
        """Whether a document matched and is changed. The update may be sent twice."""


class Database:
    """An opened database: its client, its bound documents, what its topology can do."""

    def __init__(self, settings: Settings, clients: Clients, client: Client, documents: Documents) -> None:
        self.settings = settings
        self.clients = clients
        self.client = client
        self.documents = documents
        self.has_transactions = False
        self.embedded: EmbeddedServer | None = None
        # Held by the thread that makes its writing call without the loop; and until when none shall, by the
        # monotonic clock.
        self.direct_turn = threading.Lock()
        self.crowded_until = 0.0
        # Held by the thread that reads without the loop.
        self.read_turn = threading.Lock()
        self._blocking: dict[type[Declared], BlockingCollection] = {}
        self._joined: dict[type[Declared], JoinedUpdates] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        # What those above keep with the connection, one of each type.
        self.kept: dict[type, Any] = {}

    def is_usable(self) -> bool:
        """Whether whoever asks may use it: it is bound to the loop on which it was opened."""
        return self.is_open() and self.clients.loop is asyncio.get_running_loop()

    def is_open(self) -> bool:
        """Not if its embedded server has lost its keeper: to open it again starts another."""
        return not self.clients.closed and (self.embedded is None or self.embedded.has_keeper())

    def enter(self, call: object) -> bool:
        """Keep the connection for a call until it leaves; False if the connection is closed."""
        self.clients.calls.add(call)
        if not self.clients.closed:
            return True
        self.leave(call)
        return False

    def leave(self, call: object) -> None:
        self.clients.calls.discard(call)

    def let_go(self) -> None:
        """Hold the client no longer: its loop is gone, and the stores that hold this may stay."""
        del self.client, self.documents
        self._joined.clear()
        self.kept.clear()

    def collection(self, declared: type[Declared]) -> Collection:
        """The documents that the running call may see."""
        return self.documents.collection(declared)

    def reading(self, declared: type[Declared]) -> Collection:
        """The documents that the running call may see, for searches and histories."""
        return self.documents.reading(declared)

    def everywhere(self, declared: type[Declared]) -> Collection:
        """The documents of all workspaces: for what is done for all of them at once."""
        return self.documents.everywhere(declared)

    def blocking_collection(self, declared: type[Declared]) -> BlockingCollection:
        """For a thread that is not the loop's."""
        if declared not in self._blocking:
            name = self.everywhere(declared).name
            database = self.clients.blocking().get_database(
                self.settings.database, read_preference=ReadPreference.PRIMARY
            )
            self._blocking[declared] = database[name]
        return self._blocking[declared]

    def joined(self, declared: type[Declared]) -> Joined:
        """For updates that many callers make at once and that may be sent twice."""
        joined = self._joined_by_all(declared)
        return ScopedUpdates(joined, current_workspace()) if workspaces_enabled() else joined

    def update_from_thread(
        self, declared: type[Declared], query: dict[str, Any], change: dict[str, Any]
    ) -> bool:
        """Such an update of a thread that is not the loop's, and waits for it."""
        return self._joined_by_all(declared).update_from_thread(self.clients.loop, held(query), change)

    def _joined_by_all(self, declared: type[Declared]) -> JoinedUpdates:
        joined = self._joined.get(declared)
        if joined is None:
            made = JoinedUpdates(self.everywhere(declared), self.settings.timeout)
            joined = self._joined.setdefault(declared, made)
        return joined

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Keeps transactions of one process on one document from aborting each other."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def atomically(self, write: Callable[[Session | None], Awaitable[T]]) -> T:
        """Run ``write`` in a transaction where the topology has them, else as it is.

        Every caller orders its steps so that a crash between them loses nothing acknowledged and a
        repetition finishes them; the transaction keeps readers from seeing half.
        """
        if not self.has_transactions:
            return await write(None)
        try:
            async with self.client.start_session() as session:
                with in_order(partial(self.end_session, session.session_id)):
                    return await session.with_transaction(write)
        except ConfigurationError as error:
            # A connection made in the first moments of a member never learns that there are sessions.
            if NO_SESSIONS not in str(error):
                raise
            return await write(None)

    async def end_session(self, session_id: Mapping[str, Any]) -> None:
        """Have the server end what it does for a session: its transaction would bar the next one's way."""
        try:
            await self.client.admin.command("killSessions", [session_id])
        except OperationFailure as error:
            # Without the right to, or the command, the server does it by itself, later.
            if retry_delay(error, 0) is not None:
                raise


async def open_database(settings: Settings, user: object) -> Database:
    """The database that ``settings`` name, opened at most once per loop however many ask at once.

    It stays open as long as ``user``, or another one, is there and has not closed it.
    """
    clients = await owner.clients(settings.cache_key, user, settings.timeout)
    key = (settings.database, settings.prefix, settings.portable)
    task: asyncio.Task[Database] | None = clients.opened.get(key)
    if task is None or (task.done() and not _is_opened(task)):
        task = clients.opened[key] = asyncio.create_task(_open(settings, clients))
        # Closing waits for it, as for a call.
        clients.calls.add(task)
        task.add_done_callback(clients.calls.discard)
    return await asyncio.shield(task)


def _is_opened(task: "asyncio.Task[Database]") -> bool:
    return not task.cancelled() and task.exception() is None and task.result().is_open()


async def _open(settings: Settings, clients: Clients) -> Database:
    with pymongo.timeout(settings.open_timeout):
        server = await _embedded(settings)
        uri, options = settings.client_options(server.uri if server else None)
        options |= server.client_options() if server else {}
        client = clients.connected(uri, options, reads_elsewhere=settings.reads_elsewhere)
        handle = client.get_database(settings.database, read_preference=ReadPreference.PRIMARY)
        hello = await reach(client, settings)
        await ready_schema(settings, handle, clients.connect)
        # Azure's RU service has a set's name too, but transactions only within one collection.
        grouped = "setName" in hello or hello.get("msg") == "isdbgrid"
        follows = grouped and not settings.portable
        members = Members(client, clients.clock) if follows and clients.clock else None
        documents = Documents(handle, settings.prefix, portable=settings.portable, members=members)
        database = Database(settings, clients, client, documents)
        database.embedded = server
        database.has_transactions = grouped and not settings.portable
        return database


async def _embedded(settings: Settings) -> "EmbeddedServer | None":
    """Start or join the embedded server, and hold it for the rest of this process."""
    if not isinstance(settings.target, Embedded):
        return None
    from genesis_flow.embedded import hold  # Unix only, and only for those who want it

    return await asyncio.to_thread(hold, settings.target.directory, timeout=settings.open_timeout)


async def revive(settings: Settings) -> None:
    """Bring an embedded server back that died together with its keeper; nothing to do for others."""
    await _embedded(settings)


async def close_database(settings: Settings, user: object) -> None:
    """End the use that ``user`` makes of the connection on this loop; its next call opens it again."""
    clients = owner.find(settings.cache_key)
    if clients is not None:
        await clients.leave(user, settings.timeout)
