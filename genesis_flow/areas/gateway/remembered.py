"""What calls of endpoints remember for a second: the documents, encrypted as they are.

So a change reaches all workers within that second, and the process that made it at once.
"""

import time
import weakref
from collections.abc import Awaitable, Callable

from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import current_workspace

SECONDS = 1.0
_MOST = 1_000


class _Endpoints:
    """The endpoints of one database that were called within the last second."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], tuple[float, Document]] = {}
        # Counts the changes: what was read before one must not be remembered after it.
        self.changes = 0


_remembered: "weakref.WeakKeyDictionary[Database, _Endpoints]" = weakref.WeakKeyDictionary()


async def remembered(
    database: Database, name: str, look: Callable[[], Awaitable[Document | None]]
) -> Document | None:
    """The endpoint of that name, as it is or was within the last second."""
    endpoints = _remembered.setdefault(database, _Endpoints())
    key = (current_workspace(), name)
    known = endpoints.found.get(key)
    if known is not None and time.monotonic() - known[0] < SECONDS:
        return known[1]
    began, changes = time.monotonic(), endpoints.changes
    document = await look()
    if document is None:
        endpoints.found.pop(key, None)
    elif changes == endpoints.changes:
        if len(endpoints.found) >= _MOST:
            endpoints.found.clear()
        endpoints.found[key] = (began, document)
    return document


def forget(database: Database) -> None:
    """Have the next call of each endpoint look anew: something that it may use was changed."""
    endpoints = _remembered.get(database)
    if endpoints is not None:
        endpoints.changes += 1
        endpoints.found.clear()
