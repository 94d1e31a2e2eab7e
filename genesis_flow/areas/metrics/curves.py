"""Curves: histories by step, timestamp and value, of which few points are asked for.

A settled block is found by the number of a point, so what is read of a curve of any length is bounded: its
open blocks (MOST_OPEN at most), its first settled blocks and the last one, the settled blocks that late
points fall into (MOST_OVERLAID at most), and one block for each point asked for. Where steps rise evenly, the
blocks of steps that are asked for are guessed, and read at once. Else the ends of blocks are looked at first,
PROBES and a guess for each step in a round; the rounds grow as the logarithm of the length. A history that
was not settled, or has more late points, is read as a whole.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from genesis_flow.areas.metrics.documents import MOST_OPEN, SETTLED_POINTS
from genesis_flow.areas.metrics.packing import Packed
from genesis_flow.areas.metrics.points import Curve, Point, distinct, step_order
from genesis_flow.documents.keys import (
    SEPARATOR,
    children_of,
    is_open,
    open_block_ids,
    settled_block_id,
    settled_block_ids,
    settled_number,
)
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.binding import Collection as Blocks

# A history of so few blocks is read with one command.
FEW = 16
PROBES = 128
MOST_OVERLAID = 64
# From so many points of one block on, all of it is unpacked.
_WHOLE_FROM = 8
# What is read of blocks: the steps of their ends, or their points too.
_ENDS = {"first_step": 1, "last_step": 1}
_WHOLE = {**_ENDS, "n": 1, "data": 1}

Steps = tuple[int, int]


async def read_curve(blocks: Blocks, head: str, tail: list[Point]) -> "WholeCurve | SettledCurve":
    """The curve of a metric that has blocks; ``tail`` was read before."""
    found = await blocks.find({"_id": children_of(head)}, sort=[("_id", 1)], limit=FEW).to_list()
    if len(found) < FEW:
        return WholeCurve(Curve(found, tail))
    opened = [block for block in found if is_open(block["_id"])]
    if len(opened) == FEW:
        behind = {**open_block_ids(head), "$gt": found[-1]["_id"]}
        behind.pop("$gte")
        opened += await blocks.find({"_id": behind}, sort=[("_id", 1)], limit=MOST_OPEN + 1 - FEW).to_list()
    if len(opened) <= MOST_OPEN:
        last = await blocks.find_one({"_id": settled_block_ids(head)}, sort=[("_id", -1)])
        if last is not None:
            curve = SettledCurve(blocks, head, last, found[len(opened) :])
            if await curve.lay_over(Curve(opened, tail)):
                return curve
    every = await blocks.find({"_id": children_of(head)}, sort=[("_id", 1)], batch_size=BATCH).to_list()
    return WholeCurve(Curve(every, tail))


class WholeCurve:
    """A curve all of whose points were read."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def __len__(self) -> int:
        return len(self._curve)

    async def between(self, wanted: Sequence[Steps]) -> list[range]:
        """The numbers of the points of these steps and those between them."""
        return [self._curve.between(first, last) for first, last in wanted]

    async def points(self, numbers: Iterable[int]) -> list[Point]:
        return [self._curve[number] for number in numbers]


class _Question(NamedTuple):
    """How many blocks end below a step; or, if ``begun``, how many begin by it. They are the first ones."""

    step: int
    begun: bool


class _Gap(NamedTuple):
    """The answer to a question is from ``low`` to ``high``; the block at which to look next."""

    low: int
    high: int
    guess: int


