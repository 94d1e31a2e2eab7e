"""Spans a second that servers take by OTLP: `genesis-flow server` and `mlflow server` on SQLite.

    python benchmarks/otlp.py [--rounds 3] [--seconds 5] [--senders 8] [--spans 10] [--workers 2] [--json]

Senders are threads of this process, each with a connection; each request is a trace, encoded before. The
servers take turns. Printed are the medians of the rounds with the least and the largest, and what failed.
Every trace that was acknowledged is looked for at the end.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gateway import server
from mlflow import MlflowClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servers import mongod

OURS, SQLITE = "genesis_flow", "MLflow on SQLite"
# Encoded before, as much as a sender may need.
_ENCODED = 4_000


@dataclass
class Receiver:
    """A server, and what it took."""

    address: str
    uri: str
    experiment: str = ""
    rates: list[float] = field(default_factory=list)
    sent: int = 0
    failed: int = 0

    def prepare(self) -> None:
        self.experiment = MlflowClient(self.address).create_experiment("spans")

    def receive(self, senders: int, seconds: float, traces: list[bytes], spans: int) -> None:
        barrier, counted = threading.Barrier(senders), threading.Lock()
        taken = 0

        def send(number: int) -> float:
            nonlocal taken
            headers = {
                "x-mlflow-experiment-id": self.experiment,
                "content-type": "application/x-protobuf",
            }
            connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
            good = bad = 0
            barrier.wait()
            begin = time.perf_counter()
            for trace in traces[number::senders]:
                if time.perf_counter() - begin > seconds:
                    break
                connection.request("POST", "/v1/traces", trace, headers)
                answer = connection.getresponse()
                answer.read()
                good, bad = good + (answer.status == 200), bad + (answer.status != 200)
            took = time.perf_counter() - begin
            connection.close()
            with counted:
                taken, self.failed = taken + good, self.failed + bad
            return took

        with ThreadPoolExecutor(senders) as pool:
            took = max(pool.map(send, range(senders)))
        self.sent += taken
        self.rates.append(taken * spans / took)

    def lost(self) -> int:
        """Acknowledged traces that nobody finds."""
        client, found, token = MlflowClient(self.uri), 0, None
        while True:
            page = client.search_traces(
                locations=[self.experiment], max_results=500, page_token=token, include_spans=False
            )
            found += len(page)
            if (token := page.token) is None:
                return self.sent - found


def encoded(spans: int) -> bytes:
    """A trace as an exporter sends it: a root and its children."""
    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans
    trace_id, root_id, begin = os.urandom(16), os.urandom(8), time.time_ns()
    for index in range(spans):
        span = made.add(trace_id=trace_id, span_id=os.urandom(8) if index else root_id, name=f"step {index}")
        span.start_time_unix_nano, span.end_time_unix_nano = begin + index, begin + 5_000_000
        if index:
            span.parent_span_id = root_id
    return bytes(request.SerializeToString())


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Receiver]:
    with (
        mongod(folder) as database_uri,
        server(folder / "ours", database_uri("otlp"), options.workers, "genesis_flow.cli", "server") as ours,
        server(
            folder / "sqlite", f"sqlite:///{folder}/mlflow.db", options.workers, "mlflow", "server"
        ) as theirs,
    ):
        receivers = {
            OURS: Receiver(ours.address(), database_uri("otlp")),
            SQLITE: Receiver(theirs.address(), f"sqlite:///{folder}/mlflow.db"),
        }
        for each in receivers.values():
            each.prepare()
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for each in random.sample(list(receivers.values()), len(receivers)):
                traces = [encoded(options.spans) for _ in range(_ENCODED)]
                each.receive(options.senders, options.seconds, traces, options.spans)
        for name, each in receivers.items():
            if lost := each.lost():
                raise SystemExit(f"{name}: {lost} traces of {each.sent} are not there.")
        return receivers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each server, in each round")
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--spans", type=int, default=10, help="of a trace")
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-flow-bench-") as folder:
        receivers = measured(options, Path(folder))
    found = {
        name: {
            "spans_a_second": statistics.median(each.rates),
            "least": min(each.rates),
            "most": max(each.rates),
            "failed": each.failed,
        }
        for name, each in receivers.items()
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, row in found.items():
        rates = f"{row['spans_a_second']:,.0f} ({row['least']:,.0f} to {row['most']:,.0f})"
        print(f"{name}: {rates} spans a second, {row['failed']} requests failed")


if __name__ == "__main__":
    main()
