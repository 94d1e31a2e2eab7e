"""A program is killed at every command of wide steps, of opening a place and of folding one.

What was acknowledged is there, once, for every reader; a step is there as a whole or not at all; and
whoever goes on, another program or the doctor, finds nothing in the way.
"""

import asyncio
import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, RunStatus, ViewType
from pymongo import monitoring

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.metrics import places, wide
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.cli.doctor.consistency import inconsistencies
from tests.doctor.helpers import examine
from tests.mongod import Mongod, unique
from tests.trust.soak import SOAK

NAMES = [f"m{number}" for number in range(WIDE_FROM)]
# A place is full after so many rows, which make blocks.
FULL = 3
UPKEEP = {"hello", "isMaster", "ping", "endSessions", "killCursors"}
# Of which commands: in a soak all, else each third, beginning with another one for each kind.
STRIDE = 1 if SOAK else 3


class Killer(monitoring.CommandListener):
    """Kills the process before it sends a command, or when it has the answer."""

    def __init__(self, number: int, answered: bool) -> None:
        self._left = number
        self._answered = answered

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if not self._answered:
            self._count(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if self._answered:
            self._count(event.command_name)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """None is expected to."""

    def _count(self, name: str) -> None:
        if name not in UPKEEP:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def small_places() -> None:
    wide.ROWS = FULL
    places.BLOCK_FROM = FULL


def step(number: int) -> list[Metric]:
    return [Metric(name, number + index, 1_000 + number, number) for index, name in enumerate(NAMES)]


def work(uri: str, run_id: str, journal: str, number: int, answered: bool) -> None:
    """Logs steps, points between them and the end of the run, and notes what was acknowledged."""
    small_places()
    monitoring.register(Killer(number, answered))
    store = MongoDBStore(uri)
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def acknowledged(**what: Any) -> None:
        os.write(file, (json.dumps(what) + "\n").encode())

    for each in range(2 * FULL + 2):
        store.log_batch(run_id, step(each), [], [])
        acknowledged(step=each)
        store.log_metric(run_id, Metric(NAMES[0], -1.0, 5, -each))
        acknowledged(point=-each)
    store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    acknowledged(end=True)


@pytest.fixture(params=["replica set", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    made: Mongod = request.getfixturevalue("mongod" if request.param == "replica set" else "standalone")
    with pymongo.MongoClient[dict[str, Any]](made.uri) as client:
        # The transaction of a program that was killed bars the way until the server ends it.
        limit = {"setParameter": 1, "transactionLifetimeLimitSeconds": 1}
        before = client.admin.command(limit)["was"]
        yield made
        client.admin.command({**limit, "transactionLifetimeLimitSeconds": before})


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("answered", [False, True], ids=["before it is sent", "when it is answered"])
async def test_kills_at_every_command(server: Mongod, tmp_path: Path, answered: bool) -> None:
    small = pytest.MonkeyPatch()
    small.setattr(wide, "ROWS", FULL)
    small.setattr(places, "BLOCK_FROM", FULL)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trust.test_wide_kills"])
    uri = server.database_uri(unique("kills"))
    killed = 0
    try:
        async with AsyncStore(uri) as store:
            for number in itertools.count(int(answered), STRIDE):
                run_id = str((await store.create_run("0", "me", number, [], None)).info.run_id)
                journal = tmp_path / f"{number}.jsonl"
                worker = context.Process(target=work, args=(uri, run_id, str(journal), number, answered))
                worker.start()
                await asyncio.to_thread(worker.join)
                lines = journal.read_text().splitlines() if journal.exists() else []
                told = [json.loads(line) for line in lines]
                await check(store, run_id, told)
                await go_on(store, uri, run_id, told)
                if worker.exitcode == 0:
                    break
                assert worker.exitcode == -signal.SIGKILL
                killed += 1
            assert killed >= 30 // STRIDE
            assert [each async for each in inconsistencies(store.database) if each.visible] == []
            await store.database.client.drop_database(store.settings.database)
    finally:
        small.undo()


async def seen_steps(store: AsyncStore, run_id: str) -> list[list[int]]:
    """The steps of each metric but the first, whose latest value every reader has to see."""
    run = await store.get_run(run_id)
    found = []
    for index, name in list(enumerate(NAMES))[1:]:
        steps = [metric.step for metric in await store.get_metric_history(run_id, name)]
        if steps:
            assert run.data.metrics[name] == steps[-1] + index
        found.append(steps)
    if found[0]:
        clause = f"metrics.m1 = {found[0][-1] + 1} and attributes.run_id = '{run_id}'"
        (same,), _ = await store._search_runs(["0"], clause, ViewType.ALL, 5, ["metrics.m1 DESC"], None)
        assert same.data.metrics == run.data.metrics
    return found


async def check(store: AsyncStore, run_id: str, told: list[dict[str, Any]]) -> None:
    """What was acknowledged is there, and of what was not all or nothing, each point once."""
    first, *others = await seen_steps(store, run_id)
    assert all(steps == first for steps in others) or not store.database.has_transactions
    assert first == list(range(len(first)))
    acknowledged = [line["step"] for line in told if "step" in line]
    assert len(first) in (len(acknowledged), len(acknowledged) + 1)
    points = [metric.step for metric in await store.get_metric_history(run_id, NAMES[0]) if metric.value < 0]
    assert len(points) == len({*points})
    assert {*points} >= {line["point"] for line in told if "point" in line}


async def go_on(store: AsyncStore, uri: str, run_id: str, told: list[dict[str, Any]]) -> None:
    """Another program repeats the last step and logs more; the doctor folds what waits."""
    done = len([line for line in told if "step" in line])
    last = done + FULL + 1
    for number in range(done, last):
        await store.log_batch(run_id, step(number), [], [])
    assert await seen_steps(store, run_id) == [list(range(last))] * (len(NAMES) - 1)
    await store.update_run_info(run_id, RunStatus.RUNNING, None, None)
    await store._fold_wide_steps(run_id)
    assert await seen_steps(store, run_id) == [list(range(last))] * (len(NAMES) - 1)


async def test_the_doctor_finds_and_folds_what_a_killed_program_left(server: Mongod, tmp_path: Path) -> None:
    uri = server.database_uri(unique("kills"))
    async with AsyncStore(uri) as store:
        left, going = [
            (await store.create_run("0", "me", number, [], None)).info.run_id for number in range(2)
        ]
        for run_id in (left, going):
            for number in range(4):
                await store.log_batch(run_id, step(number), [], [])
        heads = store.database.client[store.settings.database]["latest_metrics"]
        (place,) = [each async for each in heads.find({"run_uuid": left, "key": places.PLACE})]
        old = {"$set": {"written": place["written"].replace(year=2020)}}
        await heads.update_one({"_id": place["_id"]}, old)
        found = await asyncio.to_thread(examine, uri=uri)
        assert left in found.told("half-done")
        assert going not in found.told("half-done")
        repaired = await asyncio.to_thread(examine, "--repair", uri=uri)
        assert repaired.verdict("half-done") == "ok"
        assert [each["run_uuid"] async for each in heads.find({"key": places.PLACE})] == [going]
        assert await seen_steps(store, left) == [[0, 1, 2, 3]] * (len(NAMES) - 1)
        assert await seen_steps(store, going) == [[0, 1, 2, 3]] * (len(NAMES) - 1)
        await store.database.client.drop_database(store.settings.database)
