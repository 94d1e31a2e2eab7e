"""Settling: open blocks become numbered ones of equal size, the curve itself, in which a point is found by
its place.

Points settle if they continue what is settled both by time and by step. All others (late ones, and what a
resumed training repeats) stay in open blocks, and readers lay them over the settled ones.

Everything moves upwards in the order of the ids: from the head's tail to an open block, from there to a
settled one, and what is below is removed last. Whoever reads in this order sees each point at least once,
and a set of points has it once. Settled blocks are only ever added behind the last one. The insertion
decides who does it: of two who settle at once, one finds the number taken, and stops.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import le, lt
from typing import Any

from pymongo import DESCENDING
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from genesis_flow.areas.metrics.documents import MOST_OPEN, SETTLED_POINTS
from genesis_flow.areas.metrics.packing import Columns
from genesis_flow.areas.metrics.points import (
    Point,
    columns_of,
    distinct,
    history_order,
    identities,
    joined,
    packed_fields,
    step_order,
    unpack,
)
from genesis_flow.documents.keys import (
    open_block_ids,
    settled_block_id,
    settled_block_ids,
    settled_number,
)
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.writes import only_duplicates

# So many of the last settled blocks are compared with late points, to find open blocks that have settled.
_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Settlement:
    """What was written and removed."""

    written: list[Document] = field(default_factory=list)
    removed: list[Document] = field(default_factory=list)


async def settle(blocks: Collection, head: str) -> Settlement:
    """Settle what can be of the open blocks of a metric, unless they are too many for a call that logs.

    A repetition goes on where a killed call stopped.
    """
    opened = await blocks.find(
        {"_id": open_block_ids(head)}, sort=[("_id", 1)], limit=MOST_OPEN + 1
    ).to_list()
    if not opened or len(opened) > MOST_OPEN:
        return Settlement()
    return await settle_blocks(blocks, head, opened)


async def settle_blocks(
    blocks: Collection, head: str, opened: Sequence[Document], *, is_thorough: bool = False
) -> Settlement:
    """Settle what can be of these open blocks, which are in the order of their ids.

    ``is_thorough`` looks at all settled blocks of their time for what is there twice.
    """
    last = await last_settled(blocks, head)
    plan = Plan(head, opened, last)
    written = await _inserted(blocks, plan.made) if plan.made else []
    removed = plan.settled_with(written)
    removed += await doubles(blocks, plan, removed, written, is_thorough=is_thorough)
    if removed:
        await blocks.delete_many({"_id": {"$in": [block["_id"] for block in removed]}})
    return Settlement(written, removed)


async def doubles(
    blocks: Collection,
    plan: "Plan",
    removed: list[Document],
    written: list[Document],
    *,
    is_thorough: bool,
) -> list[Document]:
    """Those of the other open blocks of a plan all of whose points have settled."""
    if plan.last is None:
        return []
    end = [plan.last, *written][-1]["last_timestamp"]
    names = {block["_id"] for block in removed}
    others = [
        block for block in plan.open_blocks if block["_id"] not in names and block["last_timestamp"] <= end
    ]
    if not others:
        return []
    first = 0 if is_thorough else max(0, settled_number(plan.last["_id"]) + 1 - _COMPARED)
    query: Document = {
        # None behind the last one: a failover could take that away, and what is removed for it would be lost.
        "_id": {"$gte": settled_block_id(plan.head, first), "$lte": plan.last["_id"]},
        "first_timestamp": {"$lte": max(block["last_timestamp"] for block in others)},
        "last_timestamp": {"$gte": min(block["first_timestamp"] for block in others)},
    }
    known: set[Any] = set()
    for block in written:
        known |= identities(unpack(block))
    async for block in blocks.find(query, batch_size=BATCH):
        known |= identities(unpack(block))
    return [block for block in others if identities(unpack(block)) <= known]


async def last_settled(blocks: Collection, head: str) -> Document | None:
    """The last settled block, as no failover can take it away: the next one is put behind it."""
    durable = blocks.with_options(read_concern=ReadConcern("majority"))
    return await durable.find_one({"_id": settled_block_ids(head)}, sort=[("_id", DESCENDING)])


async def _inserted(blocks: Collection, new: list[Document]) -> list[Document]:
    """Those that this call has inserted; others may have taken the numbers meanwhile."""
    try:
        await blocks.insert_many(new, ordered=True)
    except BulkWriteError as error:
        if not only_duplicates(error):
            raise
        return new[: error.details["nInserted"]]
    return new


class Plan:
    """Which points of open blocks continue what is settled, and the blocks that are made of them."""

    def __init__(self, head: str, open_blocks: Sequence[Document], last: Document | None) -> None:
        self.head, self.open_blocks, self.last = head, open_blocks, last
        columns = joined(columns_of(block) for block in open_blocks)
        # Where the points begin that continue what is settled; None if they are not all behind it.
        self._start = _begin(columns, last)
        if self._start is None:
            columns = self._continuing(columns, last)
        begin = self._start or 0
        first = 0 if last is None else settled_number(last["_id"]) + 1
        self.made = [
            _settled_block(head, first + number, columns, begin + number * SETTLED_POINTS)
            for number in range((len(columns[0]) - begin) // SETTLED_POINTS)
        ]

    def settled_with(self, written: list[Document]) -> list[Document]:
        """The open blocks all of whose points are in these new ones."""
        if not written:
            return []
        if self._start is None:
            points = {point for block in written for point in identities(unpack(block))}
            return [block for block in self.open_blocks if identities(unpack(block)) <= points]
        end, removed = 0, []
        for block in self.open_blocks:
            begin, end = end, end + block["n"]
            if self._start <= begin and end <= self._start + len(written) * SETTLED_POINTS:
                removed.append(block)
        return removed

    @staticmethod
    def _continuing(columns: Columns, last: Document | None) -> Columns:
        """As many as possible of the points behind the settled ones that rise by time and by step."""
        points = distinct(zip(*columns, strict=True))
        if last is not None:
            end = unpack(last)[-1]
            points = [point for point in points if _follows(point, end)]
        chosen = rising(points)
        return (
            array("q", [point[0] for point in chosen]),
            array("q", [point[1] for point in chosen]),
            array("d", [point[2] for point in chosen]),
        )


def rising(points: Sequence[Point]) -> list[Point]:
    """As many as possible of the points, in their order, each with a later step than the one before.

    One point out of place costs one point: the longest rising sequence, by the method of patience sorting.
    """
    # Of the rising sequences of each length the one with the lowest end: that end, and where it is.
    ends: list[Any] = []
    places: list[int] = []
    before: list[int] = []
    for place, point in enumerate(points):
        order = step_order(point)
        length = bisect_left(ends, order)
        before.append(places[length - 1] if length else -1)
        ends[length : length + 1] = [order]
        places[length : length + 1] = [place]
    chosen: list[Point] = []
    place = places[-1] if places else -1
    while place >= 0:
        chosen.append(points[place])
        place = before[place]
    chosen.reverse()
    return chosen


def _follows(point: Point, end: Point) -> bool:
    return history_order(point) > history_order(end) and step_order(point) > step_order(end)


def _begin(columns: Columns, last: Document | None) -> int | None:
    """Where the points begin that are behind the settled ones, if all are in order; quick, for what most
    trainings log."""
    timestamps, steps, _ = columns
    if not all(map(lt, steps, islice(steps, 1, None))) or not all(
        map(le, timestamps, islice(timestamps, 1, None))
    ):
        return None
    if last is None:
        return 0
    begin = bisect_right(steps, last["last_step"])
    if begin < len(steps) and timestamps[begin] < last["last_timestamp"]:
        return None
    return begin


def _settled_block(head: str, number: int, columns: Columns, start: int) -> Document:
    timestamps, steps, values = columns
    end = start + SETTLED_POINTS
    return {
        "_id": settled_block_id(head, number),
        **packed_fields(timestamps[start:end], steps[start:end], values[start:end]),
        "first_step": steps[start],
        "last_step": steps[end - 1],
    }
