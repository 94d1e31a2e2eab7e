"""Settling beside everything else: killed, raced, read meanwhile; and how much is read of a long curve."""

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric
from pymongo.read_concern import ReadConcern

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics import blocks as in_time
from genesis_flow.areas.metrics import curves, settling
from genesis_flow.areas.metrics.documents import BLOCK_FROM, SETTLE_EVERY, MetricBlockFields
from genesis_flow.areas.metrics.points import identities, step_order, unpack
from genesis_flow.areas.metrics.settling import rising, settle
from genesis_flow.documents.keys import head_id, is_open, settled_block_id
from tests.areas.explain import profiled
from tests.interruption import interrupted

SIZE = 8
ASKED = 20
Points = list[tuple[int, int, float]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few points, so that few points are a long history."""
    for module in (settling, curves):
        monkeypatch.setattr(module, "SETTLED_POINTS", SIZE)
    monkeypatch.setattr(curves, "FEW", 3)
    monkeypatch.setattr(curves, "PROBES", 4)
    monkeypatch.setattr(in_time, "WINDOW", 3)


async def new_run(store: MongoDBStore) -> str:
    return str((await store.create_run("0", "me", 1000, [], "a run")).info.run_id)


async def log(store: MongoDBStore, run: str, points: Points, size: int = BLOCK_FROM) -> None:
    for start in range(0, len(points), size):
        batch = [Metric("m", value, time, step) for time, step, value in points[start : start + size]]
        await store.log_batch(run, batch, [], [])


def straight(count: int, start: int = 0) -> Points:
    return [(1000 + step, step, step / 2) for step in range(start, start + count)]


def plain(metrics: Any) -> Points:
    return [(each.timestamp, each.step, each.value) for each in metrics]


async def history(store: MongoDBStore, run: str) -> Points:
    return plain(await store.get_metric_history(run, "m"))


async def pages(store: MongoDBStore, run: str) -> Points:
    found: Points = []
    token = None
    while True:
        page = await store.get_metric_history(run, "m", 29, token)
        found += plain(page)
        if not (token := page.token):
            return found


async def whole_curve(store: MongoDBStore, run: str) -> Points:
    found = await store.get_metric_history_bulk_interval([run], "m", 10**6, None, None)
    return sorted(plain(found))


async def thinned(store: MongoDBStore, run: str) -> Points:
    return plain(await store.get_metric_history_bulk_interval([run], "m", ASKED, 100, 5000))


async def stored(store: MongoDBStore) -> list[dict[str, Any]]:
    return await store.database.collection(MetricBlockFields).find({}, sort=[("_id", 1)]).to_list()


async def settled(store: MongoDBStore) -> list[dict[str, Any]]:
    return [block for block in await stored(store) if not is_open(block["_id"])]


async def test_blocks_of_batches_and_of_tails_settle_while_points_are_logged(store: MongoDBStore) -> None:
    run = await new_run(store)
    batches = SETTLE_EVERY * BLOCK_FROM
    await log(store, run, straight(batches))
    assert [block["n"] for block in await stored(store)] == [SIZE] * (batches // SIZE)
    await log(store, run, straight(1500, batches), size=BLOCK_FROM // 2)
    found = await settled(store)
    assert [block["_id"] for block in found] == [
        settled_block_id(head_id(run, "m"), number) for number in range(len(found))
    ]
    assert batches // SIZE < len(found) < (batches + 1500) // SIZE
    assert await history(store, run) == await pages(store, run) == straight(batches + 1500)


@pytest.mark.parametrize("read", [history, pages, whole_curve, thinned])
@pytest.mark.parametrize("skip", range(4))
async def test_who_reads_while_blocks_settle_misses_nothing(
    store: MongoDBStore, store_uri: str, read: Callable[..., Any], skip: int
) -> None:
    run = await new_run(store)
    await log(store, run, straight(SETTLE_EVERY * BLOCK_FROM))
    points = straight((2 * SETTLE_EVERY - 1) * BLOCK_FROM)
    await log(store, run, points[SETTLE_EVERY * BLOCK_FROM :])
    expected, before = await read(store, run), len(await settled(store))
    assert len(await stored(store)) - before == SETTLE_EVERY - 1

    async def settled_by_another() -> None:
        async with pymongo.AsyncMongoClient[dict[str, Any]](store_uri) as client:
            await settle(client.get_default_database()["metrics"], head_id(run, "m"))

    def act() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(settled_by_another()))
        thread.start()
        thread.join()

    try:
        with interrupted("find", "metrics", act, skip=skip):
            assert await read(store, run) == expected
    except AssertionError as error:
        if "no find of metrics was sent" not in str(error):
            raise
        assert skip > 0, "a history with blocks reads them"
    else:
        assert len(await settled(store)) > before
    assert await read(store, run) == expected


async def test_metrics_that_are_packed_together_settle_one_after_the_other(store: MongoDBStore) -> None:
    run = await new_run(store)
    keys = [f"metric {number}" for number in range(40)]
    settled_at: dict[int, int] = {}
    before = 0
    for batch in range(2 * SETTLE_EVERY):
        for first in range(0, len(keys), 10):
            points = [
                Metric(key, 0.5, step, step)
                for key in keys[first : first + 10]
                for step in range(batch * BLOCK_FROM, (batch + 1) * BLOCK_FROM)
            ]
            await store.log_batch(run, points, [], [])
        heads = {block["_id"].rpartition("|")[0] for block in await settled(store)}
        settled_at[batch] = len(heads) - before
        before = len(heads)
    assert sum(settled_at.values()) == len(keys)
    assert max(settled_at.values()) < len(keys) / 2


async def test_what_a_killed_settler_left_is_removed_by_the_next(store: MongoDBStore) -> None:
    run = await new_run(store)
    points = straight((SETTLE_EVERY - 1) * BLOCK_FROM)
    await log(store, run, points)
    opened = await stored(store)
    blocks = store.database.collection(MetricBlockFields)
    await settle(blocks, head_id(run, "m"))
    after = await stored(store)
    assert after
    assert not any(is_open(block["_id"]) for block in after)
    await blocks.insert_many(opened)
    assert await history(store, run) == await whole_curve(store, run) == points
    await settle(blocks, head_id(run, "m"))
    left = [block for block in await stored(store) if is_open(block["_id"])]
    # It looks at the last settled blocks only; what is older stays, and is there once for readers.
    assert len(left) < len(opened)
    assert await settled(store) == after
    assert await history(store, run) == await whole_curve(store, run) == points


async def test_of_many_settlers_at_once_each_block_has_one(store: MongoDBStore) -> None:
    run = await new_run(store)
    expected: Points = []
    blocks = store.database.collection(MetricBlockFields)
    for attempt in range(10):
        points = straight(5 * BLOCK_FROM + attempt, len(expected))
        expected += points
        writes = [log(store, run, points[start::3], 10**6) for start in range(3)]
        await asyncio.gather(*writes, *(settle(blocks, head_id(run, "m")) for _ in range(4)))
    await asyncio.gather(*(settle(blocks, head_id(run, "m")) for _ in range(4)))
    found = await settled(store)
    assert len(found) > 100
    assert [block["_id"][-8:] for block in found] == [f"{number:08x}" for number in range(len(found))]
    ordered = [point for block in found for point in unpack(block)]
    assert ordered == sorted(set(ordered), key=step_order)
    assert await history(store, run) == await pages(store, run) == expected
    assert await whole_curve(store, run) == expected


async def test_a_deleted_run_leaves_no_settled_block(store: MongoDBStore, store_uri: str) -> None:
    run = await new_run(store)
    await log(store, run, straight((SETTLE_EVERY - 1) * BLOCK_FROM))

    async def deleted_by_another() -> None:
        other = MongoDBStore(store_uri, "/tmp/artifacts")
        await other.delete_run(run)
        await other._hard_delete_run(run)
        await other.close()

    def act() -> None:
        thread = threading.Thread(target=lambda: asyncio.run(deleted_by_another()))
        thread.start()
        thread.join()

    with interrupted("insert", "metrics", act):
        await log(store, run, straight(BLOCK_FROM, 10_000))
    assert await stored(store) == []


async def test_pages_of_many_open_blocks_beside_settled_ones(store: MongoDBStore) -> None:
    rng = random.Random(11)
    run = await new_run(store)
    await log(store, run, straight(SETTLE_EVERY * BLOCK_FROM))
    late = [(rng.randrange(900, 2500), rng.randrange(700), 0.25) for _ in range(20 * BLOCK_FROM)]
    late += [(1200, step, 0.75) for step in range(6 * BLOCK_FROM)]
    await log(store, run, late)
    expected = sorted({*straight(SETTLE_EVERY * BLOCK_FROM), *late})
    assert await settled(store)
    assert sum(is_open(block["_id"]) for block in await stored(store)) > 10
    assert await pages(store, run) == await history(store, run) == expected
    assert await whole_curve(store, run) == expected


@pytest.mark.parametrize("late", [False, True])
async def test_any_zoom_reads_a_bounded_number_of_documents(store: MongoDBStore, late: bool) -> None:
    """Of a history eight times as long not more, but for the logarithm of a search for steps."""
    read: list[list[int]] = []
    for length in (2 * SETTLE_EVERY * BLOCK_FROM, 16 * SETTLE_EVERY * BLOCK_FROM):
        run = await new_run(store)
        await log(store, run, straight(length))
        if late:
            await log(store, run, [(9000, length // 2 + step, -1.0) for step in range(BLOCK_FROM)])
        assert len(await settled(store)) >= length // SIZE
        counts = []
        zooms = [(None, None), (length // 4, length // 2), (length - 40, length), (7, 7), (-5, -3)]
        for first, last in zooms:
            async with profiled(store.database) as queries:
                await store.get_metric_history_bulk_interval([run], "m", ASKED, first, last)
            asked = [query for query in queries if query.collection == "metrics"]
            assert asked
            assert not any(query.scans_collection or query.blocking_sort for query in asked)
            counts.append(sum(query.documents for query in asked))
        async with profiled(store.database) as queries:
            steps = [*range(0, length, length // ASKED)]
            found = await store.get_metric_history_bulk_interval_from_steps(run, "m", steps, 100)
        assert {each.step for each in found} == set(steps)
        counts.append(sum(query.documents for query in queries if query.collection == "metrics"))
        read.append(counts)
        await store.database.collection(MetricBlockFields).delete_many({})
    short, long = read
    # A block for a point, both ends of steps, the open blocks, the last one, and what lies under late points.
    most = ASKED + 2 + curves.FEW + 1 + (BLOCK_FROM // SIZE + 3 if late else 0)
    # How many ends of steps are looked for, each in rounds that grow as the logarithm.
    ends = [0, 2, 2, 2, 2, 2 * len(steps)]
    for less, more, looked_for in zip(short, long, ends, strict=True):
        looked_for += 2 * late
        assert more <= less + 2 * curves.PROBES * looked_for
        assert more <= most + len(steps) + 8 * curves.PROBES * looked_for


def test_a_point_out_of_place_costs_one_point() -> None:
    points = straight(50)
    for place in (0, 20, 49):
        for step in (10**6, -1):
            spoiled = [*points]
            spoiled[place] = (points[place][0], step, 0.0)
            found = rising(spoiled)
            assert found == sorted(found, key=step_order)
            assert len(found) >= 49
    assert rising([]) == []


async def test_the_end_is_read_as_no_failover_takes_it_away(store: MongoDBStore) -> None:
    run = await new_run(store)
    await log(store, run, straight((SETTLE_EVERY - 1) * BLOCK_FROM))
    blocks = store.database.collection(MetricBlockFields)
    seen: list[Any] = []

    class Watched:
        def with_options(self, **options: Any) -> Any:
            seen.append(options)
            return blocks.with_options(**options)

        def __getattr__(self, name: str) -> Any:
            return getattr(blocks, name)

    await settle(Watched(), head_id(run, "m"))  # type: ignore[arg-type]
    assert seen == [{"read_concern": ReadConcern("majority")}]
    assert identities(p for block in await settled(store) for p in unpack(block))
