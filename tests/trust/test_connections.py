"""Connections: one pool for all stores of a process, and sockets that may be gone when they are needed."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric

from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.mongod import Mongod, running_mongod
from tests.patience import PATIENCE_SECONDS

# Azure's gateways forget a connection after four minutes.
LONG = bool(os.environ.get("GENESIS_FLOW_LONG"))
IDLE_SECONDS = 300 if LONG else 2
MOST_SOCKETS = 5
# Each server that a client watches costs two more, one to measure the way to it.
WATCHING = 2


def connections(mongod: Mongod, app: str) -> int:
    """How many sockets a client with this name has to the server."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        everything = {"$currentOp": {"allUsers": True, "idleConnections": True}}
        found = client.admin.aggregate(
            [everything, {"$match": {"appName": app, "client": {"$exists": True}}}]
        )
        return len({each["client"] for each in found})


def settle(mongod: Mongod, app: str, most: int) -> None:
    """Wait until the server has seen the end of clients that made a schema: those are closed then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while connections(mongod, app) > most:
        assert time.monotonic() < deadline, "sockets beyond the pool stay open"
        time.sleep(0.1)


def test_a_training_has_two_clients(mongod: Mongod, store_uri: str) -> None:
    """One on the loop, and one for the calls that its thread makes itself; the registry has no others."""
    uri = f"{store_uri}&appname=training"
    store, registry = MongoDBStore(uri), MongoDBModelRegistryStore(uri)
    store.search_experiments()
    registry.search_registered_models()
    settle(mongod, "training", 1 + WATCHING)
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    for step in range(10):
        store.log_metric(run_id, Metric("loss", 1.0, step, step))
    settle(mongod, "training", 2 * (1 + WATCHING))
    store.close()
    assert registry.search_registered_models() == []
    registry.close()
    settle(mongod, "training", 0)


def test_a_thousand_stores_share_one_pool(mongod: Mongod, store_uri: str) -> None:
    uri = f"{store_uri}&maxPoolSize={MOST_SOCKETS}&appname=thousand"
    stores = [MongoDBStore(uri) for _ in range(500)]
    registries = [MongoDBModelRegistryStore(uri) for _ in range(500)]
    stores[0].search_experiments()
    settle(mongod, "thousand", 1 + WATCHING)
    most, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        # Without a pause the watcher would take more of the processor than those that it watches.
        while not stop.wait(0.05):
            most = max(most, connections(mongod, "thousand"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(16) as threads:
            for future in [threads.submit(store.search_experiments) for store in stores]:
                assert len(future.result()) == 1
            for future in [threads.submit(registry.search_registered_models) for registry in registries]:
                assert future.result() == []
    finally:
        stop.set()
        watcher.join()
    assert 0 < most <= MOST_SOCKETS + WATCHING
    # Two databases and two prefixes of one server share it too.
    others = [MongoDBStore(other) for other in (uri.replace("test_", "test_other_"), f"{uri}#prefix")]
    for other in others:
        other.search_experiments()
    settle(mongod, "thousand", MOST_SOCKETS + WATCHING)
    for store in [*stores, *registries, *others]:
        store.close()
    settle(mongod, "thousand", 0)
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(MongoDBStore(uri.replace("test_", "test_other_"))._settings.database)


@pytest.mark.timeout(IDLE_SECONDS + 300)
def test_a_store_that_was_idle_works(mongod: Mongod, store_uri: str) -> None:
    """The pool closes what was idle too long, and opens another socket without a failed call."""
    uri = f"{store_uri}&appname=idle&maxIdleTimeMS={IDLE_SECONDS * 400}"
    store = MongoDBStore(uri)
    store.create_experiment("before")
    time.sleep(IDLE_SECONDS)
    store.create_experiment("after")
    assert len(store.search_experiments()) == 3
    store.close()


@pytest.mark.parametrize("close", ["in good order", "kill -9"])
def test_a_restart_between_calls_is_survived(close: str, tmp_path: Path) -> None:
    """All sockets of the pool are dead then; the call that meets them goes on by itself."""
    with running_mongod() as server:
        store = MongoDBStore(server.database_uri("restart"))
        registry = MongoDBModelRegistryStore(server.database_uri("restart"))
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: store.create_experiment(f"before {number}"), range(8)))
        (server.stop if close == "in good order" else server.kill)()
        server.start()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: store.create_experiment(f"after {number}"), range(8)))
        registry.create_registered_model("after")
        assert len(store.search_experiments()) == 17
        store.close()


def test_a_store_used_while_the_server_is_away_waits_for_it() -> None:
    with running_mongod() as server:
        store = MongoDBStore(server.database_uri("away"))
        store.create_experiment("before")
        server.stop()
        back = threading.Timer(3, server.start)
        begin = time.monotonic()
        back.start()
        store.create_experiment("meanwhile")
        assert time.monotonic() - begin > 2
        back.join()
        assert {each.name for each in store.search_experiments()} == {"Default", "before", "meanwhile"}
        store.close()
