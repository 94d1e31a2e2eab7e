"""Traces beside MLflow's SQL store on SQLite: ingest, pages by time as their number grows, metrics over all.

python benchmarks/traces.py [--traces 20000] [--ingest 40] [--json]
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow.entities import Span, TraceInfo, TraceLocation, TraceState
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracing.utils import build_otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan

from genesis_flow import MongoDBStore, embedded

SPANS = 10
START = 1_700_000_000_000


def trace_id_of(number: int) -> str:
    return f"tr-{number:032x}"


def trace_info(experiment: str, number: int) -> TraceInfo:
    return TraceInfo(
        trace_id=trace_id_of(number),
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=START + number * 1000,
        execution_duration=number % 997,
        state=TraceState.OK,
        request_preview="a question",
        response_preview="an answer",
        tags={"team": f"t{number % 7}"},
        trace_metadata={"mlflow.trace.session": f"s{number // 5}"},
    )


def spans_of(number: int) -> list[Span]:
    """A root and its children, as a client exports them."""
    trace_id = trace_id_of(number)
    spans = []
    for index in range(SPANS):
        parent = build_otel_context(number, 1) if index else None
        begin = (START + number * 1000 + index) * 1_000_000
        attributes = {
            "mlflow.traceRequestId": json.dumps(trace_id),
            "mlflow.spanType": json.dumps("TOOL" if index else "AGENT"),
            "mlflow.spanInputs": json.dumps({"question": "why " * 20}),
            "mlflow.spanOutputs": json.dumps({"answer": "because " * 20}),
        }
        spans.append(
            Span(
                ReadableSpan(
                    name=f"step {index}",
                    context=build_otel_context(number, index + 1),
                    parent=parent,
                    start_time=begin,
                    end_time=begin + 1_000_000,
                    attributes=attributes,
                    status=otel.Status(otel.StatusCode.OK),
                )
            )
        )
    return spans


@contextlib.contextmanager
def stores() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        with embedded.acquire(data):
            ours = MongoDBStore(f"genesis://{data}")
            yield {"genesis_flow": ours, "sqlite": SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", folder)}
            ours.close()
        embedded.stop(data, force=True)


def median(call: Callable[[], object], rounds: int = 7) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[1:])


def ingest(found: dict[str, Any], count: int) -> dict[str, float]:
    """Milliseconds to start a trace and log its ten spans; the stores take turns."""
    times: dict[str, list[float]] = {name: [] for name in found}
    experiments = {name: store.create_experiment("ingest", None, []) for name, store in found.items()}
    for number in range(1, count + 1):
        for name, store in found.items():
            info, spans = trace_info(experiments[name], number), spans_of(number)
            begin = time.perf_counter()
            store.log_spans(experiments[name], spans)
            store.start_trace(info)
            times[name].append((time.perf_counter() - begin) * 1000)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def reads(store: Any, experiment: str) -> dict[str, Callable[[], object]]:
    aggregations = [MetricAggregation(aggregation_type=AggregationType.AVG)]
    return {
        "page of 100 by time": lambda: store.search_traces([experiment], max_results=100),
        "page of 100 of one team": lambda: store.search_traces(
            [experiment], filter_string="tags.team = 't3'", max_results=100
        ),
        "average latency by name": lambda: store.query_trace_metrics(
            [experiment], MetricViewType.TRACES, "latency", aggregations
        ),
    }


def grow(found: dict[str, Any], sizes: list[int]) -> dict[str, dict[str, dict[int, float]]]:
    """Milliseconds of each read, by store, at each number of traces."""
    experiments = {name: store.create_experiment("grow", None, []) for name, store in found.items()}
    shown: dict[str, dict[str, dict[int, float]]] = {}
    done = 0
    for size in sizes:
        for name, store in found.items():
            for number in range(done, size):
                store.start_trace(trace_info(experiments[name], 10_000_000 + number))
            for operation, call in reads(store, experiments[name]).items():
                shown.setdefault(operation, {}).setdefault(name, {})[size] = median(call)
        done = size
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=20_000, help="traces at most for the reads")
    parser.add_argument("--ingest", type=int, default=40, help="traces of ten spans to log")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with stores() as found:
        ingested = ingest(found, arguments.ingest)
        read = grow(found, [arguments.traces // 10, arguments.traces])
    if arguments.json:
        print(json.dumps({"ingest_ms": ingested, "reads_ms": read}, indent=2))
        return
    ours, sql = ingested["genesis_flow"], ingested["sqlite"]
    print(f"Python {sys.version.split()[0]}\n")
    print(f"a trace of {SPANS} spans: genesis_flow {ours:.1f} ms, SQLite {sql:.1f} ms ({sql / ours:.1f}x)\n")
    print("| read | traces | genesis_flow, ms | SQLite, ms | SQLite to genesis_flow |\n|---|---|---|---|---|")
    for operation, by_store in read.items():
        for size, milliseconds in by_store["genesis_flow"].items():
            other = by_store["sqlite"][size]
            print(
                f"| {operation} | {size} | {milliseconds:.1f} | {other:.1f} | {other / milliseconds:.1f}x |"
            )


if __name__ == "__main__":
    main()
