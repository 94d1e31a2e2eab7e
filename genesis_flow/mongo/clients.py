"""The owner of connections: the clients of a server on an event loop, counted by users; see ADR 15."""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

import pymongo
from pymongo import periodic_executor
from pymongo.asynchronous.mongo_client import AsyncMongoClient
from pymongo.errors import InvalidOperation

from genesis_flow.mongo import observed
from genesis_flow.mongo.following import Clock

Client = AsyncMongoClient[dict[str, Any]]
BlockingClient = pymongo.MongoClient[dict[str, Any]]

# Calls end in any thread: the closing thread looks this often whether the last one has ended.
_LOOK_SECONDS = 0.01
# The longest that a client takes to tell a server of its end: the server may be gone.
_CLOSE_SECONDS = 2.0
# Clients of loops that were closed by hand: their end would have PyMongo speak to a loop that is gone.
_buried: list[Client] = []
# Tasks of these packages may be left on a loop.
_OURS = ("pymongo.", "genesis_flow.")


class Clients:
    """The clients of one server on one loop: the loop's own and, beside it, that of direct calls.

    A store that opens a database with them is a user, until it leaves or is collected. The last user to go
    closes them, after the running calls, of which ``calls`` has an object each.
    """

    def __init__(self, owner: "Owner", key: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.key = key
        # Set before ``calls`` is looked at, which a call enters before it looks at this: so one of them sees
        # the other, whatever threads they are in.
        self.closed = False
        self.calls: set[object] = set()
        # The databases that are opened with them, by key.
        self.opened: dict[object, asyncio.Task[Any]] = {}
        self._owner = owner
        self._process = os.getpid()
        self._users: set[weakref.ref[object]] = set()
        # Of what the clients have seen, where reads may go to members that are behind.
        self.clock: Clock | None = None
        self._patience = 0.0
        self._connect: Callable[[], BlockingClient] | None = None
        self._client: Client | None = None
        self._blocking: BlockingClient | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._closing: asyncio.Task[None] | None = None
        self._until_loop_ends = self._close_with_loop()

    async def watch_loop(self) -> None:
        """``asyncio.run`` ends asynchronous generators before it closes a loop: then the clients close."""
        await anext(self._until_loop_ends)

    def join(self, user: object, patience: float) -> None:
        """Let ``user`` use them; calls get ``patience`` seconds to end if it is the last to go."""
        self._users.add(weakref.ref(user, self._collected))
        self._patience = patience

    async def leave(self, user: object, patience: float) -> None:
        """Close the clients if ``user`` was the last; calls that are running get ``patience`` seconds."""
        if (known := weakref.ref(user)) not in self._users:
            return
        self._users.discard(known)
        if not self._users:
            await asyncio.shield(self._close_soon(patience))

    def connected(self, uri: str, options: dict[str, Any], *, reads_elsewhere: bool = False) -> Client:
        """The loop's client, made with the first one's arguments: all who share it have the same."""
        if self._client is None:
            self._check()
            if reads_elsewhere:
                self.clock = Clock()
            of_threads = self._observed(options, of_commands=False)
            # Not the arguments themselves, which hold the password; nor this object, which would keep itself
            # and its sockets until the garbage collector comes.
            self._connect = lambda: pymongo.MongoClient(uri, **of_threads)
            self._client = AsyncMongoClient(uri, **self._observed(options, of_commands=True))
        return self._client

    def _observed(self, options: dict[str, Any], *, of_commands: bool) -> dict[str, Any]:
        """The options of a client, with who listens to it."""
        listeners = observed.listeners(options.get("maxPoolSize", 0), of_commands=of_commands)
        if self.clock is not None:
            listeners.append(self.clock)
        if listeners:
            options = {**options, "event_listeners": [*options.get("event_listeners", []), *listeners]}
        return options

    def connect(self) -> BlockingClient:
        """Another blocking client of the server, for the caller to close."""
        if self._connect is None:
            raise RuntimeError("A blocking client is made beside that of the loop, which is not there yet.")
        return self._connect()

    def blocking(self) -> BlockingClient:
        """The blocking client that all threads share, made when a call first asks for it."""
        with self._lock:
            if self._blocking is None:
                self._check()
                self._blocking = self.connect()
            return self._blocking

    def _check(self) -> None:
        """Raise if these clients have ended: nobody would close one that a late call makes."""
        if self._ended:
            raise InvalidOperation("Cannot use MongoClient after close")

    def _collected(self, user: "weakref.ref[object]") -> None:
        """A user that never left is gone. The garbage collector says so, in any thread and at any moment."""
        self._users.discard(user)
        # A forked child never touches the loop of its parent.
        if not self._users and os.getpid() == self._process:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._close_unless_used)

    def _close_unless_used(self) -> None:
        if not self._users and not self.closed:
            self._close_soon(self._patience)

    def _close_soon(self, patience: float) -> "asyncio.Task[None]":
        """Close in a task of its own, which nobody's cancellation and nobody's deadline ends."""
        self.closed = True
        self._closing = self.loop.create_task(self._close_after_calls(patience), context=Context())
        return self._closing

    async def _close_after_calls(self, patience: float) -> None:
        deadline = self.loop.time() + patience
        while self.calls and self.loop.time() < deadline:  # noqa: ASYNC110 - an event costs each call
            await asyncio.sleep(_LOOK_SECONDS)
        try:
            await self._close()
        finally:
            await self._until_loop_ends.aclose()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.closed = True
            try:
                await self._close()
            finally:
                self._owner.forget(self)

    async def _close(self) -> None:
        with pymongo.timeout(_CLOSE_SECONDS):
            with self._lock:
                self._ended = True
                blocking, self._blocking = self._blocking, None
            if blocking is not None:
                await asyncio.to_thread(blocking.close)
            if self._client is not None:
                await self._client.close()
                self._client = None

    def bury(self) -> None:
        """Close the sockets of a loop that was closed by hand: there is no other way to close its client."""
        self.closed = True
        for transport in list(getattr(self.loop, "_transports", {}).values()):
            if type(transport.get_protocol()).__module__.startswith(_OURS) and transport._sock is not None:
                transport._sock.close()
                transport._sock = None
        for task in asyncio.all_tasks(self.loop):
            frame = getattr(task.get_coro(), "cr_frame", None)
            if frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
                # asyncio would tell the user of its end, who has nothing to mend there.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        for opened in self.opened.values():
            if opened.done() and not opened.cancelled() and opened.exception() is None:
                opened.result().let_go()
        self.opened.clear()
        if self._client is not None:
            _buried.append(self._client)
        self._client = None
        self._owner.forget(self)


