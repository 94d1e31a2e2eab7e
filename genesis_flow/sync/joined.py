"""Updates of threads that wait at the same time, joined into one command.

The twin of ``database.joined`` for calls that run in their callers' threads: a thread that is alone sends its
update at once. Several send one command as soon as all of them are there who were there lately, and the last
to come sends it. Who stays away holds the others up for a moment; then the first of them sends what there is.

If not all updates of a command matched, or it failed, each thread sends its own again: whoever joins must not
mind that, which conditional and repeatable updates do not.
"""

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

import pymongo
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

Document = dict[str, Any]

# How long the first of those who wait does so for the others, and more for each that is expected: only one
# thread at a time runs Python code.
_PATIENCE_SECONDS = 0.001
_PATIENCE_SECONDS_EACH = 0.0001
# How long the others wait until they look whether the first has been interrupted.
_DOUBT_SECONDS = 0.05
# Commands under way for threads that come while others are: a far server is kept busy all the same.
_UNDER_WAY = 4
_TOGETHER = 500


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
        self.matched = False


class JoinedThreads:
    """The updates of one collection in one process."""

    def __init__(self, collection: "Collection[Document]", timeout: float) -> None:
        self._collection = collection
        self._timeout = timeout
        self._lock = threading.Lock()
        self._callers = 0
        # As many as were there at once, lately.
        self._expected = 1
        self._under_way = 0
        self._waiting: list[_Waiting] = []

    async def update_one(self, query: Document, change: Document) -> bool:
        """Whether a document matched and is changed. The update may be sent twice."""
        with self._lock:
            self._callers += 1
            self._expected = max(self._expected, self._callers)
            alone = self._expected == 1
            self._under_way += int(alone)
        try:
            if alone:
                try:
                    return self._send_alone(query, change)
                finally:
                    self._one_less_under_way()
            return self._join(_Waiting(query, change, time.monotonic() + self._timeout))
        finally:
            with self._lock:
                self._callers -= 1

    def _send_alone(self, query: Document, change: Document) -> bool:
        return self._collection.update_one(query, change).matched_count > 0

    def _join(self, own: _Waiting) -> bool:
        with self._lock:
            self._waiting.append(own)
            together = self._take() if self._all_wait() else []
        try:
            while not own.done:
                if together:
                    self._send(together)
                    together = []
                else:
                    together = self._wait(own)
        except BaseException:
            with self._lock:
                if not own.taken:
                    self._waiting.remove(own)
            raise
        return own.matched or self._send_alone(own.query, own.change)

    def _wait(self, own: _Waiting) -> list[_Waiting]:
        """Wait until the own update is done, or for the turn to send: then what is to be sent."""
        patience = _DOUBT_SECONDS
        if own in self._waiting[:1]:
            patience = _PATIENCE_SECONDS + _PATIENCE_SECONDS_EACH * self._expected
        try:
            own.woken.get(timeout=patience)
            impatient = False
        except Empty:
            impatient = True
        with self._lock:
            if own.taken:
                # Whoever took it ends in time, unless it was interrupted before it could begin.
                own.done = own.done or time.monotonic() > own.deadline
                return []
            if impatient:
                self._expected = max(1, self._callers)
                if self._under_way >= _UNDER_WAY:
                    return []
            return self._take()

    def _take(self) -> list[_Waiting]:
        together, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
        for each in together:
            each.taken = True
        self._under_way += 1
        return together

    def _all_wait(self) -> bool:
        return bool(self._waiting) and not self._under_way and len(self._waiting) >= self._expected

    def _one_less_under_way(self) -> None:
        with self._lock:
            self._under_way -= 1
            if self._all_wait():
                self._waiting[0].woken.put(None)

    def _send(self, together: list[_Waiting]) -> None:
        matched = False
        try:
            # The oldest has the least time left. An expired deadline is the driver's to report.
            left = min(each.deadline for each in together) - time.monotonic()
            with pymongo.timeout(max(left, 0.001)):
                matched = self._all_matched(together)
        finally:
            self._one_less_under_way()
            for each in together:
                each.matched = matched
                each.done = True
                each.woken.put(None)

    def _all_matched(self, together: list[_Waiting]) -> bool:
        updates = [UpdateOne(each.query, each.change) for each in together]
        try:
            return self._collection.bulk_write(updates, ordered=False).matched_count == len(updates)
        except BulkWriteError:
            return False
