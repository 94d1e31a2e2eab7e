"""Where the time of one log_metric goes: bridge, driver, our own code, server, acknowledgement.

    python benchmarks/breakdown.py
    TMPDIR=/dev/shm python benchmarks/breakdown.py      # the server's files in memory: no disk

Every way takes turns with the others, in one process, on one mongod, with majority writes:

- "find": one read by PyMongo, which waits for no disk: the wire and the driver.
- "update": one write by PyMongo; what it takes beyond the find is the server's work and the acknowledgement.
- "update after a pause": the same 2 ms after the one before, for which the client works. On many disks a
  write that does not follow the one before at once is acknowledged later, whoever sends it.
- "our update": PyMongo sends what log_metric sends.
- "async update" and "aio log_metric": PyMongo's asynchronous client, and the asynchronous store on it.
- "bridge": a call that does nothing on the event loop's thread, and "log_metric by the loop" such a call with
  the asynchronous store: the way of blocking calls that are not direct (ADR 22).
- "our code": log_metric of a blocking store whose update is answered at once and never sent.
- "log_metric": the blocking store, whose caller's thread sends the update, back to back.
- "log_metric after a pause": as a training step calls it, which is how side_by_side.py times single calls.
"""

import argparse
import asyncio
import copy
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pymongo
from mlflow.entities import Metric
from pauses import STEP, work

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.documents.keys import head_id
from genesis_flow.stores.joined import AsyncTrackingStore
from genesis_flow.sync.portal import portal
from tests.mongod import Mongod, running_mongod

KEY = "loss"


class Clock:
    """Times of calls and the client's CPU, by way."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.times: dict[str, list[float]] = {}
        self.cpu: dict[str, float] = {}

    def turn(self, way: str, call: Callable[[], object], pause: float = 0.0) -> None:
        call()
        cpu = 0.0
        for _ in range(self.calls):
            work(pause)
            before, began = time.process_time(), time.perf_counter()
            call()
            self.times.setdefault(way, []).append(time.perf_counter() - began)
            cpu += time.process_time() - before
        self.cpu[way] = self.cpu.get(way, 0.0) + cpu

    async def async_turn(self, way: str, call: Callable[[], Awaitable[object]]) -> None:
        await call()
        before = time.process_time()
        for _ in range(self.calls):
            began = time.perf_counter()
            await call()
            self.times.setdefault(way, []).append(time.perf_counter() - began)
        self.cpu[way] = self.cpu.get(way, 0.0) + time.process_time() - before

    def report(self) -> str:
        lines = [f"{'ms':24} {'p10':>7} {'p50':>7} {'p90':>7} {'CPU':>7}"]
        for way, times in self.times.items():
            ordered = sorted(times)
            parts = [ordered[int(len(ordered) * part)] for part in (0.1, 0.5, 0.9)]
            shown = " ".join(f"{each * 1e3:7.3f}" for each in [*parts, self.cpu[way] / len(times)])
            lines.append(f"{way:24} {shown}")
        return "\n".join(lines)


async def _nothing() -> None:
    return None


class Points:
    """A point that was not there yet, for each call."""

    def __init__(self) -> None:
        self.step = 0

    def metric(self) -> Metric:
        self.step += 1
        return Metric(KEY, random.random(), self.step, self.step)

    def update(self) -> dict[str, Any]:
        point = self.metric()
        latest = {"step": point.step, "timestamp": point.timestamp, "value": point.value}
        tail = [point.timestamp, point.step, point.value]
        return {"$max": {"latest": latest}, "$addToSet": {"tail": {"$each": [tail]}}}


class Answered:
    """A collection whose updates are done before they are sent."""

    matched_count = 1

    def update_one(self, *_: object) -> "Answered":
        return self


def idle_store(uri: str, run: str) -> MongoDBStore:
    """A store whose log_metric sends nothing."""
    store = MongoDBStore(uri)
    for step in range(2):  # the first point takes more than an update
        store.log_metric(run, Metric(KEY, 1.0, step, 0))
    async_store: Any = store._store()
    # A copy: the database of the other stores of this process is the same one.
    async_store._database = copy.copy(async_store._database)
    async_store._database._blocking = {MetricHeadFields: Answered()}
    return store


def measure(server: Mongod, rounds: int, calls: int) -> str:
    uri = server.database_uri("breakdown")
    store, async_store = MongoDBStore(uri), AsyncStore(uri)
    experiment = store.create_experiment("breakdown")
    runs = [
        store.create_run(experiment, "me", 1, [], name).info.run_id
        for name in ("bare", "sync", "async", "steps", "loop")
    ]
    for run in runs:
        store.log_metric(run, Metric(KEY, 1.0, 0, 0))
    idle = idle_store(uri, runs[1])
    clock, points, loop = Clock(calls), Points(), asyncio.new_event_loop()
    acknowledged: dict[str, Any] = {"w": "majority"}
    with pymongo.MongoClient[dict[str, Any]](uri, **acknowledged) as client:
        heads, plain = client["breakdown"]["latest_metrics"], client["breakdown"]["plain"]
        plain.insert_one({"_id": 1, "value": 0.0})

        async def asynchronously() -> None:
            async with pymongo.AsyncMongoClient[dict[str, Any]](uri, **acknowledged) as async_client:
                there = async_client["breakdown"]["plain"]
                await clock.async_turn("async update", lambda: there.update_one({"_id": 1}, _change()))
            await clock.async_turn("aio log_metric", lambda: async_store.log_metric(runs[2], points.metric()))

        for _ in range(rounds):
            # As a store would pack a tail that has grown long.
            heads.update_many({"_id": {"$in": [head_id(run, KEY) for run in runs]}}, {"$set": {"tail": []}})
            clock.turn("find", lambda: plain.find_one({"_id": 1}))
            clock.turn("update", lambda: plain.update_one({"_id": 1}, _change()))
            clock.turn("update after a pause", lambda: plain.update_one({"_id": 1}, _change()), STEP)
            clock.turn(
                "our update", lambda: heads.update_one({"_id": head_id(runs[0], KEY)}, points.update())
            )
            loop.run_until_complete(asynchronously())
            clock.turn("our code", lambda: idle.log_metric(runs[1], points.metric()))
            clock.turn("log_metric", lambda: store.log_metric(runs[1], points.metric()))
            clock.turn("log_metric after a pause", lambda: store.log_metric(runs[3], points.metric()), STEP)
            clock.turn("bridge", lambda: portal.run(_nothing, 60))
            clock.turn(
                "log_metric by the loop",
                lambda: store._run(AsyncTrackingStore.log_metric, runs[4], points.metric()),
            )
        loop.run_until_complete(async_store.close())
        store.close()
        idle.close()
    return clock.report()


def _change() -> dict[str, Any]:
    return {"$set": {"value": random.random()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns of each way (10)")
    parser.add_argument("--calls", type=int, default=60, help="calls in a turn (60)")
    options = parser.parse_args()
    with running_mongod() as server:
        print(measure(server, options.rounds, options.calls))


if __name__ == "__main__":
    main()
