"""What a call usually is, sent by its caller's thread without the loop; see ADR 22."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.direct import OneUpdate
from genesis_flow.mongo.operation import Area

T = TypeVar("T")

# How long nobody tries to write after a thread that did has met another.
_CROWDED_SECONDS = 1.0


def is_sent(store: Area, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this thread has sent what a call writes, and all of it is written.

    If not, the call is to be made as any other: it meets what was met here again, and knows what to do and
    say. Of threads that come at once the loop sends the updates, joined into one command.
    """
    command_of = getattr(getattr(store, name), "command_of", None)
    database = store.last_opened
    if command_of is None or database is None or store.settings.audit:
        return False
    if _takes_turn(database):
        send = _sender(store, command_of, args, kwargs)
        return bool(_attempt(store, name, send, database, database.direct_turn))
    if not command_of.is_shared:
        return False

    def share(database: Database) -> bool:
        command = command_of(store, args, kwargs)
        return isinstance(command, OneUpdate) and command.share(database)

    return bool(_attempt(store, name, share, database, None))


def found(store: Area, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a call answers if this thread finds it by the one aggregation of the call, or None.

    One thread at a time: the others' reads go by the loop, and need no connections of their own.
    """
    command_of = getattr(getattr(store, name), "command_of", None)
    database = store.last_opened
    if command_of is None or database is None or not database.read_turn.acquire(blocking=False):
        return None
    return _attempt(store, name, _sender(store, command_of, args, kwargs), database, database.read_turn)


def asked(store: Area, name: str, ask: Callable[[Database], T]) -> T | None:
    """What this thread asks of the database itself, with the patience that calls of this name have.

    None if that fails or cannot be: then the call is to be made as any other.
    """
    database = store.last_opened
    if database is None or store.settings.audit:
        return None
    if not _takes_turn(database):
        return None
    return _attempt(store, name, ask, database, database.direct_turn)


def _takes_turn(database: Database) -> bool:
    """Whether this thread met no other, lately; then the turn is its own."""
    now = time.monotonic()
    if now < database.crowded_until:
        return False
    if database.direct_turn.acquire(blocking=False):
        return True
    database.crowded_until = now + _CROWDED_SECONDS
    return False


def _sender(
    store: Area, command_of: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[Database], Any]:
    """Sends the command of a call, if there is one for these arguments."""

    def send(database: Database) -> Any:
        command = command_of(store, args, kwargs)
        return command.send(database) if command else None

    return send


def _attempt(
    store: Area, name: str, ask: Callable[[Database], T], database: Database, turn: "threading.Lock | None"
) -> T | None:
    """What one attempt comes to, or None; the turn, if it needs one, is given back."""
    call = object()
    try:
        if store.settings.portable or store.methods.is_long(name):
            return None
        if not (database.is_open() and database.enter(call)):
            return None
        with store.methods.call(name, store.settings.timeout).attempt():
            return ask(database)
    except Exception:  # noqa: BLE001 - the call itself raises it, if it is still there
        return None
    finally:
        database.leave(call)
        if turn is not None:
            turn.release()
