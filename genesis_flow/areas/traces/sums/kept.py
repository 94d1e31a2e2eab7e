"""Answers to questions about many traces from sums by day that readers keep for each other; see ADR 13.

An answer takes two steps: the sums are read; then the server says which days have changed since and sums up,
beside it, what the sums do not cover. Who has to ask the server for many traces keeps the sums afterwards.

Why the sums are right: a head vouches for the sums of the days that it names, and for there being no traces
on others, as of the moment ``made``. That is the time at which its maker began, by the clock of the servers;
everything that was written before was there when it read. Whatever changes later says so, in the same command
(``touched``) or beforehand (``left``): what says so from ``MARGIN_SECONDS`` before ``made`` on may be later.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pymongo
from bson.timestamp import Timestamp
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation
from pymongo import ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern

from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.sums import departures
from genesis_flow.areas.traces.sums.documents import (
    DAY,
    HOUR,
    KEEPABLE,
    TraceSumsFields,
    day_key,
    head_key,
    note_for_all,
    notes_of,
    number_in,
)
from genesis_flow.areas.traces.sums.merging import (
    Kept,
    Range,
    Tallies,
    has_values,
    kept_from,
    packed,
    regrouped,
    tallied,
    tallied_values,
    tally_pipeline,
    unpacked,
)
from genesis_flow.areas.traces.sums.metrics import Grouping, histogram_pipeline
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.search.scan import all_of

_logger = logging.getLogger(__name__)

# An answer for which fewer traces were read is quick enough.
WORTH_KEEPING = 10_000
# Traces of the last hour are still changing; sums of them would be outdated at once. They would not be wrong.
SETTLED_SECONDS = 3_600
# What has been touched since sums were made is read for every answer, so they are confirmed this often.
REFRESH_SECONDS = 3_600
# How often a process looks again whether there are sums, or makes some.
RETRY_SECONDS = 60
# To look at so many changes takes longer than to ask the traces.
MOST_CHANGES = 1_000
# How much of a call may go into keeping sums; the next call goes on.
_KEEPING_SECONDS = 10.0


class _Waits:
    """Until when not to try again what was in vain, by what it is: to read some sums, or to make them."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def is_over(self, what: str) -> bool:
        return time.monotonic() >= self._until.get(what, 0)

    def state(self, what: str) -> float | None:
        """For ``begin``, which only counts if nothing has happened since."""
        return self._until.get(what)

    def begin(self, what: str, since: float | None) -> None:
        if self._until.get(what) == since:
            self._until[what] = time.monotonic() + RETRY_SECONDS

    def end(self, what: str) -> None:
        self._until[what] = time.monotonic()


_waits: "weakref.WeakKeyDictionary[Database, _Waits]" = weakref.WeakKeyDictionary()


