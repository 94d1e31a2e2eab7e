"""Budgets that many workers share. A worker here is a store with a client of its own."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any

import pytest
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.gateway import remembered, spending
from genesis_flow.areas.gateway.documents import BudgetFields
from genesis_flow.areas.traces.documents import NOW, TraceFields
from genesis_flow.areas.traces.sums import kept
from genesis_flow.compat import budgets
from genesis_flow.plugins.budgets import SharedBudgets
from tests.areas.explain import profiled
from tests.commands import recorder

# A window that ends in none of our lives.
AGES = BudgetDuration(BudgetDurationUnit.DAYS, 40_000)
DAY = 24 * 3_600_000
ENDPOINT = "e-1"
COST = 0.25


@pytest.fixture
async def other(store_uri: str, store: AsyncStore) -> AsyncIterator[AsyncStore]:
    another = AsyncStore(f"{store_uri}&appName=other")
    yield another
    await another.close()


async def made_budget(
    store: AsyncStore, amount: float, action: BudgetAction = BudgetAction.REJECT, **more: Any
) -> str:
    wanted = {
        "budget_unit": BudgetUnit.USD,
        "duration": AGES,
        "target_scope": BudgetTargetScope.USER,
        "target_value": "ann",
        **more,
    }
    made = await store.create_budget_policy(budget_amount=amount, budget_action=action, **wanted)
    return str(made.budget_policy_id)


async def traced(store: AsyncStore, first: int, number: int = 1, hours_ago: int = 0) -> None:
    """Calls whose traces are there, and that nothing counted."""
    await store.get_experiment("0")
    time_of_first = int(time.time() * 1000) - hours_ago * 3_600_000
    await store.database.collection(TraceFields).insert_many(
        [
            {
                "_id": f"tr-{first + each}",
                "workspace": "default",
                "experiment_id": 0,
                "request_time": time_of_first + each,
                "touched": NOW,
                "tags": {},
                "metadata": {"mlflow%2Eauth%2Eusername": "ann", "mlflow%2Egateway%2EendpointId": ENDPOINT},
                "cost": {"total_cost": COST},
            }
            for each in range(number)
        ]
    )


async def spent(store: AsyncStore) -> list[float]:
    return [window.cumulative_spend for window in await store._gateway_budget_windows()]


async def asked(store: AsyncStore, user: str = "ann", workspace: str = "default") -> Any:
    return await store._exceeded_gateway_budget(ENDPOINT, workspace, user)


async def count(store: AsyncStore, call: str, cost: float, user: str = "ann") -> list[Any]:
    return await store._count_gateway_cost(call, cost, ENDPOINT, "default", user)


async def test_what_one_worker_spends_stops_the_other(store: AsyncStore, other: AsyncStore) -> None:
    budget = await made_budget(store, 1.0)
    assert await asked(other) is None
    assert await count(store, "first", 0.6) == []
    assert await asked(other) is None
    assert [window.cumulative_spend for window in await count(other, "second", 0.5)] == [1.1]
    for worker in (store, other):
        window = await asked(worker)
        assert (window.policy.budget_policy_id, window.cumulative_spend) == (budget, 1.1)
        assert await asked(worker, "bob") is None
    assert await count(store, "third", 0.5) == [], "the budget was spent already"


async def test_a_call_counts_once_however_often_it_is_told(store: AsyncStore, other: AsyncStore) -> None:
    await made_budget(store, 1.0)
    for worker in (store, other, store):
        await count(worker, "one", 0.5)
    assert await spent(store) == [0.5]
    await count(store, "two", 0.5)
    assert await spent(other) == [1.0]


@pytest.mark.parametrize("number", [50, 5_000])
async def test_a_call_reads_one_budget_and_no_trace(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """However many traces there are: they are summed at the begin."""
    monkeypatch.setattr(remembered, "SECONDS", 3_600)
    await traced(store, 0, number)
    await made_budget(store, 1e6)
    await made_budget(store, 1.0, target_value="bob")
    await asked(store)
    await count(store, "first", COST)
    async with profiled(store.database) as queries:
        assert await asked(store) is None
        await count(store, "second", COST)
    assert {(query.collection, query.keys, query.documents) for query in queries} == {
        ("gateway_budgets", 1, 1)
    }
    assert len(queries) == 2
    assert sorted(await spent(store)) == [0.0, (number + 2) * COST]


async def test_who_has_no_budget_asks_nothing(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "SECONDS", 3_600)
    await made_budget(store, 1.0)
    await made_budget(store, 1.0, BudgetAction.ALERT, target_scope=BudgetTargetScope.GLOBAL)
    await asked(store)
    with recorder.recording() as commands:
        assert await asked(store, "bob") is None
    assert list(commands) == []


async def test_traces_are_asked_again_after_a_crash(
    store: AsyncStore, other: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process could not count before it died is in its traces, and a new one sees that."""
    await made_budget(store, 1.0)
    await count(store, "counted", COST)
    assert await spent(store) == [COST]
    await traced(store, 0, 3)
    assert await spent(store) == [COST], "this process has summed the traces of the window"
    assert await spent(other) == [3 * COST]
    await traced(store, 3, 1)
    monkeypatch.setattr(spending, "WRITTEN_SECONDS", 0.0)
    assert await spent(store) == [4 * COST], "and does so once more when late traces have come"
    assert (await asked(other)) is not None
    await count(store, "more", 10.0)
    assert await spent(other) == [10.0 + COST], (
        "what was counted stands, whether or not its trace was written"
    )


