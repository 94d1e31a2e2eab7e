"""Traces: round trips, races, redelivery, long contents, and what the server reads for a page."""

import asyncio
import random
from typing import Any

import pytest
from mlflow.entities import Feedback
from mlflow.entities.model_registry import PromptVersion
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import TraceTagKey

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from tests.areas.explain import profiled
from tests.commands import CommandRecorder
from tests.contract.test_trace_ingest import family
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.mongod import Mongod
from tests.versions import before_3_18

ONE, TWO = trace_id(1), trace_id(2)
DAYS = {"time_interval_seconds": 86_400, "start_time_ms": 0, "end_time_ms": 2 * STARTED}


def plain(identifier: str, count: int = 10) -> list[Any]:
    return [span(identifier, n, None if n == 1 else 1, start=n, end=50 + n) for n in range(1, count + 1)]


async def test_round_trips(store: MongoDBStore, commands: CommandRecorder) -> None:
    await store.log_spans("0", plain(TWO))
    with commands.recording() as sent:
        await store.log_spans("0", plain(ONE))
    assert [name for name, _ in sent] == ["aggregate", "insert", "findAndModify"]
    with commands.recording() as sent:
        await store.start_trace(stated(ONE))
    assert [name for name, _ in sent][:2] == ["aggregate", "findAndModify"]
    with commands.recording() as sent:
        await store.log_spans("0", [span(ONE, 11, 1, start=20)])
    assert [name for name, _ in sent] == ["insert", "findAndModify"]
    with commands.recording() as sent:
        await store.log_spans("0", [span(ONE, 11, 1, start=20)])
    assert [name for name, _ in sent] == ["insert", "aggregate", "update", "findAndModify"]
    with commands.recording() as sent:
        await store.log_spans("0", [span(ONE, 12, 1, start=20), span(TWO, 12, 1, start=20)])
    assert [name for name, _ in sent] == ["aggregate", "update", "findAndModify", "findAndModify"]
    with commands.recording() as sent:
        await store.start_trace(stated(trace_id(3)))
    assert [name for name, _ in sent] == ["aggregate", "findAndModify"]
    with commands.recording() as sent:
        await store.search_traces(["0"])
    assert [name for name, _ in sent] == ["find", "find"]
    with commands.recording() as sent:
        await store.get_trace(ONE)
    assert [name for name, _ in sent] == ["find", "find", "find"]
    with commands.recording() as sent:
        await store.set_trace_tag(ONE, "t", "v")
    assert [name for name, _ in sent] == ["update"]


async def test_a_new_trace_may_come_with_its_assessments(store: MongoDBStore) -> None:
    info = await store.start_trace(stated(ONE, assessments=[Feedback(name="good", value=True, trace_id=ONE)]))
    assert [each.name for each in info.assessments] == ["good"]
    assert [each.name for each in (await store.get_trace_info(ONE)).assessments] == ["good"]
    assert (await store.start_trace(stated(ONE))).assessments == info.assessments


@pytest.mark.parametrize("seed", range(3))
async def test_racing_deliveries_come_to_one_trace(store: MongoDBStore, store_uri: str, seed: int) -> None:
    """Spans one by one, twice, from two clients at once, in any order, while the trace is stated."""
    await store.log_spans("0", family(TWO))
    expected = await store.get_trace_info(TWO)
    dice = random.Random(seed)
    other = MongoDBStore(store_uri)
    await other.search_experiments()
    calls = [client.log_spans("0", [each]) for client in (store, other) for each in family(ONE) * 2]
    calls += [client.link_traces_to_run([ONE], "a" * 32) for client in (store, other)]
    dice.shuffle(calls)
    try:
        await asyncio.gather(*calls)
    finally:
        await other.close()
    info = await store.get_trace_info(ONE)
    for field in ("request_time", "execution_duration", "state", "request_preview", "response_preview"):
        assert getattr(info, field) == getattr(expected, field), field
    assert info.trace_metadata == expected.trace_metadata
    assert len((await store.get_trace(ONE)).data.spans) == 4
    times = {
        each["trace_time"] async for each in store.database.collection(SpanFields).find({"trace_id": ONE})
    }
    assert times == {expected.request_time}


