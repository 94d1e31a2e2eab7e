"""Spans of traces that their store wrote before, and that others may have changed since."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from mlflow.entities import Span
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow import MongoDBStore as BlockingStore
from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.documents import SpanFields, TraceFields
from genesis_flow.areas.traces.sums.documents import TraceSumsFields, note_key
from genesis_flow.areas.traces.writing.remembered import KnownTraces
from tests.areas.test_traces import plain
from tests.commands import CommandRecorder
from tests.contract.test_trace_ingest import family, tokens
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import before_3_18, since_3_18

ONE, TWO = trace_id(1), trace_id(2)
HOUR = 3_600_000
FAST = ["insert", "findAndModify"]
Change = Callable[[MongoDBStore], Awaitable[Any]]


@pytest.fixture
async def other(store: MongoDBStore, store_uri: str) -> AsyncIterator[MongoDBStore]:
    """A store that has seen nothing of what ``store`` wrote, like one of another process."""
    made = MongoDBStore(store_uri)
    await made.search_experiments()
    yield made
    await made.close()


async def trace_of(store: MongoDBStore, identifier: str = ONE) -> dict[str, Any]:
    trace = await store.database.collection(TraceFields).find_one({"_id": identifier})
    assert trace is not None
    return trace


async def spans_of(store: MongoDBStore, identifier: str = ONE) -> list[dict[str, Any]]:
    return await store.database.collection(SpanFields).find({"trace_id": identifier}).sort("_id").to_list()


async def assert_copies_are_right(store: MongoDBStore, identifier: str = ONE) -> None:
    trace = await trace_of(store, identifier)
    copies = {(each["experiment_id"], each["trace_time"]) for each in await spans_of(store, identifier)}
    assert copies == {(trace["experiment_id"], trace["request_time"])}


async def test_nothing_is_read_of_a_trace_of_its_own(store: MongoDBStore, commands: CommandRecorder) -> None:
    await store.start_trace(stated(ONE))
    for number in (1, 2, 3):
        with commands.recording() as sent:
            await store.log_spans("0", [span(ONE, number, start=number)])
        assert [name for name, _ in sent] == FAST
    await store.log_spans("0", [span(TWO, 1, start=5)])
    for start in (3, 7):
        with commands.recording() as sent:
            await store.log_spans("0", [span(TWO, 10 + start, 1, start=start)])
        # The trace, without a statement, begins with its earliest span.
        assert [name for name, _ in sent] == [*FAST, *(["update"] * 2 if start == 3 else [])]
    for identifier in (ONE, TWO):
        await assert_copies_are_right(store, identifier)
    assert [each.name for each in (await store.get_trace(ONE)).data.spans] == ["step"] * 3


@pytest.fixture
def blocking_store(store_uri: str) -> Iterator[BlockingStore]:
    made = BlockingStore(store_uri)
    yield made
    made.close()


def test_blocking_calls_share_what_they_know(
    blocking_store: BlockingStore, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blocking_store
    store.log_spans("0", plain(TWO))
    store.start_trace(stated(ONE))
    for identifier in (ONE, TWO):
        with commands.recording() as sent:
            store.log_spans("0", [span(identifier, 11, start=20)])
        assert [name for name, _ in sent] == FAST


async def test_bad_days_of_blocking_calls(blocking_store: BlockingStore, other: MongoDBStore) -> None:
    """All ways through a call."""

    async def log(*spans: Span) -> None:
        await asyncio.to_thread(blocking_store.log_spans, "1", list(spans))

    await other.create_experiment("elsewhere")
    await asyncio.to_thread(blocking_store.start_trace, stated(ONE, "1"))
    long = span(ONE, 1, attributes={"mlflow.spanInputs": "x" * 100_000} | tokens(4))
    await log(long)
    await log(span(ONE, 2, 1, attributes=tokens(3)), span(ONE, 3, 1))
    await log(long, span(ONE, 3, 1, name="anew", start=-HOUR))
    usage = (await other.get_trace_info(ONE)).token_usage
    assert usage is not None
    assert usage["input_tokens"] == 4  # the root speaks for all
    await assert_copies_are_right(other)
    await _archive(other)
    before = await spans_of(other)
    with pytest.raises(MlflowException, match="Cannot log spans to archived"):
        await log(span(ONE, 4, 1))
    assert await spans_of(other) == before
    await other.delete_traces("1", trace_ids=[ONE])
    await log(span(ONE, 5, start=-3))
    await log(span(ONE, 6, 5, start=-HOUR))
    assert (await trace_of(other))["request_time"] == STARTED - HOUR
    assert len(await spans_of(other)) == 2
    await _delete_with_experiment(other)
    for spans in ([span(ONE, 7)], [span(ONE, 7), span(TWO, 1)]):
        with pytest.raises(MlflowException, match="No Experiment with id=1"):
            await log(*spans)
    assert [await spans_of(other, identifier) for identifier in (ONE, TWO)] == [[], []]


async def _archive(other: MongoDBStore) -> None:
    await other.set_trace_tag(ONE, "mlflow.trace.spansLocation", "ARCHIVE_REPO")


async def _delete_with_experiment(other: MongoDBStore) -> None:
    await other.delete_traces("1", trace_ids=[ONE])
    await other.delete_experiment("1")
    await other._hard_delete_experiment("1")


async def _make_elsewhere(other: MongoDBStore) -> None:
    await other.delete_traces("1", trace_ids=[ONE])
    await other.log_spans("0", plain(ONE, 2))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_archive, "Cannot log spans to archived"),
        (_delete_with_experiment, "No Experiment with id=1"),
        pytest.param(_make_elsewhere, "already exists in another experiment", marks=since_3_18),
    ],
)
@pytest.mark.parametrize("is_stated", [False, True])
async def test_a_trace_that_takes_no_spans_any_more(
    store: MongoDBStore, other: MongoDBStore, change: Change, error: str, is_stated: bool
) -> None:
    await store.create_experiment("elsewhere")
    if is_stated:
        await store.start_trace(stated(ONE, "1"))
    await store.log_spans("1", plain(ONE))
    await change(other)
    before = [await spans_of(store), await store.database.collection(TraceFields).find().to_list()]
    # New ones; one that is there, with another content; both; and beside another trace.
    attempts = [
        [span(ONE, 20, 1)],
        [span(ONE, 2, 1, name="anew")],
        [span(ONE, 2, 1, name="anew"), span(ONE, 21, 1)],
        [span(ONE, 22, 1), span(TWO, 1)],
    ]
    for spans in attempts:
        with pytest.raises(MlflowException, match=error):
            await store.log_spans("1", spans)
        assert await spans_of(store) == before[0]
        assert await store.database.collection(TraceFields).find().to_list() == before[1]
    assert await spans_of(store, TWO) == []


async def test_one_of_two_traces_takes_no_spans(store: MongoDBStore, other: MongoDBStore) -> None:
    """The store knows both, and neither gets any."""
    for identifier in (ONE, TWO):
        await store.log_spans("0", plain(identifier, 2))
    await _archive(other)
    with pytest.raises(MlflowException, match="archived"):
        await store.log_spans("0", [span(TWO, 9, 1), span(ONE, 9, 1)])
    assert [len(await spans_of(store, identifier)) for identifier in (ONE, TWO)] == [2, 2]


async def test_a_call_that_is_refused_writes_nothing(
    store: MongoDBStore, other: MongoDBStore, commands: CommandRecorder
) -> None:
    """Of traces that the store does not know it asks before it writes."""
    await store.get_experiment("0")
    await other.log_spans("0", plain(ONE))
    await _archive(other)
    for location, identifier in (("0", ONE), ("77", TWO)):
        refused = pytest.raises(MlflowException, match=r"archived|No Experiment")
        with commands.recording() as sent, refused:
            await store.log_spans(location, [span(identifier, 1, 1)])
        assert [name for name, _ in sent] == ["aggregate"]


async def test_a_trace_that_another_store_made_and_deletes_meanwhile(
    store: MongoDBStore, other: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts anew, with all the spans of the call."""
    await other.log_spans("0", plain(ONE))
    read = store._read

    async def and_then_it_goes(*args: Any) -> Any:
        found = await read(*args)
        monkeypatch.undo()
        await other.delete_traces("0", trace_ids=[ONE])
        return found

    monkeypatch.setattr(store, "_read", and_then_it_goes)
    await store.log_spans("0", [span(ONE, 50, start=5)])
    assert [each.span_id for each in (await store.get_trace(ONE)).data.spans] == [span(ONE, 50).span_id]
    assert (await trace_of(store))["generation"] == 1
    await assert_copies_are_right(store)


