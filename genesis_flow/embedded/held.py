"""What a process holds of the servers that it uses, and how it notices that one of them is gone."""

import logging
import os
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo.monitoring import (
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)

from genesis_flow.embedded.binary import find_mongod
from genesis_flow.embedded.errors import EmbeddedUnavailable
from genesis_flow.embedded.files import explained
from genesis_flow.embedded.layout import Layout
from genesis_flow.embedded.locks import is_locked_by_other
from genesis_flow.embedded.starting import ensure_usable

_logger = logging.getLogger(__name__)

_RESTART_SECONDS = 30.0
# An idle client looks for a lost server every ten seconds, one with a waiting call twice a second.
_LOOKS_OF_A_WAITING_CALL = 3
_WITHIN_SECONDS = 5.0


class EmbeddedServer:
    """A running server that this process, and every child it forks, holds in use."""

    def __init__(self, layout: Layout, users_lock: int) -> None:
        self.directory = layout.directory
        self.uri = layout.uri
        self.layout = layout
        self._users_lock: int | None = users_lock
        status = os.fstat(users_lock)
        self._place = (status.st_dev, status.st_ino)
        self._keeper_lock = os.open(layout.keeper_lock, os.O_RDWR)
        # Not by release(): another thread may be about to look at it.
        weakref.finalize(self, os.close, self._keeper_lock)

    def has_keeper(self) -> bool:
        """Whether somebody looks after it; if not, whoever needs it has to acquire it again.

        Every call of a store asks, so it is one system call. It is answered with no by a server whose
        directory was removed, too.
        """
        return is_locked_by_other(self._keeper_lock)

    def is_same_place(self, other: "EmbeddedServer") -> bool:
        """Whether both mean the same directory, and not one that was made in the place of another."""
        return self._place == other._place

    def is_in_place(self) -> bool:
        try:
            status = self.layout.users_lock.stat()
        except OSError:
            return False
        return self._place == (status.st_dev, status.st_ino)

    def client_options(self) -> dict[str, Any]:
        """For the stores' clients, whose calls are repeated by the store.

        A repetition by the driver would come before anybody has looked after the server.
        """
        return {"event_listeners": [_Waker(self.directory)], "retryWrites": False, "retryReads": False}

    def release(self) -> None:
        """Give up the use; the server stops some seconds after its last user did."""
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Waker(ServerHeartbeatListener):
    """Has a server started again for calls that wait for it in the driver, where they cannot do it.

    Else they would wait to their deadline if nobody else makes a call. An idle process starts nothing: the
    server may have been stopped on purpose.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._looks: list[float] = []
        self._thread: threading.Thread | None = None
        self._told = ""

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        pass  # only failures count

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        pass  # only failures count

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        now = time.monotonic()
        self._looks = [*(look for look in self._looks if now - look < _WITHIN_SECONDS), now]
        server = _held.get(self._directory)
        if len(self._looks) < _LOOKS_OF_A_WAITING_CALL or server is None or server.has_keeper():
            return
        # Not one in the place of a directory that was removed: it lacks the schema that the call relies on.
        if not server.is_in_place() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(
            target=self._start, args=[server.layout], name="genesis-flow-waker", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending, and with it the call
            self._thread = None

    def _start(self, layout: Layout) -> None:
        try:
            with explained(layout):
                ensure_usable(layout, find_mongod(), time.monotonic() + _RESTART_SECONDS)
        except EmbeddedUnavailable as error:
            if str(error) != self._told:  # it is tried again while the call waits
                self._told = str(error)
                _logger.warning("%s", error)


# Until the process ends: stores come and go, and each would else find its server stopped.
_held: dict[Path, EmbeddedServer] = {}


def keep(server: EmbeddedServer) -> EmbeddedServer:
    """Hold ``server`` for the rest of this process; the one to use, which may be held already."""
    held = _held.setdefault(server.directory, server)
    if held is server:
        return server
    if held.is_same_place(server):
        server.release()
        return held
    _logger.warning(
        "The directory %s was removed or moved away while it was in use. What is there now is another "
        "MongoDB, and what was logged to the one before is not in it.",
        server.directory,
    )
    _held[server.directory] = server
    held.release()
    return server
