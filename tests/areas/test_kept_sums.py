"""Sums of traces that readers keep: what they save, and that no answer differs from that of the traces."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
import pytest
from bson.timestamp import Timestamp
from mlflow.entities import ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.entities.trace_state import TraceState
from mlflow.entities.trace_status import TraceStatus
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo import InsertOne, ReplaceOne

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.sums import departures, methods
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.areas.traces.sums import merging as sums
from genesis_flow.areas.traces.sums.documents import COSTS, TraceSumsFields
from genesis_flow.areas.traces.sums.metrics import _TRACES
from genesis_flow.importers.target import ImportTarget
from tests.areas.explain import profiled
from tests.areas.trace_writer import DAY, HOUR, NAME, TraceWriter
from tests.commands import CommandRecorder
from tests.contract.test_trace_ingest import tokens
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.mongod import Mongod
from tests.versions import SINCE_3_18

METRICS = [name for name in _TRACES if name != "session_count"]


@pytest.fixture
def whole_days(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The days that were answered from sums."""
    used: list[int] = []
    monkeypatch.setattr(
        kept_sums, "regrouped", lambda day, *a: (used.append(day), sums.regrouped(day, *a))[1]
    )
    return used


@contextmanager
def without_sums() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "can_be_kept", lambda grouping: False)
        yield


def question(dice: random.Random) -> tuple[Any, dict[str, Any]]:
    name = dice.choice(METRICS)
    metric = _TRACES[name]
    plain = [MetricAggregation(each) for each in metric.aggregations - {AggregationType.PERCENTILE}]
    asked = dice.sample(plain, dice.randint(1, len(plain)))
    if AggregationType.PERCENTILE in metric.aggregations and dice.random() < 0.4:
        asked.append(MetricAggregation(AggregationType.PERCENTILE, dice.choice([0.0, 37.5, 95.0, 100.0])))
    options: dict[str, Any] = {
        "dimensions": dice.sample(list(metric.dimensions), dice.randint(0, len(metric.dimensions)))
    }
    if dice.random() < 0.6:
        options["start_time_ms"] = STARTED + dice.choice([-2 * DAY, 0, 5 * HOUR, DAY - STARTED % DAY])
        options["end_time_ms"] = STARTED + dice.choice([6 * HOUR, 2 * DAY, 4 * DAY - STARTED % DAY - 1])
        if dice.random() < 0.7:
            options["time_interval_seconds"] = dice.choice([3_600, 86_400, 2 * 86_400])
    experiments = dice.choice([["0"], ["1"], ["0", "1"]])
    return (experiments, MetricViewType.TRACES, name, asked), options


async def ask(store: MongoDBStore, asked: tuple[Any, dict[str, Any]]) -> list[Any]:
    args, options = asked
    points = await store.query_trace_metrics(*args, **options)
    return [(each.dimensions, each.values, [type(v) for v in each.values.values()]) for each in points]


async def compare(store: MongoDBStore, asked: tuple[Any, dict[str, Any]]) -> None:
    answer = await ask(store, asked)
    with without_sums():
        expected = await ask(store, asked)
    assert answer == expected, asked


@pytest.fixture
async def filled(store: MongoDBStore) -> MongoDBStore:
    await store.create_experiment("second", None, [])
    return store


@pytest.mark.parametrize(
    ("seed", "limits"), [(0, {}), (1, {}), (2, {"_MOST_BYTES": 40}), (3, {"_MOST_ROWS": 2})]
)
async def test_every_change_is_seen_at_once(
    filled: MongoDBStore,
    keen: None,
    whole_days: list[int],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    limits: dict[str, int],
) -> None:
    """Also of days that are not over yet, and of those that are too much to keep."""
    for name, most in limits.items():
        monkeypatch.setattr(sums, name, most)
    dice = random.Random(seed)
    writer = TraceWriter(filled, dice)
    for _ in range(20):
        await writer.step()
    questions = [question(dice) for _ in range(8)]
    for hours in range(-6, 54):
        settled = STARTED / 1000 + 2 * hours * 3_600
        monkeypatch.setattr(kept_sums, "SETTLED_SECONDS", int(time.time() - settled))
        await writer.step()
        for asked in dice.sample(questions, 2):
            await compare(filled, asked)
        if dice.random() < 0.2:
            questions[dice.randrange(8)] = question(dice)
    assert len(whole_days) > 25, "sums answer a good part of the questions"


