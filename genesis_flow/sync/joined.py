"""Updates of threads that wait at the same time, joined into one command.

For calls that run in their callers' threads. A thread sends its update at once unless some commands are under
way already; whoever comes then waits, and when one of those is done, the first of those who wait sends one
command for all of them. (On a loop it pays to wait for more, see ``database.joined``: there a command costs
the one thread that does everything.)

If not all updates of a command matched, or it failed, each thread sends its own again: whoever joins must not
mind that, which conditional and repeatable updates do not.
"""

import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from genesis_flow.mongo.patience import attempt_ends, for_seconds

Document = dict[str, Any]

# With so many commands under way even a far server is kept busy.
_UNDER_WAY = 4
_TOGETHER = 500
# How long a thread waits until it looks whether the one that was to send has been interrupted.
_DOUBT_SECONDS = 0.05


class _Waiting:
    __slots__ = ("change", "deadline", "done", "matched", "query", "taken", "woken")

    def __init__(self, query: Document, change: Document, deadline: float) -> None:
        self.query = query
        self.change = change
        self.deadline = deadline
        # Put into when it is done, or when this thread shall send.
        self.woken: SimpleQueue[None] = SimpleQueue()
        self.taken = False
        self.done = False
        # Not known if it was one of several that did not all match.
        self.matched: bool | None = None


class JoinedThreads:
    """The updates of one collection in one process."""

    def __init__(self, collection: "Collection[Document]", timeout: float) -> None:
        self._collection = collection
        self._timeout = timeout
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._waiting: list[_Waiting] = []

    async def update_one(self, query: Document, change: Document) -> bool:
        """Whether a document matched and is changed. The update may be sent twice."""
        own = _Waiting(query, change, min(time.monotonic() + self._timeout, attempt_ends()))
        with self._lock:
            self._waiting.append(own)
            together = self._take()
        try:
            while not own.done:
                if together:
                    self._send(together)
                together = [] if own.done else self._wait(own)
        except BaseException:
            with self._lock:
                if not own.taken:
                    self._leave(own)
            raise
        return self._send_alone(own) if own.matched is None else own.matched

    def _wait(self, own: _Waiting) -> list[_Waiting]:
        """Wait until the own update is done, or for the turn to send: then what is to be sent."""
        with suppress(Empty):
            own.woken.get(timeout=_DOUBT_SECONDS)
        with self._lock:
            if time.monotonic() <= own.deadline:
                return [] if own.taken else self._take()
            # Whoever took it ends in time, unless it was interrupted before it could begin.
            own.done = True
            if not own.taken:
                self._leave(own)
            return []

    def _leave(self, own: _Waiting) -> None:
        self._waiting.remove(own)
        own.taken = True

    def _take(self) -> list[_Waiting]:
        """Those who wait, if a command more may be under way."""
        if len(self._under_way) >= _UNDER_WAY:
            return []
        together, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
        for each in together:
            each.taken = True
        return together

    def _send(self, together: list[_Waiting]) -> None:
        thread, matched = threading.get_ident(), None
        try:
            with self._lock:
                self._under_way.add(thread)
            # An expired deadline is the driver's to report.
            left = min(each.deadline for each in together) - time.monotonic()
            with for_seconds(max(left, 0.001)):
                matched = self._all_matched(together)
        finally:
            with self._lock:
                self._under_way.discard(thread)
                if self._waiting:
                    self._waiting[0].woken.put(None)
            for each in together:
                each.matched = matched
                each.done = True
                each.woken.put(None)

    def _all_matched(self, together: list[_Waiting]) -> bool | None:
        """Whether a document matched each update; None if that is not known of each."""
        if len(together) == 1:
            return self._send_alone(together[0])
        updates = [UpdateOne(each.query, each.change) for each in together]
        try:
            result = self._collection.bulk_write(updates, ordered=False)
        except BulkWriteError:
            return None
        return True if result.matched_count == len(updates) else None

    def _send_alone(self, one: _Waiting) -> bool:
        return self._collection.update_one(one.query, one.change).matched_count > 0
