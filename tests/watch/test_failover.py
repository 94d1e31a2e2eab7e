"""A primary steps down, and one is killed, while watchers read and a writer logs."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric
from pymongo.errors import PyMongoError

from genesis_flow.aio import MongoDBStore
from genesis_flow.watching import Event
from tests.mongod import unique
from tests.trust.cluster import ReplicaSet, running_replica_set
from tests.watch.conftest import logs, new_run, points_of, stored, until

WATCHERS = 100


@pytest.fixture(scope="module")
def cluster() -> Iterator[ReplicaSet]:
    with running_replica_set() as running:
        yield running


def step_down(cluster: ReplicaSet) -> None:
    with (
        pymongo.MongoClient[dict[str, Any]](cluster.wait_for_primary().uri) as client,
        contextlib.suppress(PyMongoError),
    ):
        client.admin.command("replSetStepDown", 5, secondaryCatchUpPeriodSecs=2)
    cluster.wait_for_primary()


def kill(cluster: ReplicaSet) -> None:
    cluster.wait_for_primary().kill()
    cluster.wait_for_primary()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fall", [step_down, kill])
async def test_watchers_miss_nothing_and_hear_nothing_twice(cluster: ReplicaSet, fall: object) -> None:
    await asyncio.to_thread(cluster.bring_back)
    store = MongoDBStore(cluster.database_uri(unique("watch")))
    run_id = await new_run(store)
    watches = [store.watch(run_ids=[run_id]) for _ in range(WATCHERS)]

    async def read(number: int) -> list[Event]:
        return await until(watches[number], logs("last"))

    reading = [asyncio.create_task(read(number)) for number in range(WATCHERS)]
    over = asyncio.Event()

    async def write() -> None:
        step, after = 0, 0
        while after < 20:
            await store.log_metric(run_id, Metric("loss", float(step), step, step))
            await asyncio.sleep(0.01)
            step += 1
            after += over.is_set()
        await store.log_metric(run_id, Metric("last", 1.0, 1, 1))

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(fall, cluster)  # type: ignore[arg-type]
    over.set()
    await writing
    expected = await stored(store, run_id, "loss", "last")
    for events in await asyncio.gather(*reading):
        assert points_of(events) == expected
    await store.close()
