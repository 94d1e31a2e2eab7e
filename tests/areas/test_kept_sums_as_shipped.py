"""Sums of traces that readers keep, with nothing patched: enough traces, and the waits that there are."""

import asyncio

import pytest
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.sums import kept as kept_sums
from tests.areas.explain import profiled
from tests.areas.trace_writer import DAY
from tests.contract.trace_scenes import STARTED, trace_id


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    """With a client of these tests: another may know that sums were not worth keeping a moment ago."""
    return f"{emptied_uri}&appName=as-shipped"


async def old_traces(store: MongoDBStore, count: int) -> None:
    """Traces of three days, long untouched."""
    await store.create_experiment("first", None, [])
    traces = store.database.collection(TraceFields)
    for begin in range(0, count, 2_000):
        await traces.insert_many(
            [
                {
                    "_id": trace_id(number),
                    "workspace": DEFAULT_WORKSPACE_NAME,
                    "experiment_id": 0,
                    "request_time": STARTED + number * 3 * DAY // count,
                    "end_time": STARTED + number * 3 * DAY // count + number % 1_000,
                    "status": "OK",
                    "name": f"n{number % 3}",
                }
                for number in range(begin, min(begin + 2_000, count))
            ]
        )


LATENCY = (["0"], MetricViewType.TRACES, "latency", [MetricAggregation(AggregationType.AVG)])


@pytest.mark.parametrize("reader", ["the same", "another"])
async def test_all_who_ask_at_once_are_answered_from_sums(
    store: MongoDBStore, store_uri: str, reader: str
) -> None:
    await old_traces(store, kept_sums.WORTH_KEEPING + 500)
    first = await store.query_trace_metrics(*LATENCY)
    expected = first[0].values
    asking = store if reader == "the same" else MongoDBStore(store_uri, "s3://bucket")
    try:
        async with profiled(store.database) as queries:
            answers = await asyncio.gather(*(asking.query_trace_metrics(*LATENCY) for _ in range(6)))
        of_traces = [query for query in queries if query.collection == "traces"]
        assert [answer[0].values for answer in answers] == [expected] * 6
        assert sum(query.keys for query in of_traces) < 100, of_traces
        assert sum(query.documents for query in of_traces) == 0
    finally:
        if asking is not store:
            await asking.close()


async def test_who_found_no_sums_does_not_hide_those_made_since(store: MongoDBStore) -> None:
    """Of those who found none at once, the first to finish makes some; the others must not forget them."""
    await old_traces(store, kept_sums.WORTH_KEEPING + 500)
    await asyncio.gather(*(store.query_trace_metrics(*LATENCY) for _ in range(6)))
    async with profiled(store.database) as queries:
        await store.query_trace_metrics(*LATENCY)
    assert sum(query.keys for query in queries if query.collection == "traces") < 100


def test_sums_made_meanwhile_are_not_forgotten() -> None:
    waits = kept_sums._Waits()
    state = waits.state("sums")
    waits.end("sums")
    waits.begin("sums", state)  # by one who looked before they were made
    assert waits.is_over("sums")
    waits.begin("sums", waits.state("sums"))
    assert not waits.is_over("sums")
