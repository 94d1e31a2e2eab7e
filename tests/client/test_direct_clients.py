"""The client of calls that blocking callers run themselves: whose it is, and how it ends."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.mongo.clients import owner
from genesis_flow.sync.portal import portal


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def blocking_store(store_uri: str, tmp_path: Path) -> Iterator[MongoDBStore]:
    made = MongoDBStore(f"{store_uri}&appName=clients", f"{tmp_path}/artifacts")
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
