"""Calls that their callers' threads make themselves, without the way to the loop and back; see ADR 38."""

import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pymongo.errors import InvalidOperation

from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, ThreadCall
from genesis_flow.mongo.threaded import SharedDatabase, ThreadedDatabase
from genesis_flow.mongo.waiting import LeftToLoop, make

T = TypeVar("T")

# How long nobody tries to write alone after a thread that did has met another.
_CROWDED_SECONDS = 1.0


def run(store: Area, work: Callable[[], Coroutine[Any, Any, T]], by_loop: Callable[[], T], method: Any) -> T:
    """What a call answers: made by this thread, or by the loop if it meets others or a bad day.

    One thread at a time writes alone, and one reads, so that all of them need no connection each. Of others
    the loop joins what can be joined, and makes the calls if there is more to do.
    """
    database, is_joined = store.last_opened, getattr(method, "is_joined", None)
    if database is None or store.settings.audit or store.settings.portable or not database.is_open():
        return by_loop()
    if is_joined is None:  # a class of the user's has its own
        return by_loop()
    turn = _turn(database, writes=method.changes_data)
    call = ThreadCall()
    try:
        if turn is None and not is_joined:
            return by_loop()
        with call.by(_kept(database, SharedDatabase if turn is None else ThreadedDatabase)):
            return make(work())
    except LeftToLoop as reason:
        call.left(reason)
    except InvalidOperation:
        pass  # the client is being closed: the loop opens another
    finally:
        if turn is not None:
            turn.release()
    with call.by(None):
        return by_loop()


def asked(store: Area, name: str, ask: Callable[[Database], T]) -> T | None:
    """What this thread asks of the database itself, with the patience that calls of this name have.

    None if that fails or cannot be: then the call is to be made as any other.
    """
    database = store.last_opened
    if database is None or store.settings.audit or store.settings.portable or store.methods.is_long(name):
        return None
    turn, call = _turn(database, writes=True), object()
    if turn is None:
        return None
    try:
        if not (database.is_open() and database.enter(call)):
            return None
        with store.methods.call(name, store.settings.timeout).attempt():
            return ask(database)
    except Exception:  # noqa: BLE001 - the call itself raises it, if it is still there
        return None
    finally:
        database.leave(call)
        turn.release()


def _turn(database: Database, *, writes: bool) -> "threading.Lock | None":
    """The turn of this thread, if no other has it and, of those that write, none met another lately."""
    now, turn = time.monotonic(), database.direct_turn if writes else database.read_turn
    if writes and now < database.crowded_until:
        return None
    if turn.acquire(blocking=False):
        return turn
    if writes:
        database.crowded_until = now + _CROWDED_SECONDS
    return None


def _kept(database: Database, kind: "type[ThreadedDatabase | SharedDatabase]") -> Database:
    """The database as threads use it, kept with the connection."""
    if kind not in database.kept:
        database.kept.setdefault(kind, kind(database))
    kept: Database = database.kept[kind]
    return kept
