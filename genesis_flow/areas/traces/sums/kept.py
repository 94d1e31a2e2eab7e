"""Answers to questions about many traces from sums by day that readers keep for each other; see ADR 25.

An answer takes two steps: the sums are read; then the server says which days have changed since and sums up,
beside it, what the sums do not cover. A reader that had to ask the server for many traces keeps their sums.

Why the sums are right: those of a day vouch for themselves, as of the moment ``made``. That is the time at
which their maker began, by the clock of the servers; everything that was written before was there when it
read. A later change says so, in the same command (``touched``) or beforehand (``left``): one that says so
from ``MARGIN_SECONDS`` before ``made`` on may be later. So it does not matter who else makes sums meanwhile:
any that are there are right.
"""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pymongo
from bson.timestamp import Timestamp
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation
from pymongo import ReadPreference, ReplaceOne, ReturnDocument, UpdateMany, WriteConcern
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
    maker_key,
    note_for_all,
    notes_of,
    number_in,
)
from genesis_flow.areas.traces.sums.merging import (
    KeptDay,
    Range,
    Tallies,
    has_values,
    packed,
    regrouped,
    split,
    tallied,
    tallied_values,
    tally_pipeline,
    unpacked,
)
from genesis_flow.areas.traces.sums.metrics import Grouping, histogram_pipeline
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document
from genesis_flow.mongo import observed
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.search.scan import all_of

_logger = logging.getLogger(__name__)

NEVER = Timestamp(0, 0)

# An answer for which fewer traces were read is quick enough.
WORTH_KEEPING = 10_000
# So long after its end a day is settled. Sums of one that still changes would be outdated at once, not wrong.
SETTLED_SECONDS = 3_600
# Every answer reads what has been touched since sums were made, so they are confirmed this often.
REFRESH_SECONDS = 3_600
# How often a process looks again whether there are sums, or makes some.
RETRY_SECONDS = 60
# To look at so many changes takes longer than to ask the traces.
MOST_CHANGES = 1_000
# How much of a call may go into keeping sums; the next call goes on.
KEEPING_SECONDS = 10.0
# How makers read and write.
MAKING: dict[str, Any] = {
    "read_preference": ReadPreference.PRIMARY,
    "read_concern": ReadConcern("majority"),
    "write_concern": WriteConcern("majority"),
}
# So many days without traces between others have sums too: else each gap is asked of the traces.
_MOST_EMPTY_DAYS = 31


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


def waits_of(database: Database) -> _Waits:
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
    def maker(self) -> str:
        return maker_key(current_workspace(), self.experiment_id, self.name)

    def of_experiment(self, *conditions: Document) -> Document:
        return scoped(all_of({"experiment_id": self.experiment_id}, *conditions))


async def answer(database: Database, question: Question) -> Tallies:
    """What is asked for, by group, from sums as far as there are any."""
    kept = await _kept(database, question)
    tallies, asked = await _answer_with(database, question, kept)
    is_old = any(day.made.time < time.time() - REFRESH_SECONDS for day in kept.values())
    waits, making = waits_of(database), f"{question.maker} made"
    if (asked >= WORTH_KEEPING or is_old) and waits.is_over(making):
        # Before it is tried: one of those who ask at once is enough.
        waits.begin(making, waits.state(making))
        await _keep_if_possible(database, question)
    return tallies


def can_be_asked(question: Question) -> bool:
    """Whether the range is one that BSON can hold; other questions are not for sums."""
    bounds = [each for each in (question.start, question.end) if each is not None]
    return all(isinstance(each, int) and each in INT64 for each in bounds)


async def _answer_with(
    database: Database, question: Question, kept: dict[int, KeptDay]
) -> tuple[Tallies, int]:
    """The answer, and the number of traces that were read for it."""
    traces = database.collection(TraceFields)
    while True:
        tallies: Tallies = {}
        whole, ranges = split(kept, question.start, question.end, with_values=question.with_values)
        changed, counts = await asyncio.gather(
            _changed_days(traces, question, {day: kept[day].made for day in whole}, limit=MOST_CHANGES),
            asyncio.gather(*(_ask_traces(database, question, each, tallies) for each in ranges)),
        )
        if not changed:
            break
        kept = {day: kept[day] for day in kept.keys() - changed}
    observed.answered_from_sums(bool(whole))
    for day in whole:
        rows = regrouped(day, kept[day].rows or [], question.grouping)
        unpacked(rows, tallies, with_values=question.with_values)
    return tallies, sum(counts)


