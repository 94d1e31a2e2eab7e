"""What calls of the gateway have cost, with many of them traced: for `gateway.py --costs`."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
from bson.timestamp import Timestamp
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from people import fill, median
from searches import reads
from servers import mongod

from genesis_flow import MongoDBStore
from genesis_flow.areas.traces.sums import kept
from genesis_flow.plugins.budgets import SharedBudgets

ENDPOINTS, USERS = 8, 50
COST = 0.25
_HOUR = 3_600_000


def traces(count: int) -> Iterator[dict[str, Any]]:
    """Of the last ten hours, evenly."""
    now = int(time.time() * 1000)
    for number in range(count):
        began = now - 10 * _HOUR * number // count
        yield {
            "_id": f"tr-{number:08}",
            "workspace": "default",
            "experiment_id": 0,
            "request_time": began,
            "tags": {},
            "metadata": {
                "mlflow%2Eauth%2Eusername": f"user {number % USERS}",
                "mlflow%2Egateway%2EendpointId": f"e-{number % ENDPOINTS}",
            },
            "cost": {"total_cost": COST},
            "touched": Timestamp(began // 1000, 1),
        }


def measure(folder: Path, counts: list[int], rounds: int) -> None:
    kept.RETRY_SECONDS = -2  # who asks goes on at once with what the one before has begun
    with mongod(folder) as database_uri:
        uri = database_uri("costs")
        store = MongoDBStore(uri, str(folder))
        store.get_experiment("0")
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            database = client.get_default_database()
            for count in counts:
                database["trace_sums"].delete_many({})
                fill(database["traces"], traces(count))
                _measure(store, database, count, rounds)
                _measure_first_calls(uri, database, count)
        store.close()


def _measure(store: MongoDBStore, database: Any, count: int, rounds: int) -> None:
    # A window that ends in none of our lives.
    window = BudgetDuration(BudgetDurationUnit.DAYS, 40_000)
    database["gateway_budgets"].delete_many({})
    store.create_budget_policy(BudgetUnit.USD, 1e12, window, BudgetTargetScope.GLOBAL, BudgetAction.REJECT)
    tracker = SharedBudgets(store)
    calls: dict[str, Callable[[], Any]] = {
        "all": lambda: store.sum_gateway_trace_cost(0, 2**53),
        "one endpoint": lambda: store.sum_gateway_trace_cost(0, 2**53, endpoint_id="e-1"),
        "one user": lambda: store.sum_gateway_trace_cost(0, 2**53, username="user 1"),
        "one of an endpoint": lambda: store.sum_gateway_trace_cost(0, 2**53, None, "e-1", "user 1"),
        "what a call pays": lambda: pay(tracker),
    }
    begin, asks = time.perf_counter(), 1
    keys = [-1, _keys(database, calls["all"])]
    while keys[-1] != keys[-2]:  # each keeps as many sums as ten seconds allow
        keys.append(_keys(database, calls["all"]))
        asks += 1
    took = time.perf_counter() - begin
    print(f"{count:>9,} traces, {asks} asks until there are sums: {took:.1f} s, {keys[1]:,} keys at first")
    for name, call in calls.items():
        call()
        found = _keys(database, call)
        print(f"{count:>9,} traces, {name}: {median(call, rounds):.2f} ms, {found:,} keys")


def _keys(database: Any, call: Callable[[], Any]) -> int:
    return sum(each["keys"] for each in reads(database, call) if "keys" in each)


def pay(tracker: SharedBudgets) -> None:
    tracker.should_reject_request("default", "e-1", "user 1")
    tracker.record_cost(COST, "default", "e-1", "user 1")


def _measure_first_calls(uri: str, database: Any, count: int) -> None:
    """Of processes that start in the middle of the window: each meets it."""
    for name, change in (("nobody has summed it", {"$unset": {"spent": ""}}), ("others have", None)):
        if change:
            database["gateway_budgets"].update_many({}, change)
        # A client of its own remembers nothing.
        store = MongoDBStore(f"{uri}&appName={uuid.uuid4().hex}")
        store.get_experiment("0")
        tracker, begin = SharedBudgets(store), time.perf_counter()
        pay(tracker)
        took = (time.perf_counter() - begin) * 1000
        print(f"{count:>9,} traces, the first call of a process, {name}: {took:.0f} ms")
        store.close()
