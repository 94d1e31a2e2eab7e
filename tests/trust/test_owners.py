"""Who owns a connection: stores come and go, and none takes another's away, nor leaves its own behind."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBModelRegistryStore as AsyncRegistry
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.mongo.operation import operation
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod
from tests.patience import answered
from tests.trust.test_connections import WATCHING, connections, settle

ROOT = Path(__file__).parents[2]
BLOCKS = 40
LOGGING = 4
CLOSINGS = 20


@pytest.fixture
def app(database_name: str) -> str:
    """By this name the server knows the connections of one test."""
    return f"app_{database_name}"


@pytest.fixture
def uri(store_uri: str, app: str) -> str:
    return f"{store_uri}&appname={app}"


@pytest.fixture
def elsewhere(mongod: Mongod, uri: str, database_name: str) -> Iterator[str]:
    """Another database of the same server."""
    other = f"{database_name}_other"
    yield uri.replace(database_name, other, 1)
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(other)


def new_run(store: MongoDBStore) -> str:
    return str(store.create_run("0", "me", 1, [], "a run").info.run_id)


async def test_blocks_that_overlap_do_not_disturb_each_other(
    mongod: Mongod, uri: str, elsewhere: str, app: str
) -> None:
    """One block a request, as in the README, with both kinds of stores and two databases."""

    async def request(number: int) -> int:
        await asyncio.sleep(number * 0.01)
        where = uri if number % 2 else elsewhere
        done = 0
        if number % 4 < 2:
            async with AsyncStore(where) as store:
                while done < 1 + number % 7:
                    assert (await store.get_experiment("0")).name == "Default"
                    done += 1
        else:
            async with AsyncRegistry(where) as registry:
                while done < 1 + number % 7:
                    assert await registry.search_registered_models() == []
                    done += 1
        return done

    answers = await asyncio.gather(*map(request, range(BLOCKS)), return_exceptions=True)
    assert answers == [1 + number % 7 for number in range(BLOCKS)]
    await asyncio.to_thread(settle, mongod, app, 0)


def test_threads_log_while_other_stores_are_closed(
    mongod: Mongod, uri: str, elsewhere: str, app: str
) -> None:
    store = MongoDBStore(uri)
    runs = [new_run(store) for _ in range(LOGGING)]
    closed = threading.Event()

    def train(run_id: str) -> int:
        steps = 0
        while not closed.is_set():
            store.log_metric(run_id, Metric("loss", 1.0, steps, steps))  # by itself
            assert store.get_experiment("0").name == "Default"  # by way of the loop
            steps += 1
        return steps

    with ThreadPoolExecutor(LOGGING) as threads:
        training = [threads.submit(train, run_id) for run_id in runs]
        try:
            for number in range(CLOSINGS):
                where = (uri, elsewhere)[number % 2]
                if number % 4 < 2:
                    other = MongoDBStore(where)
                    other.get_run(new_run(other))
                    other.close()
                else:
                    registry = MongoDBModelRegistryStore(where)
                    registry.search_registered_models()
                    registry.close()
        finally:
            closed.set()
        steps = [each.result() for each in training]
    for run_id, logged in zip(runs, steps, strict=True):
        assert len(store.get_metric_history(run_id, "loss")) == logged > 0
    store.close()
    settle(mongod, app, 0)


# Calls of several commands, with those commands.
LONG_CALLS: dict[str, tuple[list[str], Callable[[MongoDBStore, str], Any]]] = {
    "a metric": (
        ["findAndModify", "insert", "commitTransaction"],
        lambda store, run_id: store.log_metric(run_id, Metric("new", 1.0, 1, 1)),
    ),
    "an experiment": (["find", "findAndModify", "insert"], lambda store, _: store.create_experiment("new")),
}


@pytest.mark.parametrize("kind", LONG_CALLS)
def test_a_call_finishes_although_its_store_is_closed(
    mongod: Mongod, uri: str, app: str, commands: CommandRecorder, kind: str
) -> None:
    expected, call = LONG_CALLS[kind]
    store = MongoDBStore(uri)
    run_id = new_run(store)
    store.log_metric(run_id, Metric("old", 1.0, 0, 0))
    with (
        ThreadPoolExecutor(1) as thread,
        failing(mongod.uri, expected[0], times=1, app=app, blockConnection=True, blockTimeMS=1000),
        commands.recording() as sent,
    ):
        running = thread.submit(call, store, run_id)
        while not sent:
            time.sleep(0.01)
        store.close()
        assert [name for name, _ in sent] == expected, "it is waited for"
        # Its thread may not have been told yet.
        assert running.exception(PATIENCE_SECONDS) is None
    assert [name for name, _ in sent] == expected, "each was sent once"
    settle(mongod, app, 0)


class Held(AsyncStore):
    """With a call that lasts as long as the test wants, and sends a command before and after."""

    @operation
    async def last_until(self, begun: asyncio.Event, end: asyncio.Event) -> str:
        assert (await self.get_experiment("0")).name == "Default"
        begun.set()
        await end.wait()
        return str((await self.get_experiment("0")).name)


async def test_the_same_for_an_asynchronous_store(mongod: Mongod, uri: str, app: str) -> None:
    """Used again while it is being closed, too: such a call has a connection of its own."""
    store, begun, end = Held(uri), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(store.last_until(begun, end))
    await begun.wait()
    closing = asyncio.create_task(store.close())
    for _ in range(3):
        await asyncio.sleep(0)
        assert (await store.get_experiment("0")).name == "Default"
        await store.close()
    assert not closing.done(), "it waits for the call"
    end.set()
    assert await running == "Default"
    await closing
    await store.close()
    await asyncio.to_thread(settle, mongod, app, 0)


async def test_a_call_without_an_end_is_not_waited_for_for_ever(
    mongod: Mongod, uri: str, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest wait is the store's timeout. The call goes on then, on another connection."""
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "1")
    closed, begun, end = AsyncStore(uri), asyncio.Event(), asyncio.Event()
    monkeypatch.delenv("GENESIS_FLOW_TIMEOUT")
    store = Held(uri)
    running = asyncio.create_task(store.last_until(begun, end))
    await begun.wait()
    await answered(closed.search_experiments)
    await store.close()
    assert not running.done()
    await closed.close()
    await asyncio.to_thread(settle, mongod, app, 0)
    end.set()
    assert await running == "Default"
    await store.close()
    await asyncio.to_thread(settle, mongod, app, 0)


