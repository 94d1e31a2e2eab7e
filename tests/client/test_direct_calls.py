"""Calls of training loops that blocking callers run themselves: what they share, send and survive."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.metrics.documents import TAIL_LIMIT
from genesis_flow.mongo.clients import owner
from genesis_flow.sync.portal import portal
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod, running_mongod

CALLERS = 32


@pytest.fixture
def blocking_store(store_uri: str, tmp_path: Path) -> Iterator[MongoDBStore]:
    made = MongoDBStore(store_uri, f"{tmp_path}/artifacts")
    yield made
    made.close()


def new_run(store: MongoDBStore) -> str:
    return str(store.create_run("0", "me", 1, [], "a run").info.run_id)


def client_of(store: MongoDBStore) -> Any:
    """The blocking client that the store shares with others, if there is one."""
    worker = portal._worker
    assert worker is not None
    clients = owner._open.get((worker.loop, store._settings.cache_key))
    return None if clients is None else clients._blocking


def at_once(*calls: Callable[[], object]) -> list[Any]:
    """What each call returns, or the error that it raises; all begin at the same time."""
    barrier = threading.Barrier(len(calls))

    def work(call: Callable[[], object]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(work, calls))


def test_threads_share_commands(blocking_store: MongoDBStore, commands: CommandRecorder) -> None:
    store = blocking_store
    runs = [new_run(store) for _ in range(CALLERS)]
    for run_id in runs:
        store.log_metric(run_id, Metric("loss", 1.0, 0, 0))

    def train(run_id: str) -> None:
        for step in range(1, 11):
            store.log_metric(run_id, Metric("loss", float(step), step, step))
            store.set_tag(run_id, RunTag("t", str(step)))

    with commands.recording() as sent:
        assert at_once(*(lambda run_id=run_id: train(run_id) for run_id in runs)) == [None] * CALLERS
    assert {name for name, _ in sent} == {"update"}
    assert len(sent) < CALLERS * 20 / 2
    for run_id in runs:
        found = store.get_run(run_id)
        assert (found.data.metrics, found.data.tags["t"]) == ({"loss": 10.0}, "10")
        assert [point.step for point in store.get_metric_history(run_id, "loss")] == list(range(11))


def test_a_thread_that_is_alone_sends_a_command_a_call(
    blocking_store: MongoDBStore, commands: CommandRecorder
) -> None:
    """Also if nothing matches, which the answer says, and after there were others."""
    store = blocking_store
    runs = [new_run(store) for _ in range(4)]
    at_once(*(partial(store.set_tag, run_id, RunTag("t", "1")) for run_id in runs))
    with commands.recording() as sent:
        for number in range(10):
            store.set_tag(runs[0], RunTag("t", str(number)))
    assert [name for name, _ in sent] == ["update"] * 10
    with commands.recording() as sent, pytest.raises(MlflowException):
        store.set_tag("0" * 32, RunTag("t", "1"))
    assert {name for name, _ in sent[:-1]} == {"update"}
    assert sent[-1][0] == "find", "the loop says why"
    with commands.recording() as sent, pytest.raises(MlflowException, match="must be a text"):
        store.log_param(runs[0], Param({"$gt": ""}, "1"))
    assert sent == []


def test_a_thread_that_is_alone_needs_no_loop(
    blocking_store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blocking_store
    run_id = new_run(store)
    store.log_metric(run_id, Metric("loss", 1.0, 0, 0))  # the first point takes more than an update
    with monkeypatch.context() as patched:
        patched.setattr(store, "_in_portal", None)
        store.log_metric(run_id, Metric("loss", 0.5, 1, 1))
        store.log_param(run_id, Param("p", "1"))
        store.set_tag(run_id, RunTag("t", "1"))
    found = store.get_run(run_id).data
    assert (found.metrics, found.params, found.tags["t"]) == ({"loss": 0.5}, {"p": "1"}, "1")


def test_what_is_more_than_an_update_goes_by_the_loop(
    blocking_store: MongoDBStore, commands: CommandRecorder
) -> None:
    """As it would be for a store that has no direct calls."""
    store = blocking_store
    run_id = new_run(store)
    for step in range(TAIL_LIMIT + 2):
        store.log_metric(run_id, Metric("loss", 1.0, step, step))
    assert len(store.get_metric_history(run_id, "loss")) == TAIL_LIMIT + 2
    store.log_param(run_id, Param("p", "1"))
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        store.log_param(run_id, Param("p", "2"))
    store.set_tag(run_id, RunTag("mlflow.runName", ""))  # changes nothing, as in MLflow
    store.delete_run(run_id)
    for call in (
        partial(store.log_metric, run_id, Metric("loss", 1.0, 500, 500)),
        partial(store.log_param, run_id, Param("q", "1")),
        partial(store.set_tag, run_id, RunTag("t", "1")),
    ):
        with pytest.raises(MlflowException, match="must be in the 'active' state"):
            call()


def test_a_lost_answer_of_a_direct_call_loses_and_doubles_nothing(
    mongod: Mongod, blocking_store: MongoDBStore, database_name: str
) -> None:
    run_id = new_run(blocking_store)
    name = "lossy"
    store = MongoDBStore(f"{mongod.database_uri(database_name)}&appName={name}&retryWrites=false", "s3://b")
    store.log_metric(run_id, Metric("loss", 0.0, 0, 0))
    store.log_metric(run_id, Metric("loss", 0.0, 1, 1))
    with failing(mongod.uri, "update", times=1, app=name, closeConnection=True):
        store.log_metric(run_id, Metric("loss", 0.0, 2, 2))
    assert [point.step for point in store.get_metric_history(run_id, "loss")] == [0, 1, 2]
    store.close()


def test_batches_of_many_threads_are_whole(blocking_store: MongoDBStore) -> None:
    store = blocking_store
    run_id = new_run(store)

    def log(number: int) -> None:
        metrics = [Metric(f"m{number % 4}", step, step, number * 100 + step) for step in range(60)]
        store.log_batch(run_id, metrics, [Param(f"p{number}", "1")], [RunTag("last", str(number))])

    assert at_once(*(lambda n=n: log(n) for n in range(16))) == [None] * 16
    found = store.get_run(run_id).data
    assert found.params == {f"p{number}": "1" for number in range(16)}
    for key in range(4):
        assert len(store.get_metric_history(run_id, f"m{key}")) == 4 * 60


def test_a_deadline_ends_a_direct_call(
    mongod: Mongod, blocking_store: MongoDBStore, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = new_run(blocking_store)
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "2")
    name = "late"
    store = MongoDBStore(f"{mongod.database_uri(database_name)}&appName={name}", "s3://bucket")
    store.set_tag(run_id, RunTag("t", "0"))
    with (
        failing(mongod.uri, "update", app=name, blockConnection=True, blockTimeMS=5000),
        pytest.raises(MlflowException) as caught,
    ):
        store.set_tag(run_id, RunTag("t", "1"))
    assert caught.value.error_code == "DEADLINE_EXCEEDED"
    store.close()


def test_a_restarted_server_is_found_again() -> None:
    with running_mongod() as server:
        store = MongoDBStore(server.database_uri("db"), "s3://bucket")
        run_id = new_run(store)
        server.kill()
        threading.Timer(1.0, server.start).start()
        store.log_metric(run_id, Metric("loss", 1.0, 1, 1))
        assert store.get_run(run_id).data.metrics == {"loss": 1.0}
        store.close()


def test_the_first_call_of_all_may_be_direct(store_uri: str) -> None:
    """It opens the database on the loop, and the default experiment is there."""
    store = MongoDBStore(store_uri, "s3://bucket")
    assert store.get_run(new_run(store)).info.experiment_id == "0"
    store.close()


def test_a_closed_store_opens_again_and_leaves_no_client(store_uri: str) -> None:
    # A name of its own: stores that other tests left open are no users of this client.
    store = MongoDBStore(f"{store_uri}&appName=closing")
    run_id = new_run(store)
    store.set_tag(run_id, RunTag("t", "1"))
    client = client_of(store)
    other = MongoDBStore.from_settings(store._settings)
    other.log_metric(run_id, Metric("m", 1.0, 1, 1))
    assert client_of(other) is client is not None, "stores share it"
    store.close()
    other.log_metric(run_id, Metric("m", 2.0, 2, 2))
    assert client_of(other) is client, "the other one still uses it"
    other.close()
    assert client_of(store) is None
    with pytest.raises(pymongo.errors.InvalidOperation):
        client.admin.command("ping")
    assert store.get_run(run_id).data.metrics == {"m": 2.0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_has_a_client_of_its_own(blocking_store: MongoDBStore) -> None:
    store = blocking_store
    run_id = new_run(store)
    store.set_tag(run_id, RunTag("t", "1"))
    client = client_of(store)
    assert client is not None
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.log_metric(run_id, Metric("child", 1.0, 1, 1))
            store.log_metric(run_id, Metric("child", 1.0, 1, 1))
            theirs = client_of(store)  # clients of one server are equal
            code = 0 if theirs is not None and theirs is not client else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    store.log_metric(run_id, Metric("parent", 1.0, 1, 1))
    assert os.waitstatus_to_exitcode(status) == 0
    assert store.get_run(run_id).data.metrics == {"child": 1.0, "parent": 1.0}


def test_a_caller_inside_a_running_loop(blocking_store: MongoDBStore) -> None:
    """As in a notebook: the call blocks, as blocking calls do there, and does not touch the loop."""

    async def cell() -> float:
        run_id = new_run(blocking_store)
        blocking_store.log_metric(run_id, Metric("m", 1.0, 1, 1))
        return float(blocking_store.get_run(run_id).data.metrics["m"])

    assert asyncio.run(cell()) == 1.0


async def test_both_sides_see_the_same(store_uri: str, tmp_path: Path) -> None:
    async_store, store = AsyncStore(store_uri, str(tmp_path)), MongoDBStore(store_uri, str(tmp_path))
    run_id = (await async_store.create_run("0", "me", 1, [], "a run")).info.run_id
    await asyncio.to_thread(store.log_batch, run_id, [Metric("m", 1.0, 1, 1)], [Param("p", "1")], [])
    await async_store.log_metric(run_id, Metric("m", 2.0, 2, 2))
    theirs, ours = await async_store.get_run(run_id), await asyncio.to_thread(store.get_run, run_id)
    assert theirs.to_dictionary() == ours.to_dictionary()
    assert theirs.data.metrics == {"m": 2.0}
    await async_store.close()
    await asyncio.to_thread(store.close)