async def test_a_trace_that_was_deleted_is_made_anew(store: MongoDBStore, other: MongoDBStore) -> None:
    await store.create_experiment("elsewhere")
    await store.start_trace(stated(ONE, "1", request_preview="old"))
    await other.delete_traces("1", trace_ids=[ONE])
    await store.log_spans("0", [span(ONE, 1, start=7)])
    trace = await trace_of(store)
    assert (trace["experiment_id"], trace["request_time"], trace["generation"]) == (0, STARTED + 7, 1)
    assert "request_preview" not in trace
    assert trace["artifact_location"].startswith((await store.get_experiment("0")).artifact_location)
    await assert_copies_are_right(store)


@before_3_18
@pytest.mark.parametrize("is_stated", [False, True])
@pytest.mark.parametrize("start", [-2 * HOUR, -20, 0, 20, 2 * HOUR])
async def test_a_trace_that_came_again_elsewhere(
    store: MongoDBStore, other: MongoDBStore, start: int, is_stated: bool
) -> None:
    await store.create_experiment("elsewhere")
    await store.log_spans("1", [span(ONE, 1, start=0)])
    await other.delete_traces("1", trace_ids=[ONE])
    if is_stated:
        await other.start_trace(stated(ONE, start=start, duration=5, state=TraceState.IN_PROGRESS))
    else:
        await other.log_spans("0", [span(ONE, 2, 1, start=start, end=start + 5)])
    await store.log_spans("1", [span(ONE, 3, start=10, end=12, status="ERROR")])
    info = await store.get_trace_info(ONE)
    assert info.experiment_id == "0"
    assert info.request_time == STARTED + (start if is_stated else min(start, 10))
    # The old trace had its status; this one gets it from its root.
    assert info.state == TraceState.ERROR
    await assert_copies_are_right(store)


