"""Updates of callers that wait at the same time, joined into one command.

A caller that is alone sends its update at once. Several send one command together as soon as all of them are
there who were there lately: with many threads a command, and the wait for its acknowledgement, serves them
all, and each is told of its own result. A caller that stays away holds the others up once, for a millisecond.

MongoDB tells how many updates of a command matched, not which. So if not all did, or one failed, each is sent
again alone. So only updates that are conditional or may be repeated are joined.
"""

import asyncio
import concurrent.futures
import time
from collections import deque
from collections.abc import Iterable
from contextvars import Context
from dataclasses import dataclass

from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError

from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.patience import attempt_ends, for_seconds

# How long the first of those who wait does so for the others.
_PATIENCE_SECONDS = 0.001
# Commands under way for callers that come while others are: a far server is kept busy all the same.
_UNDER_WAY = 4
_TOGETHER = 500
# How much longer than its command a thread waits for what comes of it.
_GRACE_SECONDS = 1.0


@dataclass(slots=True)
class _Waiting:
    query: Document
    change: Document
    deadline: float
    matched: "asyncio.Future[bool] | concurrent.futures.Future[bool]"

    async def send_alone(self, collection: Collection) -> None:
        try:
            result = await collection.update_one(self.query, self.change)
        except PyMongoError as error:
            self.fail(error)
        else:
            self.succeed(result.matched_count > 0)

    def succeed(self, matched: bool) -> None:
        if not self.matched.done():  # its caller may have given up
            self.matched.set_result(matched)

    def fail(self, error: BaseException) -> None:
        if not self.matched.done():
            self.matched.set_exception(error)


class JoinedUpdates:
    """The updates of one collection on one loop."""

    def __init__(self, collection: Collection, timeout: float) -> None:
        self._collection = collection
        self._timeout = timeout
        self._callers = 0
        # As many as were there at once, lately.
        self._expected = 1
        self._under_way = 0
        self._waiting: list[_Waiting] = []
        # What threads have handed over, and whether the loop knows that there is something.
        self._handed_over: deque[tuple[_Waiting, concurrent.futures.Future[bool]]] = deque()
        self._is_told = False
        self._impatient: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def update_one(self, query: Document, change: Document) -> bool:
        """Whether a document matched and is changed. The update may be sent twice."""
        self._callers += 1
        self._expected = max(self._expected, self._callers)
        try:
            if self._expected == 1:
                return await self._send_alone(query, change)
            matched: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            deadline = min(time.monotonic() + self._timeout, attempt_ends())
            self._waiting.append(_Waiting(query, change, deadline, matched))
            self._send_if_all_wait()
            return await matched
        finally:
            self._callers -= 1

    def update_from_thread(self, loop: asyncio.AbstractEventLoop, query: Document, change: Document) -> bool:
        """Whether a document matched, for a thread that waits beside the loop: it costs the loop no task."""
        matched: concurrent.futures.Future[bool] = concurrent.futures.Future()
        deadline = min(time.monotonic() + self._timeout, attempt_ends())
        self._handed_over.append((_Waiting(query, change, deadline, matched), matched))
        if not self._is_told:
            self._is_told = True
            loop.call_soon_threadsafe(self._take_over)
        try:
            return matched.result(max(deadline - time.monotonic(), 0.0) + _GRACE_SECONDS)
        except TimeoutError:
            matched.cancel()  # the loop must not send later what the caller makes in another way now
            self._is_told = False  # a KeyboardInterrupt may have come before the loop was told
            raise

    def _take_over(self) -> None:
        self._is_told = False  # first, so that whoever comes from now on tells the loop again
        while self._handed_over:
            waiting, matched = self._handed_over.popleft()
            if not matched.set_running_or_notify_cancel():
                continue
            self._callers += 1
            matched.add_done_callback(self._leave)
            self._waiting.append(waiting)
        self._expected = max(self._expected, self._callers)
        self._send_if_all_wait()

    def _leave(self, _matched: object) -> None:
        self._callers -= 1

    async def _send_alone(self, query: Document, change: Document) -> bool:
        self._under_way += 1
        try:
            return (await self._collection.update_one(query, change)).matched_count > 0
        finally:
            self._under_way -= 1
            self._send_if_all_wait()

    def _send_if_all_wait(self) -> None:
        if not self._waiting:
            return
        if not self._under_way and len(self._waiting) >= self._expected:
            self._send_waiting()
        elif self._impatient is None:
            loop = asyncio.get_running_loop()
            self._impatient = loop.call_later(_PATIENCE_SECONDS, self._send_those_who_wait)

    def _send_those_who_wait(self) -> None:
        self._impatient = None
        self._expected = max(1, self._callers)
        if self._under_way < _UNDER_WAY:
            self._send_waiting()

    def _send_waiting(self) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None
        together, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
        if together:
            self._under_way += 1
            # In a context of its own: the deadline of whoever happens to send it is not that of the others.
            task = asyncio.get_running_loop().create_task(self._send(together), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, together: list[_Waiting]) -> None:
        try:
            # An expired deadline is the driver's to report.
            left = min(each.deadline for each in together) - time.monotonic()
            with for_seconds(max(left, 0.001)):
                if not await self._all_matched(together):
                    await asyncio.gather(*(each.send_alone(self._collection) for each in together))
        except PyMongoError as error:
            _fail(together, error)
        except BaseException as error:
            _fail(together, error)
            raise
        finally:
            self._under_way -= 1
            self._send_if_all_wait()

    async def _all_matched(self, together: list[_Waiting]) -> bool:
        updates = [UpdateOne(each.query, each.change) for each in together]
        try:
            result = await self._collection.bulk_write(updates, ordered=False)
        except BulkWriteError:
            return False
        if result.matched_count < len(updates):
            return False
        for waiting in together:
            waiting.succeed(matched=True)
        return True


def _fail(together: Iterable[_Waiting], error: BaseException) -> None:
    for waiting in together:
        waiting.fail(error)