def _waits_of(database: Database) -> _Waits:
    return _waits.setdefault(database, _Waits())


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the traces of one experiment."""

    name: str
    grouping: Grouping
    experiment_id: int
    start: int | None
    end: int | None
    aggregations: Sequence[MetricAggregation]

    @property
    def with_values(self) -> bool:
        return any(each.aggregation_type == AggregationType.PERCENTILE for each in self.aggregations)

    @property
    def head(self) -> str:
        return head_key(current_workspace(), self.experiment_id, self.name)

    def of_experiment(self, *conditions: Document) -> Document:
        return scoped(all_of({"experiment_id": self.experiment_id}, *conditions))


async def answer(database: Database, question: Question) -> Tallies:
    """What is asked for, by group, from sums as far as there are any."""
    kept = await _kept(database, question)
    tallies, asked = await _answer_with(database, question, kept)
    is_old = kept is not None and kept.made.time < time.time() - REFRESH_SECONDS
    waits, making = _waits_of(database), f"{question.head} made"
    if (asked >= WORTH_KEEPING or is_old) and waits.is_over(making):
        # Before it is tried: one of those who ask at once is enough.
        waits.begin(making, waits.state(making))
        await _keep_if_possible(database, question)
    return tallies


def can_be_asked(question: Question) -> bool:
    """Whether the range is one that BSON can hold; other questions are not for sums."""
    bounds = [each for each in (question.start, question.end) if each is not None]
    return all(isinstance(each, int) and each in INT64 for each in bounds)


async def _answer_with(database: Database, question: Question, kept: Kept | None) -> tuple[Tallies, int]:
    """The answer, and the number of traces that were read for it."""
    if kept is None:
        return await _answer_without(database, question)
    tallies: Tallies = {}
    while True:
        whole, ranges = kept.split(question.start, question.end, with_values=question.with_values)
        changed, counts = await asyncio.gather(
            _changed_days(database.collection(TraceFields), question, kept, limit=MOST_CHANGES),
            asyncio.gather(*(_ask_traces(database, question, each, tallies) for each in ranges)),
        )
        if changed is None:
            return await _answer_without(database, question)
        if changed <= kept.stale:
            break
        kept.stale |= changed
        tallies.clear()
    for day in whole:
        rows = regrouped(day, kept.rows[day], question.grouping)
        unpacked(rows, tallies, with_values=question.with_values)
    return tallies, sum(counts)


async def _answer_without(database: Database, question: Question) -> tuple[Tallies, int]:
    tallies: Tallies = {}
    return tallies, await _ask_traces(database, question, (question.start, question.end), tallies)


async def _ask_traces(database: Database, question: Question, asked: Range, into: Tallies) -> int:
    grouping = question.grouping
    match = grouping.condition(question.of_experiment(_between(*asked)))
    if question.with_values:
        pipeline = histogram_pipeline(grouping, match)
    else:
        pipeline = tally_pipeline(grouping, match, question.aggregations)
    cursor = await database.collection(TraceFields).aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
    add, found = tallied_values if question.with_values else tallied, 0
    while some := await cursor.to_list(BATCH):
        found += add(some, grouping, into)
    return found


def _between(start: int | None, end: int | None) -> Document:
    bounds = {}
    if start is not None:
        bounds["$gte"] = start
    if end is not None:
        bounds["$lte"] = end
    return {"request_time": bounds} if bounds else {}


async def _kept(database: Database, question: Question) -> Kept | None:
    """What readers have kept of this, if anything."""
    waits = _waits_of(database)
    if not waits.is_over(question.head):
        return None
    # Others may ask at the same time, so not before it is known that there are none; and one of these may
    # have made some by then.
    state = waits.state(question.head)
    first = None if question.start is None else question.start // DAY
    last = None if question.end is None else question.end // DAY
    projection = None if question.with_values else {"rows.values": 0}
    sums = database.collection(TraceSumsFields)
    kept = await _read_sums(sums, question, _days_between(question, first, last), projection)
    if kept is None:
        waits.begin(question.head, state)
    return kept


def _days_between(question: Question, first: int | None, last: int | None) -> Document:
    def key(day: int) -> str:
        nearest = min(max(day, KEEPABLE.start), KEEPABLE.stop - 1)
        return day_key(current_workspace(), question.experiment_id, question.name, nearest)

    return {
        "$gte": key(KEEPABLE.start if first is None else first),
        "$lte": key(KEEPABLE.stop if last is None else last),
    }


async def _read_sums(
    sums: Collection, question: Question, days: Document, projection: Any, session: Session | None = None
) -> Kept | None:
    """The sums of these days that count, as far as notes say."""
    workspace = current_workspace()
    ids = [
        {"_id": {"$in": [question.head, note_for_all(workspace)]}},
        {"_id": notes_of(workspace, question.experiment_id)},
        {"_id": days},
    ]
    found = await sums.find({"$or": ids}, projection, batch_size=BATCH, session=session).to_list()
    head = next((each for each in found if each["_id"] == question.head), None)
    if head is None or "made" not in head:
        return None
    trusted = _before(head["made"])
    left = [each["_id"] for each in found if "left" in each and each["left"] >= trusted]
    if note_for_all(workspace) in left:
        return None
    return kept_from(head, found, {number_in(each) * HOUR // DAY for each in left})


def _before(made: Timestamp) -> Timestamp:
    return Timestamp(max(made.time - departures.MARGIN_SECONDS, 0), made.inc)


async def _changed_days(
    traces: Collection,
    question: Question,
    kept: Kept,
    session: Session | None = None,
    *,
    limit: int = 2**31 - 1,
) -> set[int] | None:
    """The days on which a trace has been touched since the sums were made; None for ``limit`` traces."""
    match = question.of_experiment(
        {"touched": {"$gte": _before(kept.made)}}, _between(question.start, question.end), _until(kept)
    )
    day = {"$floor": {"$divide": ["$request_time", DAY]}}
    pipeline: list[Document] = [
        {"$match": match},
        {"$limit": limit},
        {"$group": {"_id": day, "n": {"$sum": 1}}},
    ]
    found = await (await traces.aggregate(pipeline, hint="touched", session=session)).to_list()
    return None if sum(each["n"] for each in found) >= limit else {int(each["_id"]) for each in found}


def _all_changing(made: Timestamp) -> Document:
    """The note that any trace may be changing, if it is not older than sums may be."""
    return {"_id": note_for_all(current_workspace()), "left": {"$gte": _before(made)}}


def _until(kept: Kept) -> Document:
    return {"request_time": {"$lt": kept.until}}


async def _keep_if_possible(database: Database, question: Question) -> None:
    """Keep sums for the next reader. Who may not write, or has no time left, keeps none."""
    try:
        with pymongo.timeout(_KEEPING_SECONDS):
            async with _maker(database, question) as maker:
                await maker.run()
    except DuplicateKeyError:
        _logger.debug("Somebody else has begun to sum up %s.", question.head)
    except PyMongoError:
        _logger.debug("The sums of %s are not kept.", question.head, exc_info=True)
    else:
        _waits_of(database).end(question.head)


@asynccontextmanager
async def _maker(database: Database, question: Question) -> AsyncIterator["_Maker"]:
    # A session, so that what is read was written after what it has seen, whoever answers.
    async with database.client.start_session(causal_consistency=True) as session:
        options: Any = {
            "read_preference": ReadPreference.PRIMARY,
            "read_concern": ReadConcern("majority"),
            "write_concern": WriteConcern("majority"),
        }
        sums = database.collection(TraceSumsFields).with_options(**options)
        traces = database.collection(TraceFields).with_options(**options)
        yield _Maker(question, sums, traces, session)


class _Maker:
    """Brings the sums of one metric of one experiment up to date."""

    def __init__(self, question: Question, sums: Collection, traces: Collection, session: Session) -> None:
        metric = question.grouping.metric
        self._question = question
        self._sums = sums
        self._traces = traces
        self._session = session
        self._metric = metric
        self._finest = Grouping(question.grouping.view, metric, list(metric.dimensions), None)
        self._deadline = time.monotonic() + _KEEPING_SECONDS / 2

    async def run(self) -> None:
        question = self._question
        self._began = await self._begin()
        everything = _days_between(question, None, None)
        whole = replace(question, start=None, end=None)
        if await self._sums.find_one(_all_changing(self._began), session=self._session):
            return
        kept = await _read_sums(self._sums, whole, everything, {"rows": 0}, self._session)
        days: dict[int, Timestamp | None] = {}
        until: int | None = None
        if kept is not None:
            changed = await _changed_days(self._traces, whole, kept, self._session)
            assert changed is not None  # there is no limit
            stale = kept.stale | changed
            days = dict(kept.days)
            until = kept.until
            for day in sorted(days.keys() | {day for day in stale if day * DAY < until}):
                if day in stale or day not in kept.current:
                    days[day] = await self._sum_up(day, min((day + 1) * DAY, until))
        await self._vouch(days, await self._go_on(days, until))

    async def _begin(self) -> Timestamp:
        """Say so; raises DuplicateKeyError if somebody else did just now."""
        lately = Timestamp(max(int(time.time()) - RETRY_SECONDS, 0), 0)
        head = await self._sums.find_one_and_update(
            {"_id": self._question.head, "began": {"$not": {"$gte": lately}}},
            {"$currentDate": {"began": {"$type": "timestamp"}}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=self._session,
        )
        assert head is not None  # an upsert
        began: Timestamp = head["began"]
        return began

    async def _go_on(self, days: dict[int, Timestamp | None], until: int | None) -> int:
        """Sum up the days that are not yet, the oldest first; up to when that was done."""
        settled = (self._began.time - SETTLED_SECONDS) * 1000 // HOUR * HOUR
        until = until if until is not None else INT64.start
        while until < settled and time.monotonic() < self._deadline:
            found = await self._traces.find_one(
                self._question.of_experiment({"request_time": {"$gte": until, "$lt": settled}}),
                {"_id": 0, "request_time": 1},
                sort=[("request_time", 1)],
                hint="metrics",
                session=self._session,
            )
            if found is None:
                return settled
            day = found["request_time"] // DAY
            end = min((day + 1) * DAY, settled)
            days[day] = await self._sum_up(day, end, until, days.get(day))
            until = end
        return until

    async def _sum_up(
        self, day: int, end: int, until: int | None = None, version: Timestamp | None = None
    ) -> Timestamp | None:
        """Keep the sums of a day up to ``end``; those up to ``until`` may be there in that version."""
        if day not in KEEPABLE or time.monotonic() > self._deadline:
            return None
        question, start, tallies = self._question, day * DAY, Tallies()
        key = day_key(current_workspace(), question.experiment_id, question.name, day)
        if until is not None and version is not None:
            earlier = await self._sums.find_one({"_id": key, "version": version}, session=self._session)
            rows = (earlier or {}).get("rows")
            if rows is not None and all("values" in row for row in rows if has_values(self._metric)):
                unpacked(rows, tallies, with_values=has_values(self._metric))
                start = until
        await self._tally(_between(start, end - 1), tallies)
        rows = packed(tallies, self._metric)
        await self._sums.replace_one(
            {"_id": key},
            {"version": self._began} if rows is None else {"version": self._began, "rows": rows},
            upsert=True,
            session=self._session,
        )
        return self._began

    async def _tally(self, time_range: Document, into: Tallies) -> None:
        match = self._question.of_experiment(time_range, self._metric.has_value)
        if has_values(self._metric):
            pipeline, add = histogram_pipeline(self._finest, match), tallied_values
        else:
            pipeline, add = tally_pipeline(self._finest, match), tallied
        cursor = await self._traces.aggregate(
            pipeline, allowDiskUse=True, batchSize=BATCH, session=self._session
        )
        while some := await cursor.to_list(BATCH):
            add(some, self._finest, into)

    async def _vouch(self, days: dict[int, Timestamp | None], until: int) -> None:
        """Let readers use the sums, unless somebody else has begun meanwhile or the experiment is gone."""
        await self._sums.update_one(
            {"_id": self._question.head, "began": self._began},
            {
                "$set": {
                    "made": self._began,
                    "until": until,
                    "days": [[day, days[day]] for day in sorted(days)],
                }
            },
            session=self._session,
        )
