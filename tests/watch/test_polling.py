"""Servers that stream no changes are asked again and again."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics.places import ROWS
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.watching import RunChanged, RunCreated, RunDeleted, RunFound
from tests.mongod import Mongod, unique
from tests.watch.conftest import log, logs, new_run, points_of, stored, until


@pytest.fixture(params=["standalone", "portable"])
def store_uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server without replication; and one that is spoken to as to Azure Cosmos DB."""
    if request.param == "portable":
        monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")
    monkeypatch.setenv("GENESIS_FLOW_WATCH_INTERVAL", "0.05")
    server: Mongod = request.getfixturevalue("mongod" if request.param == "portable" else "standalone")
    name = unique("watch")
    yield server.database_uri(name)
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
        client.drop_database(name)


async def test_each_point_once(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, "loss", range(150))
    watch = store.watch(experiment_ids=["0"])
    events = await until(watch, logs("loss"))
    assert isinstance(events[0], RunFound)
    await log(store, run_id, "loss", range(150, 420))
    await store.log_batch(run_id, [Metric("many", float(each), each, each) for each in range(100)])
    await log(store, run_id, "z last", [1])
    events += await until(watch, logs("z last"))
    assert points_of(events) == await stored(store, run_id, "loss", "many", "z last")
    await watch.close()


async def test_wide_steps_and_blocks_that_settle(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    names = [f"m{number:02}" for number in range(WIDE_FROM)]
    watch = store.watch(experiment_ids=["0"])
    events = await until(watch, lambda event: isinstance(event, RunFound))
    reading = asyncio.create_task(until(watch, logs("z last")))
    for begin in range(0, 15 * ROWS, ROWS):
        for step in range(begin, begin + 9):
            await store.log_batch(run_id, [Metric(name, float(step), step, step) for name in names])
        many = [Metric(names[0], float(step), step, step) for step in range(begin + 9, begin + ROWS)]
        await store.log_batch(run_id, many)
        await asyncio.sleep(0.02)
    await store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    await log(store, run_id, "z last", [1])
    told = points_of(events + await reading)
    expected = await stored(store, run_id, *names, "z last")
    assert {point: count for point, count in told.items() if count > 1} == {}
    assert set(told) == set(expected)
    await watch.close()


async def test_runs_that_change(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    watch = store.watch(experiment_ids=["0"], start="now")
    await watch.begin()
    other = ""
    other = await new_run(store, "other")
    event = await anext(watch)
    assert isinstance(event, RunCreated)
    assert event.run_id == other
    await store.log_batch(run_id, [], [Param("p", "1")], [RunTag("t", "2")])
    await store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    params: dict[str, str | None] = {}
    status = None
    while status is None:
        event = await anext(watch)
        assert isinstance(event, RunChanged)
        assert event.token is None
        status = event.status
        params |= event.params
    assert (status, params) == ("FINISHED", {"p": "1"})
    await store.delete_run(other)
    await store._hard_delete_run(other)
    events = await until(watch, lambda event: isinstance(event, RunDeleted))
    assert events[-1].run_id == other
    with pytest.raises(MlflowException, match="keeps no history of changes"):
        await store.watch(run_ids=[run_id], after="x").begin()
    await watch.close()
