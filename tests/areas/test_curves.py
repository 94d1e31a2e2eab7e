"""Curves of settled blocks: the points of a history read as a whole, in a bounded number of documents."""

import math
import random
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics import curves, settling
from genesis_flow.areas.metrics.curves import SettledCurve
from genesis_flow.areas.metrics.documents import MetricBlockFields
from genesis_flow.areas.metrics.history import evenly
from genesis_flow.areas.metrics.points import Curve, Point, distinct, pack, step_order, unpack
from genesis_flow.areas.metrics.settling import settle
from genesis_flow.documents.keys import head_id, is_open

RUN, KEY = "0" * 32, "loss"
HEAD = head_id(RUN, KEY)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few points, so that few points are a long history."""
    for module in (settling, curves):
        monkeypatch.setattr(module, "SETTLED_POINTS", 8)
    monkeypatch.setattr(curves, "FEW", 3)
    monkeypatch.setattr(curves, "PROBES", 3)
    monkeypatch.setattr(curves, "_WHOLE_FROM", 3)


def resumed(rng: random.Random, count: int) -> list[Point]:
    """A training that now and then goes back to a checkpoint, and logs some points again."""
    points: list[Point] = []
    step = 0
    for time in range(count):
        step = max(0, step - rng.randrange(20)) if rng.random() < 0.02 else step + 1
        points.append((time * 10, step, float(rng.randrange(3))))
    return points


def without_steps(rng: random.Random, count: int) -> list[Point]:
    return [(time // 3, 0, rng.choice([math.nan, 0.0, -0.0, 1.5])) for time in range(count)]


def in_order(rng: random.Random, count: int) -> list[Point]:
    return [(1000 + step * 7 + rng.randrange(5), step * 10, rng.random()) for step in range(count)]


def in_no_order(rng: random.Random, count: int) -> list[Point]:
    return [
        (rng.randrange(50), rng.randrange(-9, 50), float(rng.choice([0.0, 1.0, math.inf])))
        for _ in range(count)
    ]


def with_late_ones(rng: random.Random, count: int) -> list[Point]:
    points = in_order(rng, count)
    late = points.pop(rng.randrange(count // 2))
    return [*points, late, (rng.randrange(5000), rng.randrange(5 * count), 0.5), *points[:2]]


def with_few_missing(rng: random.Random, count: int) -> list[Point]:
    return [point for place, point in enumerate(in_order(rng, count + 2)) if place not in (400, 401)]


def slow_at_first(rng: random.Random, count: int) -> list[Point]:
    return [(1000 + place * 7, place * place, rng.random()) for place in range(count)]


def slow_in_the_middle(rng: random.Random, count: int) -> list[Point]:
    """The beginning leads to the end, as steps that rise evenly do."""
    rises = [10 if place < count // 3 else 1 if place < 2 * count // 3 else 19 for place in range(count)]
    return [(1000 + place * 7, step, rng.random()) for place, step in enumerate(accumulate(rises))]


KINDS: list[Callable[[random.Random, int], list[Point]]] = [
    resumed,
    without_steps,
    in_order,
    in_no_order,
    with_late_ones,
    slow_in_the_middle,
]


def same(points: list[Point]) -> list[tuple[int, int, str]]:
    return [(time, step, repr(value)) for time, step, value in points]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
async def test_a_settled_curve_is_the_curve(
    store: MongoDBStore, kind: Callable[[random.Random, int], list[Point]], seed: int
) -> None:
    rng = random.Random(seed)
    await store.search_experiments(max_results=1)
    blocks = store.database.collection(MetricBlockFields)
    await blocks.delete_many({})
    points = kind(rng, 200)
    written: list[Point] = []
    tail: list[Point] = []
    settled = 0
    while points:
        size = rng.randrange(1, 30)
        piece, points = points[:size], points[size:]
        written += piece
        if rng.random() < 0.3:
            tail = piece
            if rng.random() < 0.5:
                continue
        block = pack(RUN, KEY, piece)
        await blocks.replace_one({"_id": block["_id"]}, block, upsert=True)
        if rng.random() < 0.4:
            settled += len((await settle(blocks, HEAD)).written)
        tail = tail if rng.random() < 0.5 else []
        await compared(blocks, tail, rng)
    if kind is in_order:
        assert settled > 10


async def compared(blocks: Any, tail: list[Point], rng: random.Random) -> None:
    every = await blocks.find({}, sort=[("_id", 1)]).to_list()
    settled = [unpack(block) for block in every if not is_open(block["_id"])]
    assert all(len(points) == 8 for points in settled)
    assert all(step_order(one[-1]) < step_order(next_one[0]) for one, next_one in pairwise(settled))
    whole = Curve(every, tail)
    expected = [whole[index] for index in range(len(whole))]
    assert {p[:2] for p in expected} == {p[:2] for b in every for p in unpack(b)} | {p[:2] for p in tail}
    assert same(expected) == same(
        sorted(
            distinct(
                [p for s in settled for p in s]
                + [p for block in every if is_open(block["_id"]) for p in unpack(block)]
                + tail
            ),
            key=step_order,
        )
    )
    curve = await curves.read_curve(blocks, HEAD, tail)
    assert len(curve) == len(expected)
    assert same(await curve.points(range(len(curve)))) == same(expected)
    for _ in range(3):
        first, last = sorted((rng.randrange(-20, 2100), rng.randrange(-20, 2100)))
        steps = sorted({rng.randrange(-10, 60), rng.randrange(2000), first})
        wanted = [(first, last), *((step, step) for step in steps)]
        curve = await curves.read_curve(blocks, HEAD, tail)
        found = await curve.between(wanted)
        assert [*map(list, found)] == [list(whole.between(*each)) for each in wanted]
        chosen = evenly(found[0], rng.randrange(1, 9))
        assert same(await curve.points(chosen)) == same([whole[index] for index in chosen])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "is_even"), [(in_order, True), (with_few_missing, True), (slow_at_first, False)]
)
async def test_blocks_of_steps_that_rise_evenly_are_read_at_once(
    store: MongoDBStore, kind: Callable[[random.Random, int], list[Point]], is_even: bool
) -> None:
    await store.search_experiments(max_results=1)
    blocks = store.database.collection(MetricBlockFields)
    await blocks.delete_many({})
    points = kind(random.Random(1), 800)
    for start in range(0, len(points), 25):
        await blocks.insert_one(pack(RUN, KEY, points[start : start + 25]))
        await settle(blocks, HEAD)
    curve = await curves.read_curve(blocks, HEAD, [])
    assert isinstance(curve, SettledCurve)
    reads: list[tuple[bool, int]] = []
    read = SettledCurve._read

    async def counted(curve: SettledCurve, numbers: Any, fields: dict[str, int]) -> Any:
        if numbers:
            reads.append(("data" in fields, len(numbers)))
        return await read(curve, numbers, fields)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SettledCurve, "_read", counted)
        # The middle of every third block of 8 points.
        wanted = [point for place, point in enumerate(points[:780]) if place % 24 == 4]
        found = await curve.between([(step, step) for _, step, _ in wanted])
        assert await curve.points(number for numbers in found for number in numbers) == wanted
    # One of them was among those that were read to begin with.
    assert reads[-1] == (True, len(wanted) - 1)
    assert not any(has_points for has_points, _ in reads[:-1])
    assert (len(reads) == 1) is is_even


@pytest.mark.usefixtures("small")
async def test_a_point_that_is_no_number_is_there_once(store: MongoDBStore) -> None:
    """The last settled point logged again: NaN equals nothing, but as a point itself."""
    await store.search_experiments(max_results=1)
    blocks = store.database.collection(MetricBlockFields)
    await blocks.delete_many({})
    points = [(1000 + step, step, float("nan")) for step in range(4 * 8)]
    await blocks.insert_one(pack(RUN, KEY, points))
    assert len((await settle(blocks, HEAD)).written) == 4
    again = [(time, step, float("nan")) for time, step, _ in points[-1:]]
    await blocks.insert_one(pack(RUN, KEY, [*again, (2000, 2000, 1.0)]))
    curve = await curves.read_curve(blocks, HEAD, again)
    assert isinstance(curve, SettledCurve)
    assert same(await curve.points(range(len(curve)))) == same([*points, (2000, 2000, 1.0)])
