"""Wide steps, which wait in places, are told when they come, and once; whatever becomes of the places."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, RunStatus, RunTag

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics.documents import SETTLED_POINTS, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE, ROWS
from genesis_flow.areas.metrics.wide import WIDE_FROM, fold
from genesis_flow.documents.keys import is_open
from genesis_flow.documents.plain import Document
from genesis_flow.watching import Event, MetricLogged, RunFound
from tests.client.conftest import PATIENCE_SECONDS
from tests.watch.conftest import Points, log, logs, new_run, points_of, stored, tags, until
from tests.watch.test_restart import begin_watcher, told

NAMES = [f"m{number:02}" for number in range(WIDE_FROM)]
LAST = "z last"
OTHERS = [f"n{number:02}" for number in range(WIDE_FROM)]


def step(number: int, names: list[str]) -> list[Metric]:
    return [Metric(name, number + index, 1_000 + number, number) for index, name in enumerate(names)]


async def wide(store: MongoDBStore, run_id: str, steps: range, names: list[str] = NAMES) -> None:
    for number in steps:
        await store.log_batch(run_id, step(number, names))


async def end(store: MongoDBStore, run_id: str) -> None:
    await store.update_run_info(run_id, RunStatus.FINISHED, 99, None)


async def places(store: MongoDBStore) -> list[Document]:
    return list(await store.database.everywhere(MetricHeadFields).find({"key": PLACE}).to_list())


def same(told: Points, expected: Points) -> None:
    assert {point: count for point, count in told.items() if count != 1} == {}
    assert set(told) == set(expected)


def logged(events: list[Event], key: str = NAMES[1]) -> list[list[int]]:
    return [
        [point.step for point in event.points]
        for event in events
        if isinstance(event, MetricLogged) and event.key == key
    ]


def finds(run_id: str) -> Callable[[Event], bool]:
    """Whether an event tells of a run that was there: the state is read then."""
    return lambda event: isinstance(event, RunFound) and event.run_id == run_id


async def test_a_step_is_told_when_it_comes(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    async with store.watch(run_ids=[run_id]) as watch:
        await until(watch, finds(run_id))
        for number in range(5):
            await wide(store, run_id, range(number, number + 1))
            events = await until(watch, logs(NAMES[-1]))
            assert [event.key for event in events if isinstance(event, MetricLogged)] == NAMES
            assert logged(events) == [[number]]
    (place,) = await places(store)
    assert len(place["rows"]) == 4, "the first step made the metrics"


async def test_folds_and_ends_of_runs_tell_nothing(store: MongoDBStore) -> None:
    """Narrow points and another writer of the same metrics between, and places that get more metrics."""
    run_id = await new_run(store)
    async with store.watch(run_ids=[run_id]) as watch, MongoDBStore(store.settings.store_uri) as other:
        await until(watch, finds(run_id))
        for begin in range(0, 3 * ROWS, ROWS // 2):
            await wide(store, run_id, range(begin, begin + ROWS // 4))
            await log(store, run_id, NAMES[1], range(10_000 + begin, 10_010 + begin))
            await wide(other, run_id, range(begin + ROWS // 4, begin + ROWS // 2))
            await wide(other, run_id, range(begin, begin + 3), NAMES[:-3] + OTHERS[:5])
            await log(other, run_id, OTHERS[1], range(20_000 + begin, 20_001 + begin))
        await end(store, run_id)
        await wide(other, run_id, range(5_000, 5_010), [*NAMES, *OTHERS[:5]])
        await end(other, run_id)
        await log(store, run_id, LAST, [1])
        events = await until(watch, logs(LAST))
        assert await places(store) == []
        told = points_of(events)
        again = {key for key, count in told.items() if count > 1}
        # Steps of some metrics that were logged twice, in two rows.
        assert {key[1] for key in again} <= {*NAMES[:-3], *OTHERS[:5]}
        assert {key[3] for key in again} <= {each + begin for begin in range(0, 384, 64) for each in range(3)}
        assert set(told) == set(await stored(store, run_id, *NAMES, *OTHERS[:5], LAST))


async def test_narrow_points_while_a_place_is_folded(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    async with store.watch(run_ids=[run_id]) as watch:
        await until(watch, finds(run_id))

        async def narrow(key: str) -> None:
            await log(store, run_id, key, range(10_000, 10_200))

        async def folds() -> None:
            for number in range(1, 60):
                await wide(store, run_id, range(number * 4, number * 4 + 4))
                for place in await places(store):
                    await fold(store.database, place["_id"])

        await wide(store, run_id, range(4))
        await asyncio.gather(folds(), *map(narrow, NAMES[:4]))
        await log(store, run_id, LAST, [1])
        told = points_of(await until(watch, logs(LAST)))
    same(told, await stored(store, run_id, *NAMES, LAST))


async def test_a_row_that_is_sent_twice_is_told_once(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await wide(store, run_id, range(3))
    heads = store.database.everywhere(MetricHeadFields)
    async with store.watch(run_ids=[run_id]) as watch:
        await until(watch, logs(NAMES[-1]))
        await wide(store, run_id, range(3, 5))
        (place,) = await places(store)
        for row in (place["rows"][-1], place["rows"][0]):
            await heads.update_one({"_id": place["_id"]}, {"$push": {"rows": row}})
        await fold(store.database, place["_id"])
        await heads.update_one({"_id": place["_id"]}, {"$push": {"rows": place["rows"][-1]}})
        await log(store, run_id, LAST, [1])
        events = await until(watch, logs(LAST))
    assert logged(events) == [[3], [4]]
    async with store.watch(run_ids=[run_id]) as watch:
        same(points_of(await until(watch, logs(LAST))), await stored(store, run_id, LAST, *NAMES))


async def test_blocks_that_settle_tell_nothing(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    async with store.watch(run_ids=[run_id]) as watch:
        await until(watch, finds(run_id))
        begin = 0
        while begin < SETTLED_POINTS + 300:
            many = [Metric("many", float(each), each, each) for each in range(begin, begin + 90)]
            await store.log_batch(run_id, many)
            await log(store, run_id, "many", range(begin + 90, begin + 110))
            begin += 110
        await log(store, run_id, "tails", range(2 * SETTLED_POINTS + 100))
        await log(store, run_id, LAST, [1])
        events = await until(watch, logs(LAST))
    blocks = await store.database.everywhere(MetricBlockFields).find().to_list()
    assert {block["_id"].split("|")[1] for block in blocks if not is_open(block["_id"])} == {"many", "tails"}
    same(points_of(events), await stored(store, run_id, "many", "tails", LAST))


async def test_a_watch_that_begins_while_steps_come(store: MongoDBStore) -> None:
    run_ids = [await new_run(store, f"run {number}") for number in range(3)]

    async def write(run_id: str) -> None:
        for number in range(150):
            await wide(store, run_id, range(number, number + 1))
            if number % 50 == 49:
                await end(store, run_id)
            await log(store, run_id, NAMES[0], [10_000 + number])

    async def watch(delay: float) -> None:
        await asyncio.sleep(delay)
        async with store.watch(experiment_ids=["0"]) as watching:
            events = await until(watching, tags("over", "yes"))
        expected = [await stored(store, run_id, *NAMES) for run_id in run_ids]
        same(points_of(events), sum(expected, Counter()))

    watching = [asyncio.create_task(watch(number * 0.15)) for number in range(12)]
    await asyncio.gather(*map(write, run_ids))
    await asyncio.sleep(1)
    await store.set_tag(run_ids[0], RunTag("over", "yes"))
    await asyncio.gather(*watching)


async def nothing(_store: MongoDBStore, _run_id: str) -> None:
    """The rows wait still."""


async def fold_places(store: MongoDBStore, _run_id: str) -> None:
    for place in await places(store):
        await fold(store.database, place["_id"])


@pytest.mark.parametrize("then", [nothing, fold_places, end])
async def test_behind_every_token_comes_what_came(
    store: MongoDBStore, store_uri: str, then: Callable[[MongoDBStore, str], Any]
) -> None:
    """Also if the places that had it are empty, or gone."""
    run_id = await new_run(store)
    await wide(store, run_id, range(3))
    first = store.watch(experiment_ids=["0"])
    events = await until(first, logs(NAMES[-1]))
    await wide(store, run_id, range(3, 6))
    await wide(store, run_id, range(2), [*NAMES[:5], *OTHERS])
    await wide(store, run_id, range(2, 4), [*NAMES[:5], *OTHERS])
    await fold_places(store, run_id)
    await wide(store, run_id, range(6, 8))
    await then(store, run_id)
    await log(store, run_id, LAST, [1])
    events += await until(first, logs(LAST))
    await first.close()
    shown = [event.to_json(with_token=False) for event in events]
    for index in range(0, len(events) - 1, 5):
        async with MongoDBStore(store_uri) as again:
            watch = again.watch(experiment_ids=["0"], after=events[index].token)
            await watch.begin()
            assert watch.token == events[index].token
            await store.set_tag(run_id, RunTag("end", str(index)))
            came = await until(watch, tags("end", str(index)))
            came = [event for event in came if "end" not in getattr(event, "tags", {})]
            if index > len(NAMES):  # else it is told in another way what was there
                assert [each.to_json(with_token=False) for each in came] == shown[index + 1 :], index
            else:
                assert set(points_of(came)) == set(points_of(events[index + 1 :])), index
            await watch.close()


async def test_a_killed_watcher_goes_on_in_the_middle_of_a_step(
    store: MongoDBStore, store_uri: str, tmp_path: Path
) -> None:
    run_id = await new_run(store)
    path = tmp_path / "events"
    path.touch()

    def begin() -> "subprocess.Popen[str]":
        return begin_watcher(store_uri, run_id, path)

    number = 0
    await wide(store, run_id, range(100))
    for life in range(3):
        watcher, before = begin(), len(told(path))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(told(path)) < before + 25 * life + 7:
                assert watcher.poll() is None, watcher.communicate()[1]
                await wide(store, run_id, range(100 + number, 101 + number))
                number += 1
        watcher.kill()
        watcher.communicate()
        path.write_text("".join(json.dumps(each) + "\n" for each in told(path)))
        await wide(store, run_id, range(100 + number, 120 + number))
        number += 20
        await end(store, run_id)
    await log(store, run_id, "last", [1])
    watcher = begin()
    _, errors = await asyncio.to_thread(watcher.communicate, timeout=PATIENCE_SECONDS)
    assert watcher.returncode == 0, errors
    points = Counter(
        (run_id, event["key"], *point)
        for event in told(path)
        if event["event"] == "metric_logged"
        for point in event["points"]
    )
    same(points, await stored(store, run_id, *NAMES, "last"))
