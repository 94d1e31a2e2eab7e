"""What calls of the gateway have cost, from sums that readers keep for each other; see ADR 30.

As for metrics (``kept``), an answer takes two steps: the sums are read; then the server says which have
changed since and sums up, beside it, what they do not cover: at most the last minutes, what is not worth
keeping, and the ends of a range that are no whole hours. Sums are of all workspaces and experiments, and
vouch for themselves in the same way.
"""

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pymongo
from bson.timestamp import Timestamp
from pymongo import ASCENDING, ReplaceOne, UpdateMany
from pymongo.errors import DuplicateKeyError, PyMongoError

from genesis_flow.areas.traces.documents import (
    AUTH_USERNAME_PATH,
    GATEWAY_ENDPOINT_PATH,
    TOTAL_COST_PATH,
    TraceFields,
)
from genesis_flow.areas.traces.sums import kept
from genesis_flow.areas.traces.sums.documents import (
    COSTS,
    COSTS_NOTES,
    COSTS_OF_ALL,
    HOUR,
    KEEPABLE,
    TraceSumsFields,
    costs_key,
    number_in,
)
from genesis_flow.areas.traces.sums.kept import NEVER, doubted_since
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo import observed
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database, Session

_logger = logging.getLogger(__name__)

# Sums begin and end with five minutes, counted since 1970; but for the latest, each has a whole hour.
SLOT = 300_000
_SLOTS = HOUR // SLOT
# When most calls that began then have ended and were written. A later one outdates a sum, no more.
SETTLED_SECONDS = 300
# More gaps between sums than this are not worth a command each.
_MOST_RANGES = 32
# A document may have 16 MB; more than this is not kept, and asked of the traces.
_MOST_ROWS = 10_000
_MOST_LETTERS = 2_000_000
# A blocking sort would take the place of a merge of more scans.
_ENDPOINTS_AT_ONCE = 100
_INDEX = "gateway_costs"
_KINDS = {
    "all": ("workspace",),
    "endpoint": ("workspace", "endpoint"),
    "user": ("workspace", "user"),
    "both": ("workspace", "endpoint", "user"),
}
_PATHS = {"workspace": "workspace", "endpoint": GATEWAY_ENDPOINT_PATH, "user": AUTH_USERNAME_PATH}
# Comparisons in the place of KNOWN and of existence, which an index alone could not answer.
_CALLS: Document = {"experiment_id": {"$gte": 0}, GATEWAY_ENDPOINT_PATH: {"$gte": ""}}
# Milliseconds: from the first to before the last.
_Range = tuple[int, int]


class _Piece(NamedTuple):
    """What calls have cost that began from one five minutes to before another, as of ``made``."""

    begin: int
    end: int
    made: Timestamp
    cost: float | None
    """Of what is asked for; None if there was too much to keep."""
    is_empty: bool

    def may_stay(self, settled: int) -> bool:
        """Whether it is not one of several of an hour that is over by now."""
        return (self.begin % _SLOTS, self.end % _SLOTS) == (0, 0) or _end_of_hour(self.begin) > settled


class _Found(NamedTuple):
    pieces: list[_Piece]
    outdated: list[str]
    """The ids of those that are there and do not hold."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Which calls are asked for: all, or those of a workspace, an endpoint, a user."""

    workspace: str | None = None
    endpoint: str | None = None
    user: str | None = None

    @property
    def kind(self) -> str:
        if self.endpoint is None:
            return "all" if self.user is None else "user"
        return "endpoint" if self.user is None else "both"

    def given(self) -> dict[str, str]:
        each = {"workspace": self.workspace, "endpoint": self.endpoint, "user": self.user}
        return {name: value for name, value in each.items() if value is not None}

    def of_traces(self) -> Document:
        return _CALLS | {_PATHS[name]: value for name, value in self.given().items()}

    def of_sums(self) -> Document:
        """The expression of what they have cost, of a document with sums."""
        rows = f"$costs.{self.kind}"
        alike = [{"$eq": [f"$$row.{name}", {"$literal": value}]} for name, value in self.given().items()]
        those = {"$filter": {"input": rows, "as": "row", "cond": {"$and": alike}}} if alike else rows
        return {"$sum": {"$map": {"input": those, "as": "row", "in": "$$row.cost"}}}


