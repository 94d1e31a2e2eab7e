"""One change stream for all watchers of a process; what happens to it, and to those who read late."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore as BlockingStore
from genesis_flow.aio import MongoDBStore
from genesis_flow.watching import MetricLogged, RunFound, Watch, hub
from genesis_flow.watching.hub import Hub
from tests.faults import failing
from tests.mongod import Mongod
from tests.trust.test_connections import settle
from tests.watch.conftest import PATIENCE, log, logs, new_run, points_of, stored, tags, until

WATCHERS = 100


@pytest.fixture
def app(database_name: str) -> str:
    return f"watch_{database_name}"


@pytest.fixture
def store_uri(fresh_uri: str, app: str) -> str:
    """A client that the server knows by its name."""
    return f"{fresh_uri}&appname={app}"


def streams(mongod: Mongod, app: str) -> int:
    """How many change streams a client of this name has open on the server."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        everything = {"$currentOp": {"allUsers": True, "idleCursors": True}}
        found = client.admin.aggregate([everything, {"$match": {"appName": app}}])
        return len(
            {
                each["cursor"]["cursorId"]
                for each in found
                if "$changeStream" in str(each.get("cursor", {}).get("originatingCommand", {}))
            }
        )


async def streams_are(number: int, mongod: Mongod, app: str) -> None:
    """A cursor that is taken up while the server makes its list may be missing from that."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(streams, mongod, app) != number:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def test_a_hundred_watchers_share_a_stream(mongod: Mongod, store: MongoDBStore, app: str) -> None:
    runs = [await new_run(store, f"run {number}") for number in range(10)]
    watches = [store.watch(run_ids=[runs[number % 10]]) for number in range(WATCHERS - 1)]
    watches.append(store.watch(experiment_ids=["0"]))
    reading = [asyncio.create_task(until(watch, logs("last"))) for watch in watches[:-1]]
    await asyncio.gather(*(watch.begin() for watch in watches))
    for run_id in runs:
        await log(store, run_id, "loss", range(20))
    await streams_are(1, mongod, app)
    for run_id in runs:
        await log(store, run_id, "last", [1])
    for number, events in enumerate(await asyncio.gather(*reading)):
        assert points_of(events) == await stored(store, runs[number % 10], "loss", "last")
    assert len(points_of(await until(watches[-1], lambda event: event.run_id == runs[-1]))) > 0
    for watch in watches[1:]:
        await watch.close()
    await streams_are(1, mongod, app)
    await watches[0].close()
    await streams_are(0, mongod, app)


async def test_who_reads_late_misses_nothing_and_costs_nothing(
    store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_KEPT", 20)
    run_id = await new_run(store)
    quick, late = store.watch(run_ids=[run_id]), store.watch(run_ids=[run_id])
    for watch in (quick, late):
        await until(watch, lambda event: event.run_id == run_id)
    reading = asyncio.create_task(until(quick, logs("last")))
    await log(store, run_id, "loss", range(300))
    await log(store, run_id, "last", [1])
    expected = await stored(store, run_id, "loss", "last")
    assert points_of(await reading) == expected
    kept = store.database.kept[Hub]
    assert len(kept._changes) <= 20
    assert points_of(await until(late, logs("last"))) == expected
    await log(store, run_id, "again", [1])
    for watch in (quick, late):
        await until(watch, logs("again"))
    assert late._source._own is None, "it is back on the stream of all"  # type: ignore[union-attr]


@pytest.mark.parametrize("how", [{"closeConnection": True}, {"errorCode": 43}])
async def test_a_stream_that_breaks_off_goes_on(
    mongod: Mongod, store: MongoDBStore, app: str, how: dict[str, Any]
) -> None:
    run_id = await new_run(store)
    watch = store.watch(run_ids=[run_id])
    await until(watch, lambda event: event.run_id == run_id)
    reading = asyncio.create_task(until(watch, logs("last")))
    for begin in (0, 50, 100):
        with failing(mongod.uri, "getMore", times=3, app=app, **how):
            await log(store, run_id, "loss", range(begin, begin + 50))
    await log(store, run_id, "last", [1])
    assert points_of(await reading) == await stored(store, run_id, "loss", "last")


async def test_a_state_that_takes_too_long_is_read_at_a_later_moment(
    mongod: Mongod, store: MongoDBStore, app: str
) -> None:
    run_id = await new_run(store)
    for key in ("a", "b", "c"):
        await log(store, run_id, key, range(150))
    watch = store.watch(run_ids=[run_id])
    events = await until(watch, logs("a"))
    await log(store, run_id, "b", range(150, 300))
    with failing(mongod.uri, "find", times=3, app=app, errorCode=239):
        events += await until(watch, logs("b"))
    await log(store, run_id, "a", range(150, 160))
    await store.set_tag(run_id, RunTag("over", "yes"))
    events += await until(watch, tags("over", "yes"))
    assert points_of(events) == await stored(store, run_id, "a", "b", "c")
    late = store.watch(run_ids=[run_id])
    await late.begin()
    with (
        failing(mongod.uri, "find", times=1000, app=app, errorCode=239),
        pytest.raises(MlflowException, match="Raise minSnapshotHistoryWindowInSeconds"),
    ):
        await anext(late)


async def test_waiting_may_be_given_up(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, "loss", range(150))
    watch, events = store.watch(run_ids=[run_id]), []
    writing = asyncio.create_task(log(store, run_id, "loss", range(150, 300)))
    given_up = 0
    while not writing.done() or given_up < 20:
        try:
            async with asyncio.timeout(0.002):
                events.append(await anext(watch))
        except TimeoutError:
            given_up += 1
    await log(store, run_id, "last", [1])
    events += await until(watch, logs("last"))
    assert points_of(events) == await stored(store, run_id, "loss", "last")


async def test_closing_the_store_ends_its_watches_and_no_others(
    mongod: Mongod, store: MongoDBStore, store_uri: str, app: str
) -> None:
    run_id = await new_run(store)
    other = MongoDBStore(store_uri)
    watches = [store.watch(run_ids=[run_id]), other.watch(run_ids=[run_id])]

    async def read(watch: Watch) -> list[Any]:
        return [event async for event in watch]

    reading = [asyncio.create_task(read(watch)) for watch in watches]
    await asyncio.gather(*(watch.begin() for watch in watches))
    await other.close()
    assert len(await reading[1]) <= 1
    await log(store, run_id, "loss", [1])
    assert not reading[0].done()
    await store.close()
    assert len(await reading[0]) >= 1
    await asyncio.to_thread(settle, mongod, app, 0)


async def test_a_watch_that_is_dropped_ends_the_stream(mongod: Mongod, store: MongoDBStore, app: str) -> None:
    run_id = await new_run(store)
    async for _ in store.watch(run_ids=[run_id]):
        break
    await streams_are(1, mongod, app)
    gc.collect()
    await streams_are(0, mongod, app)


@pytest.fixture
def blocking(store_uri: str) -> Iterator[BlockingStore]:
    made = BlockingStore(store_uri)
    yield made
    made.close()


def test_for_blocking_callers(mongod: Mongod, blocking: BlockingStore, store_uri: str, app: str) -> None:
    run_id = blocking.create_run("0", "me", 1, [], "a run").info.run_id
    with blocking.watch(run_ids=[run_id]) as watch:
        assert isinstance(next(watch), RunFound)
        for step in range(140):
            blocking.log_metric(run_id, Metric("loss", float(step), step, step))
        blocking.set_tag(run_id, RunTag("half", "way"))
        events = []
        for event in watch:
            events.append(event)
            if tags("half", "way")(event):
                break
        token = watch.token
    assert len(points_of(events)) == 140
    blocking.log_metric(run_id, Metric("loss", 140.0, 140, 140))
    again = blocking.watch(run_ids=[run_id], after=token)
    event = next(again)
    assert isinstance(event, MetricLogged)
    assert [tuple(point) for point in event.points] == [(140, 140, 140.0)]
    blocking.close()
    assert list(again) == []
    settle(mongod, app, 0)


async def test_what_is_said_of_what_cannot_be_watched(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    first = store.watch(run_ids=[run_id])
    token = (await anext(first)).token
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "Say what to watch"),
        ({"run_ids": run_id}, "must be a list of ids"),
        ({"run_ids": [1]}, "must be a list of ids of runs"),
        ({"run_ids": [run_id], "start": "later"}, "start must be 'beginning' or 'now'"),
        ({"run_ids": ["0" * 32]}, "Run with id=0+ not found"),
        ({"experiment_ids": ["77"]}, "No Experiment with id=77 exists"),
        ({"run_ids": [run_id], "after": "abc"}, "none of genesis_flow's"),
        ({"experiment_ids": ["0"], "after": token}, "of other runs or experiments"),
    ]
    for how, text in cases:
        with pytest.raises(MlflowException, match=text):
            await store.watch(**how).begin()