async def test_racing_statements_and_spans(store: MongoDBStore) -> None:
    for number in range(10, 30):
        identifier = trace_id(number)
        statement = stated(identifier, start=0, duration=77, tags={"t": "1"})
        calls = [store.log_spans("0", [each]) for each in family(identifier)]
        await asyncio.gather(*calls, store.start_trace(statement), store.start_trace(statement))
        info = await store.get_trace_info(identifier)
        assert (info.request_time, info.execution_duration, info.tags["t"]) == (STARTED, 77, "1")
        assert info.token_usage is not None
        assert info.token_usage["input_tokens"] == 12


async def test_sums_follow_a_span_that_changes(store: MongoDBStore) -> None:
    await store.log_spans("0", family(ONE))
    attributes = {"mlflow.chat.tokenUsage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    await store.log_spans("0", [span(ONE, 4, 1, attributes=attributes)])
    usage = (await store.get_trace_info(ONE)).token_usage
    assert usage == {"input_tokens": 8, "output_tokens": 2, "total_tokens": 10}


async def test_a_parent_that_joins_two_sums(store: MongoDBStore) -> None:
    """A span that spends nothing may tell that one which does lies below another that does."""
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 5, "output_tokens": 0, "total_tokens": 5}}
    await store.log_spans("0", [span(ONE, 1, attributes=usage), span(ONE, 3, 2, attributes=usage)])
    assert (await store.get_trace_info(ONE)).token_usage["input_tokens"] == 10  # type: ignore[index]
    await store.log_spans("0", [span(ONE, 2, 1)])
    assert (await store.get_trace_info(ONE)).token_usage["input_tokens"] == 5  # type: ignore[index]


async def test_long_contents(store: MongoDBStore) -> None:
    text = "wörd " * 4_000_000  # 24 MB: more than a document holds
    spans = [
        span(ONE, 1, attributes={"mlflow.spanInputs": text}),
        span(ONE, 2, 1, name="half", attributes={"mlflow.spanInputs": "n" * 70_000 + "needle"}),
        span(ONE, 3, 1),
    ]
    await store.log_spans("0", spans)
    await store.log_spans("0", plain(TWO))
    read = (await store.get_trace(ONE)).data.spans
    assert [each.inputs for each in read] == [text, "n" * 70_000 + "needle", None]
    for words in ("wörd wörd", "needle"):
        found, _ = await store.search_traces(["0"], f"trace.text LIKE '%{words}%'")
        assert [info.trace_id for info in found] == [ONE]
    assert (await store.search_traces(["0"], "trace.text LIKE '%needle%' AND span.name = 'step'"))[0] == []
    pieces = [each async for each in store.database.collection(SpanPayloadFields).find({}, {"_id": 1})]
    assert len(pieces) > 4
    await store.log_spans("0", spans[2:])
    assert await store.delete_traces("0", trace_ids=[ONE]) == 1
    for fields in (SpanPayloadFields, AssessmentFields):
        assert await store.database.collection(fields).count_documents({}) == 0
    assert await store.database.collection(SpanFields).count_documents({}) == 10


async def test_many_spans_and_assessments(store: MongoDBStore) -> None:
    await store.log_spans("0", plain(ONE, 2_000))
    await asyncio.gather(
        *(store.create_assessment(Feedback(name=f"f{n % 7}", value=n, trace_id=ONE)) for n in range(1_000))
    )
    trace = await store.get_trace(ONE)
    assert (len(trace.data.spans), len(trace.info.assessments)) == (2_000, 1_000)
    found, _ = await store.search_traces(["0"], "feedback.f3 >= 990 AND span.name = 'step'")
    assert [info.trace_id for info in found] == [ONE]


async def test_archived_traces_take_no_spans(store: MongoDBStore) -> None:
    await store.log_spans("0", plain(ONE))
    await store.set_trace_tag(ONE, "mlflow.trace.spansLocation", "ARCHIVE_REPO")
    with pytest.raises(MlflowException, match=f"Cannot log spans to archived traces: '{ONE}'"):
        await store.log_spans("0", plain(ONE))
    with pytest.raises(MlflowException, match="no longer DB-backed"):
        await store.start_trace(stated(ONE))