async def cost_of_traces(database: Database, start: int, end: int, calls: Calls) -> float:
    """What calls have cost, by their traces that began from one time to before the other."""
    is_range = all(isinstance(each, int) and each in INT64 for each in (start, end)) and start < end
    if database.settings.portable or not is_range:
        cost, _ = await _ask_traces(database, calls, (start, end))
        return cost
    found = await _read(database.everywhere(TraceSumsFields), calls, start, end)
    cost, asked, made = await _answer(database, calls, (start, end), found.pieces)
    is_old = made is not None and made.time < time.time() - kept.REFRESH_SECONDS
    waits = kept.waits_of(database)
    if (asked >= kept.WORTH_KEEPING or is_old) and waits.is_over(COSTS):
        # Before it is tried: one of those who ask at once is enough.
        waits.begin(COSTS, waits.state(COSTS))
        await _keep_if_possible(database)
    return cost


async def _answer(
    database: Database, calls: Calls, asked: _Range, pieces: list[_Piece]
) -> tuple[float, int, Timestamp | None]:
    """The cost, how many traces were read for it, and when the oldest of the sums was made."""
    traces = database.everywhere(TraceFields)
    while True:
        whole, ranges = _split(pieces, *asked)
        changed, costs = await asyncio.gather(
            _changed(traces, whole, limit=kept.MOST_CHANGES),
            asyncio.gather(*(_ask_traces(database, calls, each) for each in ranges)),
        )
        if not changed:
            break
        pieces = [each for each in pieces if each not in changed]
    observed.answered_from_sums(bool(whole))
    cost = _total([*(each.cost or 0.0 for each in whole), *(each for each, _ in costs)])
    return cost, sum(count for _, count in costs), min((each.made for each in whole), default=None)


def _split(pieces: list[_Piece], start: int, end: int) -> tuple[list[_Piece], list[_Range]]:
    """The sums that lie within a range and do not overlap, and the ranges between and beside them."""
    whole: list[_Piece] = []
    ranges: list[_Range] = []
    low = start
    for piece in sorted(pieces, key=lambda each: (each.begin, -each.end)):
        first, last = piece.begin * SLOT, piece.end * SLOT
        if piece.is_empty:  # so is each part of it
            first, last = max(first, low), min(last, end)
        if piece.cost is None or first < low or last > end or first >= last:
            continue
        whole.append(piece)
        if low < first:
            ranges.append((low, first))
        low = last
    if low < end:
        ranges.append((low, end))
    return (whole, ranges) if len(ranges) <= _MOST_RANGES else ([], [(start, end)])


async def _ask_traces(database: Database, calls: Calls, asked: _Range) -> tuple[float, int]:
    total = {"_id": None, "cost": {"$sum": f"${TOTAL_COST_PATH}"}, "count": {"$sum": 1}}
    match = calls.of_traces() | _between(*asked)
    # Of a short time the server might think that reading the traces is as good.
    options: dict[str, Any] = {} if database.settings.portable else {"hint": _INDEX}
    traces = database.everywhere(TraceFields)
    cursor = await traces.aggregate([{"$match": match}, {"$group": total}], **options)
    found = await cursor.to_list()
    return (float(found[0]["cost"]), int(found[0]["count"])) if found else (0.0, 0)


def _between(start: int, end: int) -> Document:
    return {"request_time": {"$gte": start, "$lt": end}}


def _total(costs: Sequence[float]) -> float:
    try:
        return math.fsum(costs)
    except (OverflowError, ValueError):  # infinite ones
        return float(sum(costs))