async def _ask_traces(database: Database, question: Question, asked: Range, into: Tallies) -> int:
    grouping = question.grouping
    match = grouping.condition(question.of_experiment(_between(*asked)))
    if question.with_values:
        pipeline = histogram_pipeline(grouping, match)
    else:
        pipeline = tally_pipeline(grouping, match, question.aggregations)
    cursor = await database.collection(TraceFields).aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
    add, count = tallied_values if question.with_values else tallied, 0
    while rows := await cursor.to_list(BATCH):
        count += add(rows, grouping, into)
    return count


def _between(start: int | None, end: int | None) -> Document:
    bounds = {}
    if start is not None:
        bounds["$gte"] = start
    if end is not None:
        bounds["$lte"] = end
    return {"request_time": bounds} if bounds else {}


async def _kept(database: Database, question: Question) -> dict[int, KeptDay]:
    """What readers have kept of this, if anything."""
    waits = waits_of(database)
    if not waits.is_over(question.maker):
        return {}
    # Others may ask at the same time, so not before it is known that there are none; and one of these may
    # have made some by then.
    state = waits.state(question.maker)
    first = None if question.start is None else question.start // DAY
    last = None if question.end is None else question.end // DAY
    projection = None if question.with_values else {"rows.values": 0}
    sums = database.collection(TraceSumsFields)
    kept = await _read_sums(sums, question, _days_between(question, first, last), projection)
    if kept is None:
        waits.begin(question.maker, state)
    return kept or {}


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
) -> dict[int, KeptDay] | None:
    """The sums of these days that count, as far as notes say; None if nobody has made any."""
    workspace = current_workspace()
    ids = [
        {"_id": {"$in": [question.maker, note_for_all(workspace)]}},
        {"_id": notes_of(workspace, question.experiment_id)},
        {"_id": days},
    ]
    found = await sums.find({"$or": ids}, projection, batch_size=BATCH, session=session).to_list()
    by_id = {each["_id"]: each for each in found}
    if by_id.pop(question.maker, None) is None:
        return None
    everything = by_id.pop(note_for_all(workspace), {}).get("left", NEVER)
    left: dict[int, Timestamp] = {}
    for key, kept in by_id.items():
        if "left" in kept:
            day = number_in(key) * HOUR // DAY
            left[day] = max(kept["left"], left.get(day, NEVER))
    return {
        day: KeptDay(kept["made"], kept.get("rows"))
        for key, kept in by_id.items()
        if "made" in kept
        and max(everything, left.get(day := number_in(key), NEVER)) < doubted_since(kept["made"])
    }


def doubted_since(made: Timestamp) -> Timestamp:
    """Sums that were made then hold as long as nothing says that it changed from this moment on."""
    return Timestamp(max(made.time - departures.MARGIN_SECONDS, 0), made.inc)


async def _changed_days(
    traces: Collection,
    question: Question,
    made: Mapping[int, Timestamp],
    session: Session | None = None,
    *,
    limit: int = 2**31 - 1,
) -> set[int]:
    """The days of which traces have been touched since their sums were made; all, if that many have."""
    if not made:
        return set()
    since = {"touched": {"$gte": doubted_since(min(made.values()))}}
    match = question.of_experiment(since, _between(min(made) * DAY, (max(made) + 1) * DAY - 1))
    day = {"$floor": {"$divide": ["$request_time", DAY]}}
    pipeline: list[Document] = [
        {"$match": match},
        {"$limit": limit},
        {"$group": {"_id": day, "n": {"$sum": 1}, "last": {"$max": "$touched"}}},
    ]
    days = await (await traces.aggregate(pipeline, hint="touched", session=session)).to_list()
    if sum(each["n"] for each in days) >= limit:
        return {*made}
    last = {int(each["_id"]): each["last"] for each in days}
    return {day for day in made.keys() & last.keys() if last[day] >= doubted_since(made[day])}


def _all_changing(made: Timestamp) -> Document:
    """The note that any trace may be changing, if it is not older than sums may be."""
    return {"_id": note_for_all(current_workspace()), "left": {"$gte": doubted_since(made)}}


async def _keep_if_possible(database: Database, question: Question) -> None:
    """Keep sums for the next reader. A reader that may not write, or has no time left, keeps none."""
    try:
        with pymongo.timeout(KEEPING_SECONDS):
            async with _maker(database, question) as maker:
                await maker.run()
    except DuplicateKeyError:
        _logger.debug("Somebody else has begun to sum up %s.", question.maker)
    except PyMongoError:
        _logger.debug("The sums of %s are not kept.", question.maker, exc_info=True)
    else:
        waits_of(database).end(question.maker)