async def test_spans_that_are_refused_leave_nothing(store: MongoDBStore, store_uri: str) -> None:
    """They may have been written before it was known that they are refused."""
    long = {"mlflow.spanInputs": "x" * 100_000}
    await store.log_spans("0", plain(ONE))
    await store.set_trace_tag(ONE, "mlflow.trace.spansLocation", "ARCHIVE_REPO")
    before = await _all_of(store)
    other = MongoDBStore(store_uri)  # one that has not seen the trace; it shares the connection
    for attributes in (None, long):
        with pytest.raises(MlflowException, match="archived"):
            await other.log_spans("0", [*plain(ONE), span(ONE, 11, 1, attributes=attributes)])
        with pytest.raises(MlflowException, match="No Experiment with id=77 exists"):
            await other.log_spans("77", [*plain(TWO), span(TWO, 11, 1, attributes=attributes)])
    assert await _all_of(store) == before


async def _all_of(store: MongoDBStore) -> list[dict[str, Any]]:
    return [
        document
        for declared in (TraceFields, SpanFields, SpanPayloadFields)
        for document in await store.database.collection(declared).find().sort("_id").to_list()
    ]


@pytest.mark.parametrize("start", [-5, 20])
@pytest.mark.parametrize("is_stated", [False, True])
@pytest.mark.parametrize("is_elsewhere", [False, pytest.param(True, marks=before_3_18)])
async def test_spans_of_a_trace_that_another_process_made(
    store: MongoDBStore, store_uri: str, start: int, is_stated: bool, is_elsewhere: bool
) -> None:
    elsewhere = await store.create_experiment("elsewhere") if is_elsewhere else "0"
    await store.log_spans(elsewhere, plain(ONE))
    if is_stated:
        await store.start_trace(stated(ONE, experiment_id=elsewhere))
    other = MongoDBStore(store_uri)
    await other.log_spans("0", [span(ONE, 11, 1, start=start), span(ONE, 2, 1, name="anew")])
    trace = await store.database.collection(TraceFields).find_one({"_id": ONE})
    assert trace is not None
    assert trace["experiment_id"] == int(elsewhere)
    spans = await store.database.collection(SpanFields).find({"trace_id": ONE}).to_list()
    assert {(each["experiment_id"], each["trace_time"]) for each in spans} == {
        (trace["experiment_id"], trace["request_time"])
    }
    assert {each["_id"]: each["name"] for each in spans}[f"{ONE}|{2:016x}"] == "anew"
    assert len(spans) == 11


async def test_a_trace_that_comes_again_after_its_deletion(store: MongoDBStore, store_uri: str) -> None:
    """Its spans belong to the new trace, whatever the store remembers of the old one."""
    elsewhere = await store.create_experiment("elsewhere")
    await store.log_spans(elsewhere, plain(ONE))
    await store.log_spans(elsewhere, [span(ONE, 11, 1)])
    await MongoDBStore(store_uri).delete_traces(elsewhere, trace_ids=[ONE])
    await store.log_spans("0", [span(ONE, 12, 1, start=7)])
    spans = await store.database.collection(SpanFields).find({"trace_id": ONE}).to_list()
    assert [(each["experiment_id"], each["trace_time"]) for each in spans] == [(0, STARTED + 7)]


