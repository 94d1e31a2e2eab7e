"""What calls of endpoints remember for a second: endpoints, encrypted as they are, and budgets.

So a change reaches all workers within that second, and the process that made it at once.
"""

import time
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from genesis_flow.mongo.connection import Database

T = TypeVar("T")

SECONDS = 1.0
_MOST = 1_000


class _Looked:
    """What was found in one database within the last second."""

    def __init__(self) -> None:
        self.found: dict[Hashable, tuple[float, Any]] = {}
        # Counts the changes: what was read before one must not be remembered after it.
        self.changes = 0


_remembered: "weakref.WeakKeyDictionary[Database, _Looked]" = weakref.WeakKeyDictionary()


async def remembered(database: Database, key: Hashable, look: Callable[[], Awaitable[T]]) -> T:
    """What ``look`` finds under that key, as it is or was within the last second. None is not remembered."""
    known: T | None = at_hand(database, key)
    if known is not None:
        return known
    looked = _remembered.setdefault(database, _Looked())
    began, changes = time.monotonic(), looked.changes
    found = await look()
    if found is None:
        looked.found.pop(key, None)
    elif changes == looked.changes:
        if len(looked.found) >= _MOST:
            looked.found.clear()
        looked.found[key] = (began, found)
    return found


def at_hand(database: Database, key: Hashable) -> Any:
    """What is remembered under that key, or None. For any thread, which then need not wait for the loop."""
    looked = _remembered.get(database)
    known = None if looked is None else looked.found.get(key)
    return None if known is None or time.monotonic() - known[0] >= SECONDS else known[1]


def forget(database: Database) -> None:
    """Have the next call look anew: something that it may use was changed."""
    looked = _remembered.get(database)
    if looked is not None:
        looked.changes += 1
        looked.found.clear()