async def begin_to_make(sums: Collection, maker: str, session: Session) -> Timestamp:
    """Say so; raises DuplicateKeyError if somebody else did just now."""
    lately = Timestamp(max(int(time.time()) - RETRY_SECONDS, 0), 0)
    found = await sums.find_one_and_update(
        {"_id": maker, "began": {"$not": {"$gte": lately}}},
        {"$currentDate": {"began": {"$type": "timestamp"}}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    assert found is not None  # an upsert
    began: Timestamp = found["began"]
    return began


@asynccontextmanager
async def _maker(database: Database, question: Question) -> AsyncIterator["_Maker"]:
    # A session, so that what is read was written after what it has seen, whoever answers.
    async with database.client.start_session(causal_consistency=True) as session:
        sums = database.collection(TraceSumsFields).with_options(**MAKING)
        traces = database.collection(TraceFields).with_options(**MAKING)
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
        self._deadline = time.monotonic() + KEEPING_SECONDS / 2

    async def run(self) -> None:
        question = self._question
        self._began = await self._begin()
        every_day = _days_between(question, None, None)
        whole = replace(question, start=None, end=None)
        if await self._sums.find_one(_all_changing(self._began), session=self._session):
            return
        kept = await _read_sums(self._sums, whole, every_day, {"rows": 0}, self._session) or {}
        made = {day: each.made for day, each in kept.items()}
        changed = await _changed_days(self._traces, whole, made, self._session)
        current = {day: made[day] for day in made.keys() - changed}
        outdated = {**every_day, "$nin": [self._key(day) for day in current]}
        await self._sums.delete_many(
            {"_id": outdated, "made": {"$not": {"$gte": self._began}}}, session=self._session
        )
        await self._confirm(current)
        await self._go_on({*current})
        # An experiment that was deleted meanwhile has taken its sums with it, but not what came behind that.
        if await self._sums.find_one({"_id": question.maker}, {"_id": 1}, session=self._session) is None:
            await self._sums.delete_many({"_id": every_day}, session=self._session)

    def _key(self, day: int) -> str:
        return day_key(current_workspace(), self._question.experiment_id, self._question.name, day)

    async def _begin(self) -> Timestamp:
        return await begin_to_make(self._sums, self._question.maker, self._session)

    async def _confirm(self, current: Mapping[int, Timestamp]) -> None:
        """Say of old sums that have been found right that they still are."""
        days_of: dict[Timestamp, list[str]] = {}
        for day, made in current.items():
            if made.time < self._began.time - REFRESH_SECONDS / 2:
                days_of.setdefault(made, []).append(self._key(day))
        confirmed = [
            UpdateMany({"_id": {"$in": keys}, "made": made}, {"$set": {"made": self._began}})
            for made, keys in days_of.items()
        ]
        if confirmed:
            await self._sums.bulk_write(confirmed, ordered=False, session=self._session)

    async def _go_on(self, current: set[int]) -> None:
        """Sum up the settled days that have no sums, the oldest first."""
        settled = min((self._began.time - SETTLED_SECONDS) * 1000 // DAY, KEEPABLE.stop)
        begin = KEEPABLE.start
        while time.monotonic() < self._deadline:
            earliest = await self._traces.find_one(
                self._question.of_experiment(_between(begin * DAY, settled * DAY - 1)),
                {"_id": 0, "request_time": 1},
                sort=[("request_time", 1)],
                hint="metrics",
                session=self._session,
            )
            if earliest is None:
                return
            day = int(earliest["request_time"] // DAY)
            if begin > KEEPABLE.start and day - begin <= _MOST_EMPTY_DAYS:
                await self._keep({each: [] for each in range(begin, day)})
            if day not in current:
                await self._sum_up(day)
            begin = day + 1
            while begin in current:
                begin += 1

    async def _sum_up(self, day: int) -> None:
        tallies: Tallies = {}
        await self._tally(_between(day * DAY, (day + 1) * DAY - 1), tallies)
        await self._keep({day: packed(tallies, self._metric)})

    async def _keep(self, rows_of: Mapping[int, list[Document] | None]) -> None:
        """Keep the sums of days; of one that has too many, that it has."""
        writes: list[ReplaceOne[Document]] = [
            ReplaceOne(
                {"_id": self._key(day)},
                {"made": self._began} if rows is None else {"made": self._began, "rows": rows},
                upsert=True,
            )
            for day, rows in rows_of.items()
        ]
        if writes:
            await self._sums.bulk_write(writes, ordered=False, session=self._session)

    async def _tally(self, time_range: Document, into: Tallies) -> None:
        match = self._question.of_experiment(time_range, self._metric.has_value)
        if has_values(self._metric):
            pipeline, add = histogram_pipeline(self._finest, match), tallied_values
        else:
            pipeline, add = tally_pipeline(self._finest, match), tallied
        cursor = await self._traces.aggregate(
            pipeline, allowDiskUse=True, batchSize=BATCH, session=self._session
        )
        while rows := await cursor.to_list(BATCH):
            add(rows, self._finest, into)
