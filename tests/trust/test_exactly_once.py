"""A write that is repeated, by the driver, by the store or by a user, is made once."""

import asyncio
import multiprocessing
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag

from genesis_flow import MongoDBStore as BlockingStore
from genesis_flow.aio import MongoDBStore
from tests.mongod import Mongod
from tests.scenes import play
from tests.trust.proxy import Command, FaultyProxy, faulty_proxy
from tests.trust.soak import SOAK, amount
from tests.trust.tour import (
    TRAINING,
    Made,
    Undisturbed,
    World,
    WorldOfThreads,
    opened,
    stored,
    temporary,
)

BATCHES = 40
PROCESSES = 8
BATCHES_LOST = amount(1, 8)
# A lost connection costs half a second; Azure's error in its place does not. A pass with a number loses the
# command of that number twice, so that the driver's own retry is lost, too; it does not retry Azure's error.
EACH_ONCE = -1
PASSES: dict[str, tuple[int, ...]] = (
    {"throttled": (EACH_ONCE, *range(8)), "closed": (0, 1)} if SOAK else {"throttled": (EACH_ONCE,)}
)
WHERE = ["request", "reply"] if SOAK else ["reply"]


def batch(number: int) -> list[Metric]:
    """Points of known and new metrics, some of which fill tails and some of which make blocks."""
    small = [Metric("small", number * 7 + offset, number, number * 7 + offset) for offset in range(7)]
    large = [Metric("large", offset, number, number * 1000 + offset) for offset in range(100)]
    nan = [Metric("nan", float("nan"), number, number), Metric("inf", float("inf"), number, number)]
    return small + large + nan + [Metric(f"new{number}", 1, 1, 1)]


def expected(batches: int) -> dict[str, int]:
    """How many points each metric has."""
    return {
        "small": 7 * batches,
        "large": 100 * batches,
        "nan": batches,
        "inf": batches,
        **{f"new{number}": 1 for number in range(batches)},
    }


async def counts(store: MongoDBStore, run_id: str) -> dict[str, int]:
    run = await store.get_run(run_id)
    return {key: len(await store.get_metric_history(run_id, key)) for key in run.data.metrics}


async def test_a_batch_replayed_leaves_each_point_once(store: MongoDBStore) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    for _ in range(3):
        for number in range(5):
            await store.log_batch(run_id, batch(number), [Param("p", "1")], [RunTag("t", str(number))])
    assert await counts(store, run_id) == expected(5)


def replay(uri: str, run_id: str, start: int) -> None:
    store = BlockingStore(uri)
    for number in range(BATCHES):
        turn = (start + number * 7) % BATCHES  # every process in another order, every batch by all
        store.log_batch(run_id, batch(turn), [Param("p", "1")], [])
    store.close()