async def test_a_page_reads_no_more_than_a_page(store: MongoDBStore) -> None:
    for number in range(300):
        await store.log_spans("0", [span(trace_id(number + 1), 1, start=number // 3)])
    seen: list[str] = []
    token = None
    for _ in range(6):
        async with profiled(store.database) as queries:
            page, token = await store.search_traces(["0"], max_results=50, page_token=token)
        reads = [query for query in queries if query.collection == "traces"]
        assert len(reads) == 1
        assert not reads[0].blocking_sort
        assert reads[0].keys <= 60
        seen += [info.trace_id for info in page]
    expected = sorted(range(300), key=lambda number: (-(number // 3), trace_id(number + 1)))
    assert seen == [trace_id(number + 1) for number in expected]


QUERIES = [
    "tags.a = '1'",
    "metadata.k = '1'",
    "name = 'x'",
    "metadata.`mlflow.trace.session` = 's'",
    f"run_id = '{'a' * 32}'",
    "prompt = 'p/1'",
    "span.name = 'x'",
    "span.type = 'LLM'",
    "span.status = 'ERROR'",
    "trace.text LIKE '%x%'",
    "feedback.f = 'x'",
    "feedback.f IS NULL",
    "issue.id = 'x'",
    "execution_time > 5",
]


@pytest.mark.parametrize("text", QUERIES)
async def test_no_search_scans_a_collection(store: MongoDBStore, text: str) -> None:
    for number in range(20):
        await store.log_spans("0", [span(trace_id(number + 1), 1, start=number)])
    async with profiled(store.database) as queries:
        await store.search_traces(["0"], text)
        await store.search_traces(None, text)
    assert [query for query in queries if query.scans_collection] == []


async def test_links_are_found_by_an_index(store: MongoDBStore) -> None:
    prompt = PromptVersion(name="p", version=1, template="t")
    for number in range(100):
        await store.start_trace(stated(trace_id(number + 1), start=number))
    linked = [trace_id(number + 1) for number in range(0, 100, 10)]
    await store.link_traces_to_run(linked, "a" * 32)
    for identifier in linked:
        await store.link_prompts_to_trace(identifier, [prompt])
    async with profiled(store.database) as queries:
        first = await store.search_entities_by_destination("a" * 32, "run", "trace", max_results=5)
        second = await store.search_entities_by_destination("a" * 32, "run", "trace", 5, first.token)
        assert await store.search_entities_by_destination("p/1", "prompt_version", "trace") == linked
        assert await store.search_entities_by_source(linked[:2], "trace", "run") == ["a" * 32]
    assert [*first, *second] == linked
    assert [query.plan.partition(" ")[0] for query in queries] == ["IXSCAN"] * 4
    assert [query.keys <= 11 for query in queries] == [True] * 4, queries
    assert [query.blocking_sort for query in queries[:2]] == [False, False]


async def test_without_transactions(standalone: Mongod, database_name: str) -> None:
    store = MongoDBStore(standalone.database_uri(database_name), "s3://bucket")
    try:
        await asyncio.gather(*(store.log_spans("0", [each]) for each in family(ONE) * 2))
        old = await store.create_assessment(Feedback(name="f", value=1, trace_id=ONE))
        new = Feedback(name="f", value=2, trace_id=ONE, overrides=old.assessment_id)
        await store.delete_assessment(ONE, str((await store.create_assessment(new)).assessment_id))
        info = await store.get_trace_info(ONE)
        assert [each.valid for each in info.assessments] == [True]
        assert info.token_usage is not None
        assert await store.database.collection(TraceFields).count_documents({}) == 1
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("metric", "how", "options"),
    [
        ("trace_count", AggregationType.COUNT, {}),
        ("trace_count", AggregationType.COUNT, {"dimensions": ["trace_status"], **DAYS}),
        ("latency", AggregationType.AVG, {"dimensions": ["trace_name"]}),
        ("latency", AggregationType.PERCENTILE, DAYS),
    ],
)
async def test_metrics_of_traces_read_no_traces(
    store: MongoDBStore, metric: str, how: AggregationType, options: dict[str, Any]
) -> None:
    await asyncio.gather(
        *(
            store.start_trace(stated(trace_id(number), tags={TraceTagKey.TRACE_NAME: "a"}))
            for number in range(30)
        )
    )
    aggregation = MetricAggregation(how, 95.0 if how == AggregationType.PERCENTILE else None)
    async with profiled(store.database) as queries:
        points = await store.query_trace_metrics(
            ["0"], MetricViewType.TRACES, metric, [aggregation], **options
        )
    assert points
    of_traces = [query for query in queries if query.collection == "traces"]
    assert [(query.documents, query.keys <= 32) for query in of_traces] == [(0, True)], queries