async def test_what_others_decided_meanwhile_stands(store: MongoDBStore, other: MongoDBStore) -> None:
    inputs = {"mlflow.spanInputs": {"q": "late"}, "mlflow.trace.session": "late", "user.id": "late"}
    await store.log_spans("0", [span(ONE, 2, 1)])
    metadata = {"mlflow.trace.session": "first", "mlflow.trace.user": "first"}
    statement = stated(ONE, start=-5, duration=9, request_preview="first", trace_metadata=metadata)
    await other.start_trace(statement)
    await store.log_spans("0", [span(ONE, 1, status="ERROR", start=-HOUR, attributes=inputs)])
    info = await store.get_trace_info(ONE)
    assert (info.request_time, info.execution_duration, info.state) == (STARTED - 5, 9, TraceState.OK)
    assert info.request_preview == "first"
    assert {info.trace_metadata[key] for key in metadata} == {"first"}
    await assert_copies_are_right(store)


async def test_what_others_opened_again_is_decided(store: MongoDBStore, other: MongoDBStore) -> None:
    """The store remembers a trace that has everything; then another client takes it back."""
    metadata = {"mlflow.trace.session": "old", "mlflow.trace.user": "old"}
    await store.start_trace(stated(ONE, request_preview="old", trace_metadata=metadata))
    nobody: dict[str, Any] = {"mlflow.trace.session": None, "mlflow.trace.user": None}
    await other.start_trace(stated(ONE, state=TraceState.IN_PROGRESS, trace_metadata=nobody))
    inputs = {"mlflow.spanInputs": "new", "session.id": "new", "user.id": "new"}
    await store.log_spans("0", [span(ONE, 1, status="ERROR", attributes=inputs)])
    info = await store.get_trace_info(ONE)
    assert info.state == TraceState.ERROR
    assert info.request_preview == "old"
    assert {info.trace_metadata.get(key) for key in metadata} == {"new"}


async def test_a_status_that_others_opened_again(store: MongoDBStore, other: MongoDBStore) -> None:
    await store.start_trace(stated(ONE))
    await other.start_trace(stated(ONE, state=TraceState.IN_PROGRESS))
    await store.log_spans("0", [span(ONE, 1, status="ERROR")])
    assert (await store.get_trace_info(ONE)).state == TraceState.ERROR


async def test_a_user_that_others_took_back(store: MongoDBStore, other: MongoDBStore) -> None:
    await store.start_trace(stated(ONE, trace_metadata={"mlflow.trace.user": "old"}))
    nobody: dict[str, Any] = {"mlflow.trace.user": None}
    await other.start_trace(stated(ONE, trace_metadata=nobody))
    await store.log_spans("0", [span(ONE, 2, 1, attributes={"user.id": "new"})])
    assert (await store.get_trace_info(ONE)).trace_metadata["mlflow.trace.user"] == "new"