async def _read(
    sums: Collection, calls: Calls, start: int, end: int, session: Session | None = None
) -> _Found:
    """The sums that may lie in a range and hold, as far as notes say."""
    first, last = (min(max(each // SLOT, 0), KEEPABLE.stop * 24 * _SLOTS) for each in (start, end))
    pipeline: list[Document] = [
        {
            "$match": {
                "$or": [
                    {"_id": COSTS_OF_ALL},
                    {"_id": COSTS_NOTES},
                    {"_id": {"$gte": costs_key(first), "$lte": costs_key(last)}},
                ]
            }
        },
        {
            "$project": {
                "left": 1,
                "made": 1,
                "until": 1,
                "is_known": {"$gt": ["$costs", None]},
                "is_empty": {"$eq": ["$costs.all", []]},
                "cost": calls.of_sums(),
            }
        },
    ]
    cursor = await sums.aggregate(pipeline, batchSize=BATCH, session=session)
    by_id = {each["_id"]: each for each in await cursor.to_list()}
    everything = by_id.pop(COSTS_OF_ALL, {}).get("left", NEVER)
    left = {number_in(key): each["left"] for key, each in by_id.items() if "left" in each}
    found = _Found([], [])
    for key, each in by_id.items():
        if "made" not in each:
            continue
        cost = float(each["cost"]) if each["is_known"] else None
        piece = _Piece(number_in(key), each["until"], each["made"], cost, each["is_empty"])
        if max(everything, _noted(left, piece)) < doubted_since(piece.made):
            found.pieces.append(piece)
        else:
            found.outdated.append(key)
    return found


def _noted(left: Mapping[int, Timestamp], piece: _Piece) -> Timestamp:
    """When a trace last was about to leave the hour of a sum; or one of the hours, if nothing was in them."""
    if not piece.is_empty:
        return left.get(piece.begin // _SLOTS, NEVER)
    hours = range(piece.begin // _SLOTS, (piece.end - 1) // _SLOTS + 1)
    return max((when for hour, when in left.items() if hour in hours), default=NEVER)


async def _changed(
    traces: Collection,
    pieces: Sequence[_Piece],
    session: Session | None = None,
    *,
    limit: int = 2**31 - 1,
) -> set[_Piece]:
    """The sums of which traces have been touched since they were made; all, if that many have."""
    if not pieces:
        return set()
    first, last = min(each.begin for each in pieces), max(each.end for each in pieces)
    match = {
        # Of all workspaces and experiments; the server goes from one to the next within the index.
        "workspace": {"$gte": ""},
        "experiment_id": {"$gte": 0},
        "touched": {"$gte": doubted_since(min(each.made for each in pieces))},
        **_between(first * SLOT, last * SLOT),
    }
    slot = {"$floor": {"$divide": ["$request_time", SLOT]}}
    pipeline: list[Document] = [
        {"$match": match},
        {"$limit": limit},
        {"$group": {"_id": slot, "n": {"$sum": 1}, "last": {"$max": "$touched"}}},
        {"$sort": {"_id": 1}},
    ]
    cursor = await traces.aggregate(pipeline, hint="touched", batchSize=BATCH, session=session)
    touched = await cursor.to_list()
    if sum(each["n"] for each in touched) >= limit:
        return {*pieces}
    slots = [int(each["_id"]) for each in touched]

    def is_changed(piece: _Piece) -> bool:
        within = touched[bisect_left(slots, piece.begin) : bisect_left(slots, piece.end)]
        return any(each["last"] >= doubted_since(piece.made) for each in within)

    return {each for each in pieces if is_changed(each)}


async def _keep_if_possible(database: Database) -> None:
    """Keep sums for the next reader. A reader that may not write, or has no time left, keeps none."""
    try:
        with pymongo.timeout(kept.KEEPING_SECONDS):
            async with database.client.start_session(causal_consistency=True) as session:
                sums = database.everywhere(TraceSumsFields).with_options(**kept.MAKING)
                traces = database.everywhere(TraceFields).with_options(**kept.MAKING)
                await _Maker(sums, traces, session).run()
    except DuplicateKeyError:
        _logger.debug("Somebody else has begun to sum up what calls have cost.")
    except PyMongoError:
        _logger.debug("The sums of what calls have cost are not kept.", exc_info=True)
    else:
        kept.waits_of(database).end(COSTS)


class _Maker:
    """Brings the sums up to date."""

    def __init__(self, sums: Collection, traces: Collection, session: Session) -> None:
        self._sums = sums
        self._traces = traces
        self._session = session
        self._deadline = time.monotonic() + kept.KEEPING_SECONDS / 2

    async def run(self) -> None:
        self._began = await self._begin()
        self._settled = (self._began.time - SETTLED_SECONDS) * 1000 // SLOT
        is_changing = {"_id": COSTS_OF_ALL, "left": {"$gte": doubted_since(self._began)}}
        if await self._sums.find_one(is_changing, session=self._session):
            return
        found = await _read(self._sums, Calls(), 0, INT64.stop - 1, self._session)
        changed = await _changed(self._traces, found.pieces, self._session)
        current = [each for each in found.pieces if each not in changed and each.may_stay(self._settled)]
        outdated = [*found.outdated, *(costs_key(each.begin) for each in {*found.pieces}.difference(current))]
        for portion in portions(outdated):
            await self._sums.delete_many(
                {"_id": {"$in": portion}, "made": {"$not": {"$gte": self._began}}}, session=self._session
            )
        await self._confirm(current)
        await self._go_on(current)

    async def _begin(self) -> Timestamp:
        return await kept.begin_to_make(self._sums, COSTS, self._session)

    async def _confirm(self, current: Iterable[_Piece]) -> None:
        """Say of old sums that have been found right that they still are."""
        keys_of: dict[Timestamp, list[str]] = {}
        for piece in current:
            if piece.made.time < self._began.time - kept.REFRESH_SECONDS / 2:
                keys_of.setdefault(piece.made, []).append(costs_key(piece.begin))
        confirmed = [
            UpdateMany({"_id": {"$in": keys}, "made": made}, {"$set": {"made": self._began}})
            for made, keys in keys_of.items()
        ]
        if confirmed:
            await self._sums.bulk_write(confirmed, ordered=False, session=self._session)

    async def _go_on(self, current: Sequence[_Piece]) -> None:
        """Sum up what has settled and has no sums, the oldest first."""
        endpoints = await self._traces.distinct(
            GATEWAY_ENDPOINT_PATH, {GATEWAY_ENDPOINT_PATH: {"$gte": ""}}, session=self._session
        )
        begin = 0
        for piece in [*sorted(current), None]:
            end = self._settled if piece is None else piece.begin
            while begin < end and time.monotonic() < self._deadline:
                earliest = await self._earliest(endpoints, begin, end)
                if earliest is None and piece is None:
                    return
                # Whole hours without a call are one sum, else nothing is longer than an hour.
                stop = (end if earliest is None else earliest) // _SLOTS * _SLOTS
                if begin % _SLOTS == 0 and begin < stop:
                    await self._keep(begin, stop, [])
                else:
                    stop = min(_end_of_hour(begin), end)
                    await self._keep(begin, stop, await self._tally(begin, stop))
                begin = stop
            if piece is not None:
                begin = max(begin, piece.end)

    async def _earliest(self, endpoints: Sequence[str], begin: int, end: int) -> int | None:
        """The five minutes in which the first call began."""
        slots = []
        for portion in portions(endpoints, _ENDPOINTS_AT_ONCE):
            first = await self._traces.find_one(
                {**_CALLS, GATEWAY_ENDPOINT_PATH: {"$in": portion}, **_between(begin * SLOT, end * SLOT)},
                {"_id": 0, "request_time": 1},
                sort=[("request_time", ASCENDING)],
                hint=_INDEX,
                session=self._session,
            )
            if first is not None:
                slots.append(int(first["request_time"] // SLOT))
        return min(slots, default=None)

    async def _tally(self, begin: int, end: int) -> list[Document]:
        key = {name: f"${path}" for name, path in _PATHS.items()}
        pipeline: list[Document] = [
            {"$match": _CALLS | _between(begin * SLOT, end * SLOT)},
            {"$group": {"_id": key, "cost": {"$sum": f"${TOTAL_COST_PATH}"}}},
        ]
        cursor = await self._traces.aggregate(
            pipeline, allowDiskUse=True, batchSize=BATCH, session=self._session, hint=_INDEX
        )
        found: list[Document] = await cursor.to_list()
        return found

    async def _keep(self, begin: int, end: int, found: list[Document]) -> None:
        costs = _packed(found)
        sums = {"until": end, "made": self._began, **({} if costs is None else {"costs": costs})}
        key = {"_id": costs_key(begin)}
        await self._sums.bulk_write([ReplaceOne(key, sums, upsert=True)], session=self._session)


def _end_of_hour(slot: int) -> int:
    return (slot // _SLOTS + 1) * _SLOTS


def _packed(found: list[Document]) -> dict[str, list[Document]] | None:
    """The sums as they are kept, or None if they are too many."""
    if len(found) > _MOST_ROWS or sum(len("".join(_names(each))) for each in found) > _MOST_LETTERS:
        return None
    return {kind: _rows(found, names) for kind, names in _KINDS.items()}


def _names(found: Document) -> list[str]:
    return [each for each in found["_id"].values() if each is not None]


def _rows(found: list[Document], names: Sequence[str]) -> list[Document]:
    costs: dict[tuple[str, ...], list[float]] = {}
    for each in found:
        key = tuple(each["_id"].get(name) for name in names)
        if None not in key:  # a call of nobody
            costs.setdefault(key, []).append(float(each["cost"]))
    return [{**dict(zip(names, key, strict=True)), "cost": _total(of_key)} for key, of_key in costs.items()]