class _Seen:
    """The blocks whose first and last steps are known, in order."""

    def __init__(self, ends: Mapping[int, Steps], blocks: int) -> None:
        self._blocks = blocks
        self._numbers = sorted(ends)
        self._firsts = [ends[number][0] for number in self._numbers]
        self._lasts = [ends[number][1] for number in self._numbers]

    def around(self, step: int) -> int | None:
        """The block that has lower and higher steps: the only one in which the step can be."""
        index = bisect_left(self._lasts, step)
        if index < len(self._firsts) and self._firsts[index] < step < self._lasts[index]:
            return self._numbers[index]
        return None

    def gap(self, question: _Question) -> _Gap:
        """The block in which the step lies answers both questions: no other overlaps it but at its ends."""
        bisect = bisect_right if question.begun else bisect_left
        begun, ended = bisect(self._firsts, question.step), bisect(self._lasts, question.step)
        if question.begun:
            low = self._behind(begun)
            high = min(self._number(begun), self._number(ended) + 1)
        else:
            low = max(self._behind(ended), self._numbers[begun - 1] if begun else 0)
            high = self._number(ended)
        return _Gap(low, high, min(max(self.guess(question.step), low), high - 1))

    def guess(self, step: int) -> int:
        """Where the step is if steps rise evenly between two blocks, as they mostly do."""
        right = bisect_right(self._firsts, step)
        if right == len(self._firsts):
            return self._numbers[-1]
        return self._between(right - 1, right, step) if right else 0

    def rise_evenly(self) -> bool:
        """Whether the beginning of a curve leads to its end, so that what is between can be guessed."""
        if len(self._numbers) < 3 or self._firsts[0] == self._firsts[-2]:
            return False
        expected = self._between(0, -2, self._firsts[-1])
        return abs(expected - self._numbers[-1]) <= 1

    def _between(self, left: int, right: int, step: int) -> int:
        first, last = self._firsts[left], self._firsts[right]
        block = self._numbers[left]
        return block + (step - first) * (self._numbers[right] - block) // (last - first)

    def _number(self, index: int) -> int:
        return self._numbers[index] if index < len(self._numbers) else self._blocks

    def _behind(self, count: int) -> int:
        return self._numbers[count - 1] + 1 if count else 0