# What is kept of the costs of all experiments comes behind that of any workspace.
OF_EXPERIMENTS = {"_id": {"$lt": COSTS}}
COUNT = (["0"], MetricViewType.TRACES, "trace_count", [MetricAggregation(AggregationType.COUNT)])


async def kept_count(store: MongoDBStore, experiment: str = "0", until: int | None = None) -> Any:
    """How many traces there are, as old sums say, and then as those say that have just been made."""
    first, second = [
        await store.query_trace_metrics([experiment], *COUNT[1:], end_time_ms=until) for _ in range(2)
    ]
    assert first[0].values == second[0].values
    return first[0].values["COUNT"]


CHANGES: dict[str, Callable[[MongoDBStore], Awaitable[Any]]] = {
    "new spans": lambda store: store.log_spans("0", [span(trace_id(9), 1, start=5)]),
    "a late span": lambda store: store.log_spans("0", [span(trace_id(2), 2, 1, start=5, end=99_999)]),
    "an earlier span": lambda store: store.log_spans("0", [span(trace_id(1), 2, 1, start=-DAY)]),
    "late tokens": lambda store: store.log_spans("0", [span(trace_id(1), 2, start=5, attributes=tokens(50))]),
    "a new trace": lambda store: store.start_trace(stated(trace_id(9))),
    "a status": lambda store: store.start_trace(stated(trace_id(1), state=TraceState.ERROR)),
    "another hour": lambda store: store.start_trace(stated(trace_id(1), start=HOUR)),
    "another day": lambda store: store.start_trace(stated(trace_id(1), start=DAY)),
    "today": lambda store: store.start_trace(stated(trace_id(1), start=10**12)),
    **({} if SINCE_3_18 else {"elsewhere": lambda store: store.start_trace(stated(trace_id(1), "1"))}),
    "a name": lambda store: store.set_trace_tag(trace_id(1), NAME, "new"),
    "no name": lambda store: store.delete_trace_tag(trace_id(1), NAME),
    "deletion": lambda store: store.delete_traces("0", trace_ids=[trace_id(1)]),
    "deletion by age": lambda store: store.delete_traces(
        "0", max_timestamp_millis=STARTED + DAY, max_traces=1
    ),
    "a v2 trace": lambda store: store.deprecated_start_trace_v2("0", STARTED, {}, {}),
    "a v2 end": lambda store: store.deprecated_end_trace_v2(
        trace_id(1), STARTED + 77, TraceStatus.ERROR, {}, {}
    ),
}


def aggregations(name: str) -> list[MetricAggregation]:
    return [MetricAggregation(how) for how in _TRACES[name].aggregations - {AggregationType.PERCENTILE}]


async def test_every_kind_of_change_outdates_the_sums(
    filled: MongoDBStore, keen: None, whole_days: list[int]
) -> None:
    questions: list[tuple[Any, dict[str, Any]]] = [
        (([experiment], MetricViewType.TRACES, name, aggregations(name)), {"dimensions": dimensions})
        for experiment, name, dimensions in [
            ("0", "trace_count", []),
            ("1", "trace_count", []),
            ("0", "trace_count", ["trace_name", "trace_status"]),
            ("0", "latency", ["trace_name"]),
            ("0", "total_tokens", []),
        ]
    ]
    for name, change in CHANGES.items():
        for number in (1, 2):
            spent = tokens(3) if number == 1 else {}
            await filled.log_spans("0", [span(trace_id(number), 1, start=number, attributes=spent)])
            await filled.set_trace_tag(trace_id(number), NAME, "old")
        for asked in questions:
            await ask(filled, asked)  # makes the sums
        whole_days.clear()
        before = [await ask(filled, asked) for asked in questions]
        assert len(whole_days) >= 4
        await change(filled)
        after = [await ask(filled, asked) for asked in questions]
        with without_sums():
            expected = [await ask(filled, asked) for asked in questions]
        assert after == expected, name
        assert after != before, name
        for experiment in ("0", "1"):
            await filled.delete_traces(experiment, max_timestamp_millis=2**62)