async def test_a_close_that_is_given_up_still_closes(mongod: Mongod, uri: str, app: str) -> None:
    store, begun, end = Held(uri), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(store.last_until(begun, end))
    await begun.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.close(), 0.1)
    end.set()
    assert await running == "Default"
    await asyncio.to_thread(settle, mongod, app, 0)


async def test_what_is_said_if_a_client_is_closed_for_good(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours does that; but whoever reaches for the client can."""
    other = AsyncStore(uri)
    await other.search_experiments()  # and so the schema is there, which takes longer than a second
    await other.close()
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "2")
    store = AsyncStore(uri)
    await answered(store.search_experiments)
    await store.database.client.close()
    with pytest.raises(MlflowException, match="was closed during the call") as caught:
        await store.search_experiments()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    await store.close()
    assert len(await answered(store.search_experiments)) == 1
    await store.close()


def test_a_closed_store_opens_again(mongod: Mongod, uri: str, app: str) -> None:
    store = MongoDBStore(uri)
    store.close()
    for _ in range(3):
        assert store.get_run(new_run(store)).info.experiment_id == "0"
        store.close()
        store.close()
        settle(mongod, app, 0)


def test_a_store_that_nobody_closed_goes_when_it_is_collected(mongod: Mongod, uri: str, app: str) -> None:
    """It takes the connection along if it was the only one to use it, and only then."""
    store = MongoDBStore(uri)
    run_id = new_run(store)
    settle(mongod, app, 1 + WATCHING)  # the client that made the schema goes, too
    for _ in range(10):
        other = MongoDBStore(uri)
        other.get_run(run_id)
        del other
        gc.collect()
        store.log_metric(run_id, Metric("m", 1.0, 1, 1))
    assert 0 < connections(mongod, app) <= 2 * (1 + WATCHING)
    del store
    gc.collect()
    settle(mongod, app, 0)


async def test_the_same_for_asynchronous_ones(mongod: Mongod, uri: str, app: str) -> None:
    store = AsyncStore(uri)
    await store.search_experiments()
    other = AsyncRegistry(uri)
    await other.search_registered_models()
    del other
    gc.collect()
    await store.search_experiments()
    assert await asyncio.to_thread(connections, mongod, app) > 0
    del store
    gc.collect()
    await asyncio.to_thread(settle, mongod, app, 0)


LOOPS = """
import asyncio, gc, json, os, sys
import pymongo
from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore

uri, elsewhere, app, how = sys.argv[1:]
kept = []

async def request(store, registry):
    assert len(await store.search_experiments()) == 1
    assert await registry.search_registered_models() == []

def by_hand(work):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(work)
    loop.close()

def count():
    with pymongo.MongoClient(uri.replace(app, "watcher")) as client:
        everything = {"$currentOp": {"allUsers": True, "idleConnections": True}}
        mine = {"$match": {"appName": app, "client": {"$exists": True}}}
        found = client.admin.aggregate([everything, mine])
        return len({each["client"] for each in found})

def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

for round in range(21):
    run = asyncio.run if how == "asyncio.run" else by_hand
    store, registry = MongoDBStore(uri), MongoDBModelRegistryStore(elsewhere)
    kept.append((store, registry))
    run(request(store, registry))
    if round == 0:
        gc.collect()
        before = descriptors()
gc.collect()
print(json.dumps([descriptors() - before, count()]))
"""


@pytest.mark.parametrize("how", ["asyncio.run", "closed by hand"])
def test_loops_that_are_gone_leave_nothing(
    uri: str, elsewhere: str, app: str, how: str, tmp_path: Path
) -> None:
    """Stores that nobody closed, and that are even kept, on one loop after another."""
    done = subprocess.run(
        [sys.executable, "-c", LOOPS, uri, elsewhere, app, how],
        cwd=tmp_path,
        env=user_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    more_descriptors, sockets = json.loads(done.stdout)
    # The last loop that was closed by hand is noticed when the next one is used.
    assert more_descriptors <= 0
    assert sockets <= (0 if how == "asyncio.run" else 1 + WATCHING)
    assert done.stderr == ""


def test_one_store_on_one_loop_after_another(mongod: Mongod, uri: str, app: str) -> None:
    store = AsyncStore(uri)

    async def use() -> str:
        return str((await store.get_experiment("0")).name)

    assert [asyncio.run(use()) for _ in range(5)] == ["Default"] * 5
    settle(mongod, app, 0)


def test_one_store_on_two_loops_at_once(mongod: Mongod, uri: str, app: str) -> None:
    store = AsyncStore(uri)

    async def use() -> list[str]:
        return [(await store.get_experiment("0")).name for _ in range(20)]

    def in_a_loop(work: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
        return asyncio.run(work())

    with ThreadPoolExecutor(4) as threads:
        for names in threads.map(in_a_loop, [use] * 4):
            assert names == ["Default"] * 20
    settle(mongod, app, 0)


EXIT = """
import atexit, json, sys, threading
import mlflow
from mlflow import MlflowClient
from genesis_flow import MongoDBStore

mlflow.set_tracking_uri(sys.argv[1])
run_id = mlflow.start_run().info.run_id
stop, steps, errors = threading.Event(), 0, []

def log():
    global steps
    while not stop.is_set():
        try:
            mlflow.log_metric("loss", 1.0, steps, run_id=run_id)
            mlflow.get_experiment("0")
        except Exception as error:
            errors.append(str(error))
        steps += 1

def close_others():
    for _ in range(20):
        other = MongoDBStore(sys.argv[1])
        other.search_experiments()
        other.close()

def report():
    stop.set()
    thread.join()
    print(json.dumps([run_id, steps, errors]))

# The last one runs first; MLflow ends its run after all of them.
atexit.register(MlflowClient()._tracking_client.store.close)
atexit.register(report)
atexit.register(close_others)
thread = threading.Thread(target=log, daemon=True)
thread.start()
"""


def test_stores_that_are_closed_at_exit_disturb_no_other(uri: str, tmp_path: Path) -> None:
    """Neither a thread that still logs, nor MLflow, which ends its run after its own store was closed."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT, uri],
        cwd=tmp_path,
        env=user_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    run_id, steps, errors = json.loads(done.stdout.splitlines()[0])
    assert errors == []
    assert "after close" not in done.stderr
    store = MongoDBStore(uri)
    assert store.get_run(run_id).info.status == "FINISHED", done.stderr
    assert len(store.get_metric_history(run_id, "loss")) == steps > 0
    store.close()