@pytest.mark.parametrize(
    ("experiment", "came_again", "then"),
    [
        ("1", HOUR, 5),
        *(pytest.param("0", *times, marks=before_3_18) for times in ((0, -HOUR), (HOUR, 5), (HOUR, -HOUR))),
    ],
)
async def test_a_trace_that_came_again_is_announced_to_leave(
    store: MongoDBStore, other: MongoDBStore, experiment: str, came_again: int, then: int
) -> None:
    """Where it really is: readers who keep sums rely on it."""
    await store.create_experiment("elsewhere")
    await store.log_spans("1", [span(ONE, 2, 1, start=0)])
    await other.delete_traces("1", trace_ids=[ONE])
    await other.log_spans(experiment, [span(ONE, 2, 1, start=came_again)])
    notes = store.database.collection(TraceSumsFields)
    await notes.delete_many({})
    await store.log_spans("1", [span(ONE, 3, 1, start=then)])
    assert (await trace_of(store))["request_time"] == STARTED + then
    left = note_key(DEFAULT_WORKSPACE_NAME, int(experiment), (STARTED + came_again) // HOUR)
    assert await notes.find_one({"_id": left}) is not None


@pytest.mark.parametrize("seed", range(3))
async def test_spans_one_by_one_from_two_stores(store: MongoDBStore, other: MongoDBStore, seed: int) -> None:
    """Both remember the trace, and each change makes the other's memory outdated."""
    await store.log_spans("0", family(TWO))
    expected = await store.get_trace_info(TWO)
    dice = random.Random(seed)
    deliveries = [(client, each) for each in family(ONE) * 2 for client in (store, other)]
    dice.shuffle(deliveries)
    for client, each in deliveries:
        await client.log_spans("0", [each])
    info = await store.get_trace_info(ONE)
    for name in ("request_time", "execution_duration", "state", "request_preview", "trace_metadata"):
        assert getattr(info, name) == getattr(expected, name), name
    assert len(await spans_of(store)) == 4
    await assert_copies_are_right(store)


async def test_sums_of_a_trace_that_another_store_added_to(store: MongoDBStore, other: MongoDBStore) -> None:
    await store.start_trace(stated(ONE))
    await other.log_spans("0", [span(ONE, 2, 1, attributes=tokens(5))])
    await store.log_spans("0", [span(ONE, 1)])
    await store.log_spans("0", [span(ONE, 3, 1, attributes=tokens(7))])
    await other.log_spans("0", [span(ONE, 4, 1, attributes=tokens(1))])
    usage = (await store.get_trace_info(ONE)).token_usage
    assert usage is not None
    assert usage["input_tokens"] == 13
    spans = await spans_of(store)
    assert sum(each["usage"]["input_tokens"] for each in spans if "usage" in each) == 13


async def test_what_stores_remember_changes_nothing(store: MongoDBStore, other: MongoDBStore) -> None:
    """Calls of two stores that remember leave what those leave of which each has just been made."""
    for seed in range(25):
        left = [
            await _leave(store, other, random.Random(seed), trace_id(seed * 2 + forgets + 10), bool(forgets))
            for forgets in (0, 1)
        ]
        assert left[0] == left[1], seed


async def _leave(
    store: MongoDBStore, other: MongoDBStore, dice: random.Random, identifier: str, forgets: bool
) -> Any:
    """What becomes of a trace by some calls, and how each of them ended."""
    ends = []
    for _ in range(8):
        client = dice.choice([store, other])
        if forgets:
            client._known_traces = KnownTraces()
        try:
            ends.append(await _call(client, dice, identifier))
        except MlflowException as error:
            ends.append(error.message.replace(identifier, ""))
    trace = await store.database.collection(TraceFields).find_one({"_id": identifier}) or {}
    fields = {name: value for name, value in trace.items() if name not in ("_id", "touched")}
    spans = [
        (each["_id"].removeprefix(identifier), each["name"], each["experiment_id"], each["trace_time"])
        for each in await spans_of(store, identifier)
    ]
    return [ends, fields | {"artifact_location": None}, spans]


async def _call(client: MongoDBStore, dice: random.Random, identifier: str) -> Any:
    start = dice.choice([-HOUR, -5, 0, 5, HOUR])
    match dice.randrange(8):
        case 0:
            return await client.delete_traces("0", trace_ids=[identifier])
        case 1:
            place = dice.choice(["ARCHIVE_REPO", "TRACKING_STORE", "TRACKING_STORE"])
            return await client.set_trace_tag(identifier, "mlflow.trace.spansLocation", place)
        case 2 | 3:
            state = dice.choice([TraceState.OK, TraceState.IN_PROGRESS])
            user = {"mlflow.trace.user": "stated"} if dice.random() < 0.5 else {}
            info = stated(identifier, start=start, state=state, request_preview="p", trace_metadata=user)
            return (await client.start_trace(info)).state
        case _:
            parent, status = dice.choice([None, 1]), dice.choice(["OK", "ERROR"])
            more = dice.choice([None, tokens(3), {"mlflow.spanInputs": "asked", "user.id": "inferred"}])
            one = span(identifier, dice.randint(1, 5), parent, start=start, status=status, attributes=more)
            return len(await client.log_spans("0", [one]))


def test_the_memory_is_bounded() -> None:
    known = KnownTraces(100)
    for number in range(1_000):
        known.keep(str(number), {"experiment_id": number})
        for kept in range(max(0, number - 99), number + 1):
            assert known.get(str(kept)) == {"experiment_id": kept}
        assert len(known) <= 200
    assert known.get("0") is None