@pytest.mark.parametrize(
    ("before", "after"),
    [(-10 * HOUR, HOUR), (HOUR, -10 * HOUR), (-HOUR, -10 * HOUR), (-60_000, 60_000), (60_000, -60_000)],
)
@pytest.mark.parametrize("how", ["stated", "spans"])
async def test_a_trace_that_moves_within_a_day_that_is_not_over(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch, how: str, before: int, after: int
) -> None:
    monkeypatch.setattr(kept_sums, "SETTLED_SECONDS", int(time.time() - STARTED / 1000))
    assert (STARTED + before) // DAY == (STARTED + after) // DAY, "the same day"
    await store.start_trace(stated(trace_id(2), start=before))
    await store.log_spans("0", [span(trace_id(1), 1, start=before)])
    assert await kept_count(store) == 2
    if how == "stated":
        await store.start_trace(stated(trace_id(1), start=after))
    else:
        await store.log_spans("0", [span(trace_id(1), 2, start=after)])
    assert await kept_count(store) == 2


async def test_a_day_that_is_not_over_has_no_sums(
    store: MongoDBStore, keen: None, whole_days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor has one without traces, unless it lies between some that have them."""
    today = STARTED // DAY
    for day in (-40, -3, -1, 0):
        await store.start_trace(stated(trace_id(day + 50), start=day * DAY))
    # A minute early: the server asks its own clock, somewhat later.
    settled = (today + 1) * DAY - 60_000
    for _ in range(2):
        monkeypatch.setattr(kept_sums, "SETTLED_SECONDS", int(time.time() - settled / 1000) + 1)
        assert await kept_count(store) == 4
        sums_of_days = store.database.collection(TraceSumsFields).find({"made": {"$exists": True}})
        kept = [int(each["_id"].rpartition("|")[2]) - today for each in await sums_of_days.to_list()]
        assert sorted(kept) == ([-40, -3, -2, -1] if settled < (today + 1) * DAY else [-40, -3, -2, -1, 0])
        settled += 2 * 3_600_000
    assert {day - today for day in whole_days} == {-40, -3, -2, -1, 0}


async def test_sums_of_tokens_that_come_late_are_seen(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace knows of its spans before it knows what they spent; here, others make sums in between."""
    asked = ((["0"], MetricViewType.TRACES, "total_tokens", aggregations("total_tokens")), {})
    await store.log_spans("0", [span(trace_id(1), 1, attributes=tokens(3))])
    sum_up = store._sum_up_spans

    async def later(*args: Any) -> None:
        for _ in range(2):
            await compare(store, asked)
        await sum_up(*args)

    monkeypatch.setattr(store, "_sum_up_spans", later)
    before = await ask(store, asked)
    await store.log_spans("0", [span(trace_id(1), 2, attributes=tokens(30))])
    assert await ask(store, asked) != before
    await compare(store, asked)


async def test_an_answer_from_sums_reads_no_traces(
    store: MongoDBStore, keen: None, commands: CommandRecorder
) -> None:
    for number in range(40):
        await store.start_trace(stated(trace_id(number), start=number * HOUR))
    assert await kept_count(store) == 40
    with commands.recording() as sent:
        assert (await store.query_trace_metrics(*COUNT))[0].values["COUNT"] == 40
    # What follows is the upkeep of sums, which here happens every time.
    assert [name for name, _ in sent][:4] == ["find", "aggregate", "aggregate", "aggregate"]
    async with profiled(store.database) as queries:
        await store.query_trace_metrics(*COUNT)
    of_traces = [query for query in queries[:4] if query.collection == "traces"]
    assert len(of_traces) == 3
    assert all(query.keys <= 1 and query.documents == 0 for query in of_traces), of_traces
    assert not any(query.scans_collection for query in queries)


async def test_few_traces_are_not_worth_sums(store: MongoDBStore, commands: CommandRecorder) -> None:
    await store.start_trace(stated(trace_id(1)))
    with commands.recording() as sent:
        await store.query_trace_metrics(*COUNT)
        await store.query_trace_metrics(*COUNT)
    assert [name for name, _ in sent] == ["find", "aggregate", "aggregate"]
    assert await store.database.collection(TraceSumsFields).count_documents({}) == 0


async def test_old_sums_are_confirmed(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every answer would read what has been touched since."""
    for number in (1, 2):
        await store.start_trace(stated(trace_id(number), start=number * DAY))
    await store.query_trace_metrics(*COUNT)
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 10_000)
    days = store.database.collection(TraceSumsFields)
    made = [await days.distinct("made")]
    for refresh in (3_600, -2):
        monkeypatch.setattr(kept_sums, "REFRESH_SECONDS", refresh)
        await store.query_trace_metrics(*COUNT)
        made.append(await days.distinct("made"))
    assert made[0] == made[1] < made[2]
    assert len(made[2]) == 1, "of all days at once"
    assert await days.count_documents({"rows": {"$exists": True}}) == 2


async def test_recent_changes_are_in_doubt(
    store: MongoDBStore, keen: None, whole_days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may have read the clock before the sums were made, and show its change after."""
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 60)
    await store.start_trace(stated(trace_id(1)))
    assert await kept_count(store) == 1
    assert whole_days == []
    traces = store.database.collection(TraceFields)
    await traces.update_one({"_id": trace_id(1)}, {"$unset": {"touched": ""}})
    assert await kept_count(store) == 1
    assert whole_days


async def test_after_many_changes_the_traces_are_asked(
    store: MongoDBStore, keen: None, whole_days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        await store.start_trace(stated(trace_id(number), start=number * 24 * HOUR))
    assert await kept_count(store) == 6
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 10_000)  # so the sums stay as they are
    await store.set_trace_tag(trace_id(1), "mlflow.traceName", "new")
    for most, from_sums in ((2, True), (1, False)):
        monkeypatch.setattr(kept_sums, "MOST_CHANGES", most)
        whole_days.clear()
        assert (await kept_count(store), bool(whole_days)) == (6, from_sums)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_traces_are_announced_before_they_go(store: MongoDBStore, keen: None, moment: str) -> None:
    """Killed before the change, or right after it: the sums do not count any more either way."""
    for number in (1, 2):
        await store.start_trace(stated(trace_id(number)))
    assert await kept_count(store) == 2

    async def killed() -> None:
        async with departures.departing(store.database, [(0, STARTED)]):
            if moment == "after":
                await store.database.collection(TraceFields).delete_one({"_id": trace_id(1)})
            raise KeyError("killed")

    with pytest.raises(KeyError):
        await killed()
    assert await kept_count(store) == (1 if moment == "after" else 2)


async def test_a_deleted_experiment_leaves_no_sums(store: MongoDBStore, keen: None) -> None:
    number = await store.create_experiment("short", None, [])
    await store.start_trace(stated(trace_id(1), number))
    assert await kept_count(store, number) == 1
    await store.delete_experiment(number)
    assert (await store.search_experiments(ViewType.DELETED_ONLY))[0].experiment_id == number
    await store._hard_delete_experiment(number)
    assert await store.database.collection(TraceSumsFields).count_documents(OF_EXPERIMENTS) == 0
    assert await kept_count(store, number) == 0


async def test_sums_of_an_older_version_count_for_nothing(store: MongoDBStore, keen: None) -> None:
    """Nor do those of this one for it: its days need the version that its head names."""
    await store.start_trace(stated(trace_id(1)))
    key, version = f"{DEFAULT_WORKSPACE_NAME}|0|trace_count", Timestamp(2**32 - 1, 1)
    day = STARTED // DAY
    sums_of_all = store.database.collection(TraceSumsFields)
    await sums_of_all.insert_many(
        [
            {"_id": key, "made": version, "until": STARTED + DAY, "days": [[day, version]]},
            {"_id": f"{key}|{day}", "version": version, "rows": [{"key": [None, "OK"], "count": 7}]},
        ]
    )
    assert await kept_count(store) == 1
    assert await sums_of_all.count_documents({"version": {"$exists": True}}) == 0


async def test_sums_may_be_dropped(store: MongoDBStore, keen: None) -> None:
    await store.start_trace(stated(trace_id(1)))
    for _ in range(2):
        assert await kept_count(store) == 1
        await store.database.collection(TraceSumsFields).drop()
        await store.delete_traces("0", trace_ids=[trace_id(2)])
        await store.start_trace(stated(trace_id(1)))


async def test_imports_and_rollbacks(store: MongoDBStore, store_uri: str, keen: None) -> None:
    await store.start_trace(stated(trace_id(1)))
    document = await store.database.collection(TraceFields).find_one({"_id": trace_id(1)})
    assert document is not None
    moved = {**document, "request_time": STARTED + DAY}
    changes: list[tuple[Any, int, int]] = [
        (lambda target: target.write(TraceFields, [InsertOne(document | {"_id": trace_id(2)})]), 2, 2),
        (lambda target: target.write("traces", [ReplaceOne({"_id": trace_id(1)}, moved)]), 1, 2),
        (lambda target: target.delete("traces", {"_id": trace_id(2)}), 0, 1),
    ]
    with pymongo.MongoClient(store_uri) as client:
        target = ImportTarget(client.get_default_database(), "", DEFAULT_WORKSPACE_NAME)
        for change, on_the_day, ever in changes:
            assert await kept_count(store, until=STARTED + DAY - 1) >= 1
            await asyncio.to_thread(change, target)
            assert await kept_count(store, until=STARTED + DAY - 1) == on_the_day
            assert await kept_count(store) == ever


async def test_racing_writers_and_readers_come_to_the_same(
    filled: MongoDBStore, store_uri: str, keen: None, whole_days: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writer has its own client. Of so many days most are no longer touched when they are done."""
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 1)
    monkeypatch.setattr(sums, "_MOST_RANGES", 1_000)
    days = 100
    ever = {"start_time_ms": STARTED - DAY, "end_time_ms": STARTED + (days + 1) * DAY}
    questions: list[tuple[Any, dict[str, Any]]] = [
        (([experiment], MetricViewType.TRACES, name, aggregations(name)), {**ever, **by_day})
        for experiment in ("0", "1")
        for name in ("trace_count", "latency", "total_tokens")
        for by_day in ({"time_interval_seconds": 86_400, "dimensions": list(_TRACES[name].dimensions)}, {})
    ]
    writing = True

    async def write(seed: int) -> None:
        async with MongoDBStore(f"{store_uri}&appName=writer{seed}") as store:
            writer = TraceWriter(store, random.Random(seed), days)  # all of them write to the same traces
            for _ in range(80):
                await writer.step()

    async def read(seed: int) -> None:
        dice = random.Random(seed)
        while writing:
            await ask(filled, dice.choice(questions))

    async with asyncio.TaskGroup() as readers:
        for seed in (11, 12):
            readers.create_task(read(seed))
        await asyncio.gather(*(write(seed) for seed in (1, 2, 3)))
        writing = False
    for pause in (0, 2, 0):  # some in doubt; made anew, without doubt; from sums
        await asyncio.sleep(pause)
        whole_days.clear()
        for asked in questions:
            await compare(filled, asked)
        assert whole_days


async def test_without_transactions(standalone: Mongod, database_name: str, keen: None) -> None:
    async with MongoDBStore(standalone.database_uri(database_name)) as store:
        await store.start_trace(stated(trace_id(1)))
        await store.start_trace(stated(trace_id(2), start=DAY))
        assert await kept_count(store) == 2
        assert await store.database.collection(TraceSumsFields).find_one({"made": {"$exists": True}})
        await store.delete_traces("0", trace_ids=[trace_id(1)])
        assert await kept_count(store) == 1
        await store.database.client.drop_database(database_name)
