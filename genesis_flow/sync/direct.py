"""The one update that a call usually is, sent by its caller's thread without the loop; see ADR 22."""

import time
from typing import Any

from genesis_flow.mongo.operation import Area

# How long nobody tries after a thread has met another.
_CROWDED_SECONDS = 1.0


def is_sent(store: Area, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this thread has sent the update of a call, and a document matched.

    If not, the call is to be made as any other: it meets what was met here again, and knows what to do and
    say. Threads that come at once leave it to the loop, which joins their updates into one command.
    """
    update_of = getattr(getattr(store, name), "update_of", None)
    database, settings = store.last_opened, store.settings
    if update_of is None or database is None or settings.portable or settings.audit:
        return False
    now = time.monotonic()
    if now < database.crowded_until or store.methods.is_long(name):
        return False
    if not database.direct_turn.acquire(blocking=False):
        database.crowded_until = now + _CROWDED_SECONDS
        return False
    call = object()
    try:
        if not (database.is_open() and database.enter(call)):
            return False
        update = update_of(store, args, kwargs)
        if update is None:
            return False
        collection = database.blocking_collection(update.declared)
        with store.methods.call(name, settings.timeout).attempt():
            return bool(collection.update_one(update.query, update.change).matched_count)
    except Exception:  # noqa: BLE001 - the call itself raises it, if it is still there
        return False
    finally:
        database.leave(call)
        database.direct_turn.release()