class SettledCurve:
    """A curve that is read where it is asked for.

    It is the settled blocks, and in memory the points that lie over some of them and those behind the last.
    """

    def __init__(self, blocks: Blocks, head: str, last: Document, others: Iterable[Document]) -> None:
        """``last`` is the last settled block; the others were read before."""
        self._collection = blocks
        self._head = head
        self._settled = settled_number(last["_id"]) + 1
        self._held: dict[int, Packed] = {}
        self._ends: dict[int, Steps] = {}
        for block in (*others, last):
            self._learn(block)
        # Instead of the blocks from the one up to the other there are these points.
        self._from = self._to = self._settled
        self._overlaid: list[Point] = []
        self._overlaid_steps: list[int] = []
        self._rest = Curve([], [])

    def __len__(self) -> int:
        return self._before(self._settled) + len(self._rest)

    async def lay_over(self, others: Curve) -> bool:
        """Add the points that are not settled; False if they lie over too many blocks."""
        ending = self._points_of(self._settled - 1)
        late = bisect_right(others, step_order(ending[-1]), key=step_order)
        self._rest = others.behind(late)
        # Mostly they are the beginning of an open block that has settled in part.
        if others[:late] == ending[len(ending) - late :]:
            return True
        first, last = others[0][1], others[late - 1][1]
        self._from, self._to = await self._counts(
            [_Question(first, begun=False), _Question(last, begun=True)]
        )
        if self._to - self._from > MOST_OVERLAID:
            return False
        await self._fetch(range(self._from, self._to))
        settled = [point for number in range(self._from, self._to) for point in self._points_of(number)]
        self._overlaid = sorted(distinct(settled + others[:late]), key=step_order)
        self._overlaid_steps = [step for _, step, _ in self._overlaid]
        return True

    async def between(self, wanted: Sequence[Steps]) -> list[range]:
        """The numbers of the points of these steps and those between them."""
        questions = [
            question
            for first, last in wanted
            for question in (_Question(first, begun=False), _Question(last, begun=True))
        ]
        counts = iter(await self._counts(questions))
        ends = [(next(counts), next(counts)) for _ in wanted]
        needed = {number for low, high in ends for number in (low, high - 1)}
        await self._fetch(number for number in needed if 0 <= number < self._settled)
        return [
            range(self._rank(low, first, bisect_left), self._rank(high - 1, last, bisect_right))
            for (low, high), (first, last) in zip(ends, wanted, strict=True)
        ]

    async def points(self, numbers: Iterable[int]) -> list[Point]:
        places = [self._place(number) for number in numbers]
        settled = Counter(place // SETTLED_POINTS for place in places if isinstance(place, int))
        await self._fetch(settled)
        whole = {number: self._points_of(number) for number, count in settled.items() if count >= _WHOLE_FROM}
        found: list[Point] = []
        for place in places:
            if isinstance(place, int):
                number, index = divmod(place, SETTLED_POINTS)
                points = whole.get(number)
                found.append(self._held[number].point(index) if points is None else points[index])
            else:
                found.append(place)
        return found

    def _before(self, block: int) -> int:
        """How many points there are before a block that nothing lies over, or before the rest."""
        return (block - self._to + self._from) * SETTLED_POINTS + len(self._overlaid)

    def _place(self, number: int) -> int | Point:
        """The point, or its place in the settled blocks."""
        number -= (settled := self._from * SETTLED_POINTS)
        if number < 0:
            return settled + number
        if number < len(self._overlaid):
            return self._overlaid[number]
        number += self._to * SETTLED_POINTS - len(self._overlaid)
        behind = number - self._settled * SETTLED_POINTS
        return number if behind < 0 else self._rest[behind]

    def _rank(self, block: int, step: int, bisect: Callable[..., int]) -> int:
        """How many points are before a step, or up to it; its end is in the block."""
        if block < 0:
            settled = 0
        elif block == self._settled:
            settled = block * SETTLED_POINTS
        else:
            settled = block * SETTLED_POINTS + bisect(self._held[block].steps(), step)
        before = min(settled, self._from * SETTLED_POINTS) + max(0, settled - self._to * SETTLED_POINTS)
        return before + bisect(self._overlaid_steps, step) + bisect(self._rest.steps, step)

    async def _counts(self, questions: Sequence[_Question]) -> list[int]:
        """The answers, of the settled blocks."""
        await self._guess({question.step for question in questions})
        answers: dict[_Question, int] = {}
        left: Iterable[_Question] = questions
        while True:
            seen = _Seen(self._ends, self._settled)
            unknown: dict[_Question, _Gap] = {}
            for question in left:
                if (block := seen.around(question.step)) is not None:
                    answers[question] = block + question.begun
                elif (gap := seen.gap(question)).low == gap.high:
                    answers[question] = gap.low
                else:
                    unknown[question] = gap
            if not unknown:
                return [answers[question] for question in questions]
            ranges = {(gap.low, gap.high) for gap in unknown.values()}
            probes = {number for low, high in ranges for number in _spread(low, high, PROBES // len(ranges))}
            probes.update(gap.guess for gap in unknown.values())
            await self._read(probes, _ENDS)
            left = unknown

    async def _guess(self, steps: Iterable[int]) -> None:
        """Read the blocks in which the steps are if they rise evenly, where that is likely."""
        seen = _Seen(self._ends, self._settled)
        if seen.rise_evenly():
            await self._fetch({seen.guess(step) for step in steps})

    async def _fetch(self, numbers: Iterable[int]) -> None:
        await self._read({number for number in numbers if number not in self._held}, _WHOLE)

    async def _read(self, numbers: Collection[int], fields: dict[str, int]) -> None:
        for portion in portions(sorted(numbers)):
            query = {"_id": {"$in": [settled_block_id(self._head, number) for number in portion]}}
            found = await self._collection.find(query, fields, batch_size=BATCH).to_list()
            if len(found) != len(portion):
                run_id, _, key = self._head.partition(SEPARATOR)
                raise MlflowException(
                    f"Points of metric '{key}' of run '{run_id}' are gone: the run is being deleted for "
                    "good. If it is not, restore a backup.",
                    INTERNAL_ERROR,
                )
            for block in found:
                self._learn(block)

    def _learn(self, block: Document) -> None:
        number = settled_number(block["_id"])
        self._ends[number] = block["first_step"], block["last_step"]
        if "data" in block:
            self._held[number] = Packed(block["data"], block["n"])

    def _points_of(self, number: int) -> list[Point]:
        return list(zip(*self._held[number].columns(), strict=True))


def _spread(low: int, high: int, count: int) -> Iterable[int]:
    """Numbers from ``low`` on and below ``high``, at most ``count`` but one at least, evenly spread."""
    count = max(1, min(count, high - low))
    return (low + (2 * each + 1) * (high - low) // (2 * count) for each in range(count))