class Owner:
    """The clients of this process, by loop and server.

    By the loop itself, not its id: of a loop that is kept here no other gets the place. A forked child runs
    other loops than its parent, and so never finds what is not its own.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[asyncio.AbstractEventLoop, str], Clients] = {}
        # Those that close are kept until they are closed.
        self._all: set[Clients] = set()

    def find(self, key: str) -> Clients | None:
        clients = self._open.get((asyncio.get_running_loop(), key))
        return None if clients is None or clients.closed else clients

    async def clients(self, key: str, user: object, patience: float) -> Clients:
        """The clients of a server on the running loop, with one user more."""
        clients = self.find(key)
        if clients is None:
            self.bury_the_gone()
            clients = Clients(self, key)
            self._open[clients.loop, key] = clients
            self._all.add(clients)
            await clients.watch_loop()  # nothing else runs meanwhile
        clients.join(user, patience)
        return clients

    def has_any(self) -> bool:
        """Whether there are clients on any loop of this process."""
        return any(not each.closed for each in self._all)

    def bury_the_gone(self) -> None:
        for each in self._all.copy():
            if each.loop.is_closed():
                each.bury()

    def forget(self, clients: Clients) -> None:
        self._all.discard(clients)
        if self._open.get((clients.loop, clients.key)) is clients:
            del self._open[clients.loop, clients.key]


owner = Owner()


def _leave_threads() -> None:
    """Let a process end without waiting for the threads of PyMongo's blocking clients; see ADR 22.

    PyMongo joins them in an exit handler, which was registered before this one and so runs behind it. They
    are daemons and sleep half a second at a time; nothing is lost with them. The set is private: where it is
    not, PyMongo waits.
    """
    executors = getattr(periodic_executor, "_EXECUTORS", None)
    if isinstance(executors, set):
        executors.clear()


atexit.register(owner.bury_the_gone)
atexit.register(_leave_threads)