async def test_batches_interleaved_from_eight_processes_leave_each_point_once(
    store: MongoDBStore, store_uri: str
) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trust.test_exactly_once"])
    workers = [
        context.Process(target=replay, args=(store_uri, run_id, number * 5)) for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert await counts(store, run_id) == expected(BATCHES)
    latest = (await store.get_run(run_id)).data.metrics
    assert latest["small"] == BATCHES * 7 - 1
    assert latest["large"] == (BATCHES - 1) * 1000 + 99 or latest["large"] == 99


@pytest.fixture(params=["replica set", "standalone"])
def behind_proxy(request: pytest.FixtureRequest) -> Iterator[FaultyProxy]:
    server: Mongod = request.getfixturevalue("mongod" if request.param == "replica set" else "standalone")
    with faulty_proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(params=[World, WorldOfThreads])
async def world(
    request: pytest.FixtureRequest, behind_proxy: FaultyProxy, tmp_path: Path
) -> AsyncIterator[World]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    made: World = request.param(behind_proxy.database_uri(name), str(tmp_path / "artifacts"))
    yield made
    behind_proxy.arm()
    await made.close()
    with pymongo.MongoClient(port=behind_proxy.upstream, directConnection=True) as client:
        client.drop_database(name)


THROTTLED = {
    "ok": 0.0,
    "code": 16500,
    "codeName": "RequestRateTooLarge",
    "errmsg": "Error=16500, RetryAfterMs=3, Details='Response status code does not indicate success'",
}


@pytest.mark.parametrize("where", ["request", "reply"])
async def test_lost_requests_and_replies_of_a_batch(
    world: World, behind_proxy: FaultyProxy, where: str
) -> None:
    """Every command of every batch is lost with its connection, twice: the driver's own retry, too."""
    run_id = (await world.store.create_run("0", "me", 1, [], None)).info.run_id
    lost = 0
    for number in range(BATCHES_LOST):
        for position in range(8):
            behind_proxy.arm(**{f"{where}_lost": first_two(position)})
            await world.store.log_batch(run_id, batch(number), [Param(f"p{number}", "1")], [])
            lost += len(behind_proxy.lost)
            if not behind_proxy.lost:
                break  # it has fewer commands
    assert lost >= 2 * BATCHES_LOST
    assert await counts(world.store, run_id) == expected(BATCHES_LOST)
    assert len((await world.store.get_run(run_id)).data.params) == BATCHES_LOST


def first_two(position: int) -> Any:
    """Loses the command at ``position`` of a call, and the one after it, which repeats it."""

    def loses(command: Command) -> bool:
        return command.number in (position, position + 1)

    return loses


def each_once() -> Any:
    """Loses the first of each kind of command that a call sends: its name and the collection.

    The attempt after it gets one command further.
    """
    before: set[tuple[str, str]] = set()

    def loses(command: Command) -> bool:
        collection = command.body[command.name]
        kind = command.name, collection if isinstance(collection, str) else ""
        is_new = kind not in before
        before.add(kind)
        return is_new

    return loses


async def one_pass(
    world: World, areas: tuple[str, ...], proxy: FaultyProxy, position: int, where: str, answer: Any
) -> int:
    """A tour, with the command at ``position`` of each call lost; how many were."""
    await opened(world)
    lost = 0

    async def lose(name: str, make: Made) -> Any:
        nonlocal lost
        loses = each_once() if position == EACH_ONCE else first_two(position)
        proxy.arm(**{f"{where}_lost": loses}, instead=answer)
        try:
            made = await make()
        except Exception as error:
            raise AssertionError(f"{name} after {proxy.lost} of {proxy.seen}") from error
        lost += len(proxy.lost)
        return made

    world.around = lose
    await play(world, *areas)
    proxy.arm()
    return lost


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", PASSES)
async def test_every_write_whose_command_was_lost_is_made_once(
    behind_proxy: FaultyProxy, short_waits: None, undisturbed: Undisturbed, where: str, how: str
) -> None:
    """Every command of every call is lost; the database is as if none had been."""
    await lose_each(behind_proxy, undisturbed, World, (), where, how)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", PASSES)
async def test_so_it_is_with_calls_that_threads_run_themselves(
    behind_proxy: FaultyProxy, short_waits: None, undisturbed: Undisturbed, where: str, how: str
) -> None:
    await lose_each(behind_proxy, undisturbed, WorldOfThreads, TRAINING, where, how)


async def lose_each(
    proxy: FaultyProxy,
    undisturbed: Undisturbed,
    kind: type[World],
    areas: tuple[str, ...],
    where: str,
    how: str,
) -> None:
    answer = THROTTLED if how == "throttled" else None
    wanted = await undisturbed.tour(proxy.upstream, kind, areas)
    for position in PASSES[how]:
        async with temporary(kind, proxy.port, undisturbed.artifacts) as world:
            try:
                assert await one_pass(world, areas, proxy, position, where, answer)
            finally:
                proxy.arm()
            found = stored(world)
        assert found.keys() == wanted.keys()
        assert [difference for key in found for difference in differences(wanted[key], found[key])] == []


def differences(wanted: list[str], found: list[str]) -> list[str]:
    missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    return [*(f"missing {each}" for each in missing), *(f"extra {each}" for each in extra)]
