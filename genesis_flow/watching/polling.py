"""Events by looking every second, for servers that stream no changes."""

import asyncio
import time
from array import array
from collections import deque
from dataclasses import dataclass, field

from genesis_flow.areas.metrics.places import waiting_points
from genesis_flow.areas.metrics.points import Point as Stored
from genesis_flow.areas.metrics.points import distinct, unpack
from genesis_flow.core import options
from genesis_flow.documents.keys import is_open
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.watching import heads
from genesis_flow.watching.events import (
    Event,
    MetricLogged,
    Point,
    RunCreated,
    RunDeleted,
    RunFound,
    changed,
    flat,
    whole,
)
from genesis_flow.watching.heads import is_head, mark, marks_of
from genesis_flow.watching.state import AT_ONCE, State, patiently
from genesis_flow.watching.waiting import is_place

# Looking takes at most this share of the time, however much there is to look at.
_SHARE = 0.2


@dataclass(slots=True)
class _Seen:
    """What was seen of a metric."""

    packed: int = 0
    settled: set[str] = field(default_factory=set)
    opened: dict[str, "array[int]"] = field(default_factory=dict)
    """The marks of the points of its open blocks, which may settle."""
    ahead: set[int] = field(default_factory=set)
    """The marks of the points of its tail, and of those that waited in a place."""


@dataclass(slots=True)
class _Run:
    document: Document
    metrics: dict[str, _Seen] = field(default_factory=dict)


class Polled:
    def __init__(self, database: Database, state: State, *, tells_state: bool) -> None:
        self._database = database
        self._state = state
        self._interval = float(options.value("watch_interval"))
        self._runs: dict[str, _Run] = {}
        self._ready: deque[Event] = deque()
        self._is_telling = tells_state
        self._is_first = True
        # Of the look that is under way: runs that are to be looked at.
        self._left: deque[str] = deque()
        self._begun = 0.0
        self._next_look = 0.0

    async def begin(self) -> None:
        """See what there is, if only changes are told."""
        while self._is_first and not self._is_telling:
            await self.work()

    def token(self) -> None:
        return None

    async def close(self) -> None:
        """Nothing is open between two looks."""

    @property
    def has_told_all(self) -> bool:
        return not (self._is_first or self._left or self._ready)

    def take(self) -> Event | None:
        return self._ready.popleft() if self._ready else None

    async def work(self) -> None:
        """Look at some runs, once it is time."""
        if not self._left:
            await asyncio.sleep(self._next_look - time.monotonic())
            begun = time.monotonic()
            run_ids = await patiently(self._database, self._state.run_ids)
            self._begun = begun
            self._left.extend(run_ids)
            self._forget(self._runs.keys() - set(run_ids))
        portion = [self._left[index] for index in range(min(AT_ONCE, len(self._left)))]
        if portion:
            events = await self._look_at(portion)
            for _ in portion:
                self._left.popleft()
            if self._is_telling:
                self._ready.extend(events)
        if not self._left:
            self._is_first, self._is_telling = False, True
            took = time.monotonic() - self._begun
            self._next_look = self._begun + max(self._interval, took / _SHARE)

    def _forget(self, gone: set[str]) -> None:
        for run_id in gone:
            del self._runs[run_id]
            self._ready.append(RunDeleted(run_id, _token=self.token))

    async def _look_at(self, run_ids: list[str]) -> list[Event]:
        # Places before heads, which are before blocks, in each of which open ones are before settled ones: a
        # point on its way from one to the other is then seen, maybe twice.
        documents = await patiently(self._database, lambda: self._state.heads(run_ids))
        found = [document for document in documents if is_head(document)]
        places: dict[str, list[Document]] = {}
        for document in filter(is_place, documents):
            places.setdefault(document["run_uuid"], []).append(document)
        runs = await patiently(self._database, lambda: self._state.runs(run_ids))
        blocks: dict[str, list[Document]] = {}
        for head in found:
            known = self._runs.get(head["run_uuid"])
            seen = known.metrics.get(head["key"]) if known else None
            if head["packed"] > (seen.packed if seen else 0):
                blocks[head["_id"]] = await self._blocks_of(head)
        # From here on nothing waits: what is seen is told.
        events: list[Event] = []
        for run in runs:
            events += self._of_run(run)
        for head in found:
            if head["run_uuid"] in self._runs:
                waiting = [
                    point
                    for place in places.get(head["run_uuid"], ())
                    for point in waiting_points(place, head["key"])
                ]
                events += self._of_head(head, blocks.get(head["_id"]), waiting)
        return events

    async def _blocks_of(self, head: Document) -> list[Document]:
        run_id, key = head["run_uuid"], head["key"]
        return await patiently(self._database, lambda: self._state.blocks(run_id, key))

    def _of_run(self, run: Document) -> list[Event]:
        now, known = flat(run), self._runs.get(run["_id"])
        if known is None:
            self._runs[run["_id"]] = _Run(now)
            return [whole(RunFound if self._is_first else RunCreated, run, self.token)]
        old, known.document = known.document, now
        fresh = {path: value for path, value in now.items() if path not in old or old[path] != value}
        event = changed(run["_id"], fresh, [path for path in old if path not in now], self.token)
        return [event] if event is not None else []

    def _of_head(self, head: Document, blocks: list[Document] | None, waiting: list[Stored]) -> list[Event]:
        """``blocks``: None if there are no others than before."""
        seen = self._runs[head["run_uuid"]].metrics.setdefault(head["key"], _Seen())
        ahead = [*heads.of_tail(head["tail"]), *waiting]
        new: list[Stored] = [*ahead]
        opened: dict[str, array[int]] = {}
        for block in blocks or ():
            if block["_id"] in seen.settled:
                continue
            points = unpack(block)
            new += points
            if is_open(block["_id"]):
                opened[block["_id"]] = marks_of(points)
            else:
                seen.settled.add(block["_id"])
        told = seen.ahead.union(*seen.opened.values())
        new = [point for point in new if mark(point) not in told]
        seen.packed, seen.ahead = head["packed"], set(map(mark, ahead))
        if blocks is not None:
            seen.opened = opened
        if not new:
            return []
        logged = tuple(Point(*point) for point in distinct(new))
        return [MetricLogged(head["run_uuid"], head["key"], logged, _token=self.token)]