@pytest.mark.parametrize("number", [50, 1_000])
async def test_a_look_at_traces_does_not_grow_with_the_window(
    store: AsyncStore, other: AsyncStore, keen: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What is older than some minutes was summed by whoever made the counter, or looked before."""
    monkeypatch.setattr(spending, "WRITTEN_SECONDS", 0.0)
    await traced(store, 0, number, hours_ago=3)
    await made_budget(store, 1e6)
    await count(store, "one", COST)
    await traced(store, number, 5)
    monkeypatch.setattr(kept, "WORTH_KEEPING", 10_000)
    async with profiled(store.database) as queries:
        assert await spent(store) == [(number + 5) * COST]
    read = [query for query in queries if query.collection == "traces"]
    assert 0 < sum(query.keys for query in read) <= 5 + 8
    assert await spent(other) == [(number + 5) * COST], "and a process that comes later goes on from there"


async def test_a_process_that_starts_later_sees_what_came_late(
    store: AsyncStore, other: AsyncStore, keen: None
) -> None:
    """However late: the hours before were summed when it was not there yet."""
    await made_budget(store, 1e6)
    await traced(store, 0, 3, hours_ago=5)
    await count(store, "one", COST)
    assert await spent(store) == [4 * COST]
    await traced(store, 3, 4, hours_ago=5)
    assert await spent(other) == [7 * COST]


async def test_a_counter_begins_with_what_traces_say(store: AsyncStore) -> None:
    await traced(store, 0, 4)
    await made_budget(store, 1.0)
    assert await asked(store) is not None, "before anything is counted"
    await count(store, "one", COST)
    assert await spent(store) == [5 * COST]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"target_scope": BudgetTargetScope.USER, "target_value": "bob"}, 0.5),
        ({"target_scope": BudgetTargetScope.GLOBAL}, 0.5),
        ({"duration": BudgetDuration(BudgetDurationUnit.DAYS, 50_000)}, 0.5),
        ({"budget_amount": 8.0}, 1.5),
    ],
    ids=str,
)
async def test_a_budget_of_another_aim_is_counted_anew(
    store: AsyncStore, other: AsyncStore, change: dict[str, Any], left: float
) -> None:
    budget = await made_budget(store, 4.0)
    await count(store, "one", 1.0)
    await store.update_budget_policy(budget, **change)
    assert await spent(other) == [left - 0.5]
    await count(store, "two", 0.5, change.get("target_value", "ann"))
    assert await spent(other) == [left]


async def test_windows_end_and_clocks_differ(store: AsyncStore, other: AsyncStore) -> None:
    """A counter of an earlier window is worth nothing; one of a later window is of who is ahead."""
    await made_budget(store, 1.0)
    await count(store, "one", 1.0)
    assert await asked(other) is not None
    counters = store.database.collection(BudgetFields)
    for step, seen in ((-2, 0.0), (2, 1.0)):
        await counters.update_one({}, {"$inc": {"spent.start": step * AGES.value * DAY}})
        assert await spent(other) == [seen]
        await count(other, f"at {step}", 0.5)
        (document,) = await counters.find({}).to_list()
        assert document["spent"]["cost"] == seen + 0.5
        await counters.update_one({}, {"$set": {"spent.cost": 1.0}})


async def test_budgets_of_other_workspaces_and_of_no_time(store: AsyncStore) -> None:
    await made_budget(store, 1.0, target_scope=BudgetTargetScope.WORKSPACE)
    await made_budget(store, 0.0, duration=BudgetDuration(BudgetDurationUnit.DAYS, 0))
    assert await asked(store) is None, "a budget over no time refuses nothing"
    await count(store, "one", 2.0)
    assert await asked(store) is not None
    assert await asked(store, workspace="other") is None


@pytest.fixture
def workers(store_uri: str) -> Iterator[list[SharedBudgets]]:
    # Clients of their own: that of stores which other tests left open knows that threads met a moment ago.
    uris = [f"{store_uri}&appName={name}" for name in ("one", "two")]
    with closing(MongoDBStore(uris[0])) as one, closing(MongoDBStore(uris[1])) as two:
        rule = (BudgetUnit.USD, 5.0, AGES, BudgetTargetScope.GLOBAL, BudgetAction.REJECT)
        one.create_budget_policy(*rule)
        yield [SharedBudgets(one), SharedBudgets(two)]


def test_the_edge_is_passed_by_those_in_flight_alone(workers: list[SharedBudgets]) -> None:
    callers, limit = 6, 5
    told: list[budgets.BudgetWindow] = []
    calls: list[int] = []
    start = threading.Barrier(callers)

    def call(tracker: SharedBudgets) -> None:
        start.wait(60)
        while not tracker.should_reject_request("default", ENDPOINT)[0]:
            calls.append(1)
            told.extend(tracker.record_cost(1.0, "default", ENDPOINT))

    threads = [threading.Thread(target=call, args=(workers[each % 2],)) for each in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert limit <= len(calls) <= limit - 1 + callers
    assert [window.cumulative_spend for window in told] == [float(limit)], "who has spent the last tells it"
    for tracker in workers:
        (window,) = tracker.get_all_windows()
        assert window.cumulative_spend == len(calls)


def test_what_could_not_be_counted_is_counted_first(
    workers: list[SharedBudgets], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, other = workers

    def broken(*arguments: Any) -> list[Any]:
        raise MlflowException("The database does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(tracker._store, "_count_gateway_cost", broken)
        with pytest.raises(MlflowException):
            tracker.record_cost(5.0, "default", ENDPOINT)
        with pytest.raises(MlflowException):
            tracker.should_reject_request("default", ENDPOINT)
    assert other.should_reject_request("default", ENDPOINT) == (False, None)
    assert tracker.should_reject_request("default", ENDPOINT)[0]
    assert other.should_reject_request("default", ENDPOINT)[0]


def test_calls_are_counted_without_the_loop(
    workers: list[SharedBudgets], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the thread that serves the gateway's calls, once the counter is there and traces were asked."""
    monkeypatch.setattr(remembered, "SECONDS", 3_600)
    tracker, other = workers
    assert tracker.record_cost(1.0, "default", ENDPOINT) == []
    assert tracker.should_reject_request("default", ENDPOINT) == (False, None)

    def broken(*arguments: Any) -> Any:
        raise MlflowException("The loop does not turn.")

    with monkeypatch.context() as patched:
        for name in ("_count_gateway_cost", "_exceeded_gateway_budget"):
            patched.setattr(tracker._store, name, broken)
        assert tracker.record_cost(1.5, "default", ENDPOINT) == []
        assert tracker.should_reject_request("default", ENDPOINT) == (False, None)
        (window,) = tracker.record_cost(2.5, "default", ENDPOINT)
        assert (window.cumulative_spend, window.exceeded) == (5.0, True)
        assert tracker.record_cost(1.0, "default", ENDPOINT) == [], "the budget was spent already"
        assert tracker.should_reject_request("default", ENDPOINT)[0]
    assert other.should_reject_request("default", ENDPOINT)[0]
    assert [window.cumulative_spend for window in other.get_all_windows()] == [6.0]
