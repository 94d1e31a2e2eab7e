"""Many writers who want the same thing: one of them gets it, and the others are told so."""

import asyncio
import itertools
import math
import multiprocessing
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from multiprocessing.synchronize import Barrier
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBModelRegistryStore as BlockingRegistry
from genesis_flow import MongoDBStore as BlockingStore
from genesis_flow.aio import MongoDBStore
from tests.mongod import Mongod
from tests.trust.soak import amount

PARAMS = 1_000
AT_ONCE = 50
PROCESSES = 64
ROUNDS = amount(1, 5)


@pytest.fixture(params=["mongod", "standalone"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[list[MongoDBStore]]:
    """Stores of one database with a client each, so that they share no lock in the process."""
    server: Mongod = request.getfixturevalue(request.param)
    uri = server.database_uri(f"test_{uuid.uuid4().hex[:12]}")
    made = [MongoDBStore(f"{uri}&appName=client{number}") for number in range(4)]
    await made[0].open()
    yield made
    await made[0].database.client.drop_database(made[0].settings.database)
    for store in made:
        await store.close()


async def test_of_conflicting_values_of_a_param_one_is_accepted(stores: list[MongoDBStore]) -> None:
    """Alone and in batches with other params and metrics, from clients that know nothing of each other."""
    run_id = (await stores[0].create_run("0", "me", 1, [], None)).info.run_id
    accepted: dict[str, list[str]] = {}
    refusals: list[tuple[str, MlflowException]] = []

    async def write(store: MongoDBStore, key: str, value: str, alone: bool) -> None:
        try:
            if alone:
                await store.log_param(run_id, Param(key, value))
            else:
                others = [Param(f"{key} of {value}", "x")]
                await store.log_batch(run_id, [], [Param(key, value), *others], [])
        except MlflowException as error:
            refusals.append((key, error))
        else:
            accepted.setdefault(key, []).append(value)

    for start in range(0, PARAMS, AT_ONCE):
        await asyncio.gather(
            *(
                write(store, f"p{number}", f"value {turn}", alone=(number + turn) % 2 == 0)
                for number in range(start, start + AT_ONCE)
                for turn, store in enumerate(random.sample(stores, 2))
            )
        )
    assert len(refusals) == PARAMS
    for key, error in refusals:
        assert error.error_code == "INVALID_PARAMETER_VALUE"
        assert key in error.message
    params = (await stores[0].get_run(run_id)).data.params
    for number in range(PARAMS):
        assert len(accepted[f"p{number}"]) == 1, accepted[f"p{number}"]
        (value,) = accepted[f"p{number}"]
        assert params[f"p{number}"] == value
        # A batch that was refused left nothing behind, one that was accepted left everything.
        others = [f"p{number} of value {turn}" for turn in range(2)]
        in_batch = (number + int(value[-1])) % 2 == 1
        assert [key for key in others if key in params] == ([f"p{number} of {value}"] if in_batch else [])


CREATIONS = ("experiment", "model", "version")
Outcome = tuple[str, str, str]


def create(uri: str, number: int, barrier: Barrier, results: "multiprocessing.Queue[Outcome]") -> None:
    """In a process of its own: the same creations as all others, each at the same moment."""
    store, registry = BlockingStore(uri), BlockingRegistry(uri)
    calls: dict[str, Callable[[], Any]] = {
        "experiment": lambda: store.create_experiment("the one"),
        "model": lambda: registry.create_registered_model("the one").name,
        "version": lambda: registry.create_model_version("the one", f"s3://{number}").version,
    }
    for kind in CREATIONS:
        barrier.wait(300)
        try:
            results.put((kind, "made", str(calls[kind]())))
        except MlflowException as error:
            results.put((kind, error.error_code, error.message))
        except Exception as error:
            results.put((kind, "failed", repr(error)))
    store.close()
    registry.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_64_processes_create_the_same(store_uri: str, round_number: int) -> None:
    """Nobody has been there before: they also race to bring the empty database to its schema."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trust.test_races"])
    barrier, results = context.Barrier(PROCESSES), context.Queue()
    workers = [
        context.Process(target=create, args=(store_uri, number, barrier, results))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in CREATIONS}
    numbers, messages = [], set()
    for _ in range(PROCESSES * len(CREATIONS)):
        kind, outcome, what = results.get(timeout=300)
        outcomes[kind][outcome] += 1
        messages |= {what} if outcome != "made" else set()
        if kind == "version" and outcome == "made":
            numbers.append(int(what))
    for worker in workers:
        worker.join(150)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    one_winner = {"made": 1, "RESOURCE_ALREADY_EXISTS": PROCESSES - 1}
    assert (outcomes["experiment"], outcomes["model"]) == (one_winner, one_winner), messages
    assert outcomes["version"] == {"made": PROCESSES}, messages
    assert sorted(numbers) == list(range(1, PROCESSES + 1))


POINTS = [
    (step, timestamp, value)
    for step, timestamp, value in itertools.product(
        (-1, 0, 7), (5, 6), (-math.inf, -1.0, 0.0, 2.5, math.inf, math.nan)
    )
]


async def test_the_latest_metric_is_the_greatest_whatever_the_order_of_arrival(
    stores: list[MongoDBStore],
) -> None:
    """By step, then timestamp, then value; NaN is smaller than every number, as in MongoDB's order."""
    dice = random.Random(11)
    run_id = (await stores[0].create_run("0", "me", 1, [], None)).info.run_id
    for number in range(amount(12, 200)):
        key = f"m{number}"
        points = dice.sample(POINTS, dice.randint(2, 20))
        writes = [Metric(key, value, timestamp, step) for step, timestamp, value in points]
        halves = writes[: len(writes) // 2], writes[len(writes) // 2 :]
        await asyncio.gather(
            *(stores[turn % 3].log_metric(run_id, metric) for turn, metric in enumerate(halves[0])),
            stores[3].log_batch(run_id, halves[1], [], []),
        )
        greatest = max(points, key=lambda point: (*point[:2], point[2] == point[2], point[2]))
        run = await stores[0].get_run(run_id)
        latest = next(metric for metric in run.data._metric_objs if metric.key == key)
        assert (latest.step, latest.timestamp) == greatest[:2]
        assert repr(latest.value) == repr(greatest[2])
        assert len(await stores[0].get_metric_history(run_id, key)) == len(points)


async def test_a_metric_and_a_deletion_at_once(stores: list[MongoDBStore]) -> None:
    """Either the metric came first, or it is refused; no head of a deleted run stays writable."""
    heads = pymongo.MongoClient(stores[0].settings.store_uri)[stores[0].settings.database]["latest_metrics"]
    for _ in range(amount(20, 300)):
        run_id = (await stores[0].create_run("0", "me", 1, [], None)).info.run_id
        await stores[0].log_metric(run_id, Metric("known", 0, 1, 0))
        results = await asyncio.gather(
            stores[1].log_metric(run_id, Metric("known", 1, 1, 1)),
            stores[2].log_batch(run_id, [Metric("new", 1, 1, 1), Metric("known", 2, 2, 2)], [], []),
            stores[3].delete_run(run_id),
            return_exceptions=True,
        )
        assert results[2] is None
        for result in results[:2]:
            assert result is None or (
                isinstance(result, MlflowException) and result.error_code == "INVALID_PARAMETER_VALUE"
            )
        assert heads.count_documents({"run_uuid": run_id, "active": True}) == 0
    heads.database.client.close()
