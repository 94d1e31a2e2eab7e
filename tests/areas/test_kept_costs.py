"""Sums of what calls have cost: what they save, and that no answer differs from that of the traces."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pymongo
import pytest
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo import InsertOne, ReplaceOne
from pymongo.errors import PyMongoError

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.documents import NOW, TraceFields
from genesis_flow.areas.traces.sums import costs, departures
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.areas.traces.sums.costs import Calls, cost_of_traces
from genesis_flow.areas.traces.sums.documents import TraceSumsFields
from genesis_flow.areas.workspaces.contents import give
from genesis_flow.importers.target import ImportTarget
from tests.areas.explain import profiled
from tests.areas.trace_writer import HOUR
from tests.commands import CommandRecorder
from tests.contract.trace_scenes import STARTED, span, stated, trace_id

# The begin of an hour.
BEGAN = STARTED // HOUR * HOUR
EVER = (0, 2**62)


def metadata(endpoint: str = "e-1", user: str | None = "ann", cost: float = 0.25) -> dict[str, str]:
    said = {TraceMetadataKey.GATEWAY_ENDPOINT_ID: endpoint}
    if user is not None:
        said[TraceMetadataKey.AUTH_USERNAME] = user
    return {**said, TraceMetadataKey.COST: json.dumps({"total_cost": cost})}


async def called(store: MongoDBStore, number: int, start: int = 0, **said: Any) -> None:
    """A call whose trace is there, or is another one now."""
    info = stated(trace_id(number), start=BEGAN - STARTED + start, trace_metadata=metadata(**said))
    await store.start_trace(info)


async def many_calls(
    store: MongoDBStore, first: int, number: int, start: int, step: int, **more: Any
) -> None:
    """Quicker, but not by what a client sends."""
    documents = [
        {
            "_id": trace_id(first + each),
            "workspace": "default",
            "experiment_id": 0,
            "request_time": start + each * step,
            "touched": NOW,
            "metadata": {
                "mlflow%2Egateway%2EendpointId": f"e-{each % 3}",
                "mlflow%2Eauth%2Eusername": f"user {each % 5}",
            },
            "cost": {"total_cost": 0.25},
            **more,
        }
        for each in range(number)
    ]
    await store.database.everywhere(TraceFields).insert_many(documents)


def settle(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> None:
    """Calls that began until then are taken to be over."""
    monkeypatch.setattr(costs, "SETTLED_SECONDS", int(time.time() - milliseconds / 1000))


async def pieces(store: MongoDBStore) -> list[tuple[int, int]]:
    """Which five minutes since ``BEGAN`` there are sums for."""
    found = store.database.everywhere(TraceSumsFields).find({"made": {"$exists": True}})
    begin = BEGAN // costs.SLOT
    keys = [(int(each["_id"].rpartition("|")[2]), each["until"]) async for each in found]
    return sorted((first - begin, last - begin) for first, last in keys if last > begin)


async def both(store: MongoDBStore, start: int, end: int, *calls: str | None) -> float:
    """What sums say and then what those say that have just been made, which is what traces say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "_split", lambda pieces, start, end: ([], [(start, end)]))
        patch.setattr(kept_sums, "WORTH_KEEPING", 10**9)
        expected = await store.sum_gateway_trace_cost(start, end, *calls)
    for _ in range(2):
        assert await store.sum_gateway_trace_cost(start, end, *calls) == pytest.approx(expected, rel=1e-13)
    return expected


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sums were taken for an answer."""
    numbers: list[int] = []
    split = costs._split

    def counted(*args: Any) -> Any:
        whole, ranges = split(*args)
        numbers.append(sum(not piece.is_empty for piece in whole))
        return whole, ranges

    monkeypatch.setattr(costs, "_split", counted)
    return numbers


def question(dice: random.Random) -> tuple[Any, ...]:
    start, end = sorted(BEGAN + dice.choice([-1, 0, 1, 2, 3, 30]) * HOUR + dice.choice([0, 7]) for _ in "ab")
    given = [dice.choice([None, *some]) for some in (["default", "w"], ["e-1", "e-2", "$e"], ["ann", "bob"])]
    return (*dice.choice([(start, end), EVER]), *given)


@pytest.mark.parametrize(("seed", "most"), [(0, 10_000), (2, 2)])
async def test_every_change_is_seen_at_once(
    store: MongoDBStore,
    keen: None,
    used: list[int],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    most: int,
) -> None:
    """Also of hours that are not over yet, and of those that are too much to keep."""
    monkeypatch.setattr(costs, "_MOST_ROWS", most)
    dice = random.Random(seed)
    for step in range(40):
        settle(monkeypatch, BEGAN + step * HOUR // 7)
        number = dice.randrange(1, 30)
        if dice.random() < 0.2:
            await store.delete_traces("0", trace_ids=[trace_id(number)])
        else:
            said = {"endpoint": dice.choice(["e-1", "e-2", "$e"]), "user": dice.choice([None, "ann", "bob"])}
            start = dice.choice([-HOUR, 0, 0, 0, 30 * HOUR]) + dice.randrange(4 * HOUR)
            await called(store, number, start, **said, cost=dice.random())
        await both(store, *question(dice))
    assert sum(used) > (20 if most > 2 else 0), "sums answer a good part of the questions"


CHANGES: dict[str, Callable[[MongoDBStore], Awaitable[Any]]] = {
    "a late call": lambda store: called(store, 9),
    "a late call of another experiment": lambda store: late_elsewhere(store),
    "a cost": lambda store: called(store, 1, cost=3.0),
    "an endpoint": lambda store: called(store, 1, endpoint="e-2"),
    "a user": lambda store: called(store, 1, user="bob"),
    "an hour": lambda store: called(store, 1, start=-20 * HOUR),
    "now": lambda store: called(store, 1, start=10**12),
    "spans that come late": lambda store: store.log_spans(
        "0", [span(trace_id(3), 2, start=5, attributes={SpanAttributeKey.LLM_COST: {"total_cost": 4.0}})]
    ),
    "deletion": lambda store: store.delete_traces("0", trace_ids=[trace_id(1)]),
    "deletion by age": lambda store: store.delete_traces("0", max_timestamp_millis=STARTED + 2 * HOUR),
    "its experiment": lambda store: gone(store),
    "all of its workspace": lambda store: give(store.database, "w"),
}


async def late_elsewhere(store: MongoDBStore) -> None:
    number = await store.create_experiment("late", None, [])
    await store.start_trace(stated(trace_id(8), number, trace_metadata=metadata()))


async def gone(store: MongoDBStore) -> None:
    experiment = await store.get_experiment_by_name("short")
    assert experiment is not None
    await store.delete_experiment(experiment.experiment_id)
    await store._hard_delete_experiment(experiment.experiment_id)


async def test_every_kind_of_change_outdates_the_sums(
    store: MongoDBStore, keen: None, used: list[int]
) -> None:
    questions: list[tuple[Any, ...]] = [
        (*EVER,),
        (*EVER, "w"),
        (*EVER, None, "e-1"),
        (*EVER, None, None, "ann"),
        (BEGAN - HOUR, BEGAN + HOUR, None, "e-1", "ann"),
    ]
    short = await store.create_experiment("short", None, [])
    for name, change in CHANGES.items():
        await called(store, 1)
        await called(store, 2, cost=0.5)
        await store.log_spans("0", [span(trace_id(3), 1)])
        no_cost = {TraceMetadataKey.GATEWAY_ENDPOINT_ID: "e-1"}
        await store.start_trace(stated(trace_id(3), trace_metadata=no_cost))
        await many_calls(store, 5, 1, BEGAN, 1, workspace="w")
        if name == "its experiment":
            await store.start_trace(stated(trace_id(4), short, trace_metadata=metadata()))
        await both(store, *EVER)  # makes those of all questions
        used.clear()
        before = [await store.sum_gateway_trace_cost(*asked) for asked in questions]
        assert all(used), name
        await change(store)
        assert [await both(store, *asked) for asked in questions] != before, name
        await store.database.everywhere(TraceFields).delete_many({"_id": trace_id(5)})
        await store.database.everywhere(TraceSumsFields).delete_many({})
        await store.delete_traces("0", max_timestamp_millis=2**62)


async def test_imports_and_rollbacks(store: MongoDBStore, store_uri: str, keen: None) -> None:
    await called(store, 1)
    document = await store.database.collection(TraceFields).find_one({"_id": trace_id(1)})
    assert document is not None
    dearer = {**document, "cost": {"total_cost": 1.0}}
    changes: list[tuple[Any, float]] = [
        (lambda target: target.write(TraceFields, [InsertOne(document | {"_id": trace_id(2)})]), 0.5),
        (lambda target: target.write("traces", [ReplaceOne({"_id": trace_id(1)}, dearer)]), 1.25),
        (lambda target: target.delete("traces", {"_id": trace_id(2)}), 1.0),
    ]
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        target = ImportTarget(client.get_default_database(), "", DEFAULT_WORKSPACE_NAME)
        for change, cost in changes:
            await both(store, *EVER)
            await asyncio.to_thread(change, target)
            assert await both(store, *EVER) == cost


@pytest.mark.parametrize("number", [60, 600])
async def test_work_does_not_grow_with_the_calls(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Those of six hours; and four that have just been made."""
    settle(monkeypatch, BEGAN + 7 * HOUR)
    await store.get_experiment("0")
    await many_calls(store, 0, number, BEGAN, 6 * HOUR // number)
    await many_calls(store, number, 4, BEGAN + 7 * HOUR, 1)
    await store.sum_gateway_trace_cost(*EVER)
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 10_000)
    total = (number + 4) * 0.25
    for calls, cost in (((), total), ((None, "e-1"), (number // 3 + 1) * 0.25), (("default",), total)):
        async with profiled(store.database) as queries:
            assert await store.sum_gateway_trace_cost(*EVER, *calls) == cost
        assert not any(query.scans_collection for query in queries)
        assert sum(query.documents for query in queries if query.collection == "traces") == 0
        assert sum(query.documents for query in queries) <= 9, "six hours, and what is empty"
        assert sum(query.keys for query in queries) <= 40, queries


async def test_making_sums_reads_each_call_once(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Besides the question itself; and the first call after each gap, by endpoint."""
    settle(monkeypatch, BEGAN + 7 * HOUR)
    await store.get_experiment("0")
    await many_calls(store, 0, 600, BEGAN, 6 * HOUR // 600)
    async with profiled(store.database) as queries:
        await store.sum_gateway_trace_cost(*EVER)
    of_traces = [query for query in queries if query.collection == "traces"]
    assert sum(query.keys for query in of_traces) <= 2 * 600 + 100, of_traces
    assert sum(query.documents for query in of_traces) <= 8 * 3
    assert not any(query.blocking_sort for query in of_traces)


async def test_an_hour_that_is_over_has_one_sum(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then one for each time that somebody asked."""
    await called(store, 1)
    await called(store, 2, 50 * 60_000)
    for minutes, expected in (
        (2, []),
        (17, [(0, 3)]),
        (31, [(0, 3)]),
        (57, [(0, 3), (3, 11)]),
        (62, [(0, 12)]),
        (3 * 60 + 2, [(0, 12)]),
    ):
        settle(monkeypatch, BEGAN + minutes * 60_000 + 999)
        assert await both(store, *EVER) == 0.5
        assert await pieces(store) == expected, minutes
    await called(store, 3, 26 * 60 * 60_000)
    settle(monkeypatch, BEGAN + 40 * HOUR)
    assert await both(store, *EVER) == 0.75
    assert await pieces(store) == [(0, 12), (12, 26 * 12), (26 * 12, 27 * 12)]


async def test_few_calls_are_not_worth_sums(store: MongoDBStore, commands: CommandRecorder) -> None:
    await called(store, 1)
    with commands.recording() as sent:
        assert await store.sum_gateway_trace_cost(*EVER) == 0.25
    assert [name for name, _ in sent] == ["aggregate", "aggregate"]
    assert await store.database.everywhere(TraceSumsFields).count_documents({}) == 0


async def test_old_sums_are_confirmed(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every answer would read what has been touched since."""
    await called(store, 1)
    await both(store, *EVER)
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 10_000)
    sums = store.database.everywhere(TraceSumsFields)
    made = [await sums.distinct("made")]
    for refresh in (3_600, -2):
        monkeypatch.setattr(kept_sums, "REFRESH_SECONDS", refresh)
        await store.sum_gateway_trace_cost(*EVER)
        made.append(await sums.distinct("made"))
    assert made[0] == made[1] < made[2]


async def test_recent_changes_are_in_doubt(
    store: MongoDBStore, keen: None, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may have read the clock before the sums were made, and show its change after."""
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 600)
    await called(store, 1)
    assert await both(store, *EVER) == 0.25
    assert used == [0, 1, 0], "they were taken, and found to be in doubt"


async def test_costs_that_are_no_numbers(store: MongoDBStore, keen: None) -> None:
    """Infinite ones add up as the server adds them."""
    await store.get_experiment("0")
    for number, cost in enumerate((float("inf"), 1.0, float("inf"))):
        await many_calls(store, number, 1, BEGAN + number * HOUR, 1, cost={"total_cost": cost})
    assert await both(store, *EVER) == float("inf")


@pytest.mark.parametrize("stage", ["_begin", "_confirm", "_tally", "_keep", "_go_on"])
async def test_a_maker_that_dies_leaves_nothing_wrong(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    dice = random.Random(7)
    method, deaths = getattr(costs._Maker, stage), []

    async def last(self: Any, *args: Any) -> Any:
        found = await method(self, *args)
        if dice.random() < 0.7:
            deaths.append(stage)
            raise PyMongoError("killed")
        return found

    monkeypatch.setattr(costs._Maker, stage, last)
    for number in range(1, 10):
        await called(store, number, dice.randrange(4 * HOUR), cost=dice.random())
        if number % 3 == 2:
            await store.delete_traces("0", trace_ids=[trace_id(number - 1)])
        await both(store, *question(dice))
    assert deaths


async def test_makers_that_overtake_each_other(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has summed up, when a call goes, others make sums, and the hour ends; then it writes its own."""
    settle(monkeypatch, BEGAN + HOUR // 2)
    for number in (1, 2):
        await called(store, number, number * 60_000)
    tally, overtaken = costs._Maker._tally, list[float]()

    async def slowly(self: Any, *args: Any) -> Any:
        found = await tally(self, *args)
        if not overtaken:
            overtaken.append(0.0)
            await store.delete_traces("0", trace_ids=[trace_id(1)])
            settle(monkeypatch, BEGAN + 2 * HOUR)
            overtaken.append(await both(store, *EVER))
        return found

    monkeypatch.setattr(costs._Maker, "_tally", slowly)
    await store.sum_gateway_trace_cost(*EVER)
    assert overtaken == [0.0, 0.25]
    assert await both(store, *EVER) == 0.25


async def test_sums_that_overlap_count_once(store: MongoDBStore, keen: None) -> None:
    """As of two makers, of whom one did not know yet that the hour is over."""
    await called(store, 1, 40 * 60_000)
    await both(store, *EVER)
    sums = store.database.everywhere(TraceSumsFields)
    whole = await sums.find_one({"costs.all.0": {"$exists": True}})
    assert whole is not None
    part = {**whole, "_id": costs.costs_key(BEGAN // costs.SLOT + 8), "until": BEGAN // costs.SLOT + 9}
    await sums.insert_one(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_sums, "WORTH_KEEPING", 10_000)
        assert await store.sum_gateway_trace_cost(*EVER) == 0.25


async def test_more_endpoints_than_one_merge_takes(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "_ENDPOINTS_AT_ONCE", 2)
    for number in range(5):
        await called(store, number + 1, (4 - number) * HOUR, endpoint=f"e-{number}")
    assert await both(store, *EVER) == 1.25
    assert (await pieces(store))[0] == (0, 12)


async def test_ranges_that_are_none(store: MongoDBStore, keen: None) -> None:
    await called(store, 1)
    for start, end in ((BEGAN + 1, BEGAN), (BEGAN, BEGAN), (2**62, 0)):
        assert await cost_of_traces(store.database, start, end, Calls()) == 0.0
