"""What one machine bears: points, batches, spans and runs a second by the number of client processes.

    python benchmarks/ceiling.py [--clients 1 4 16 64] [--seconds 8] [--work points spans] [--json]

Clients are processes forked from one that has imported everything; each logs without pause into things of
its own, on one mongod. Beside the rate are the processor time of mongod for one thing (from which follows
how many a core bears), the share of all cores that was in use, connections, and the memory of a client.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier as Barrier_
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import pymongo
from mlflow.entities import Metric
from servers import mongod

from genesis_flow import MongoDBStore
from tests.contract.trace_scenes import span, stated

POINTS, BATCHES, SPANS, RUNS = "points", "batches", "spans", "runs"
# How many points, spans or runs one call writes.
SIZES = {POINTS: 1, BATCHES: 100, SPANS: 10, RUNS: 1}
_FORK = multiprocessing.get_context("fork")
_TICKS = os.sysconf("SC_CLK_TCK")


class Work:
    """The calls of one client."""

    def __init__(self, store: MongoDBStore, number: int) -> None:
        self.store = store
        self.number = number
        self.step = 0
        self.run_id = store.create_run("0", "me", 1, [], None).info.run_id

    def points(self) -> None:
        self.step += 1
        self.store.log_metric(self.run_id, Metric("loss", 1 / self.step, self.step, self.step))

    def batches(self) -> None:
        self.step += 1
        metrics = [Metric("loss", 1.0, self.step * 100 + each, self.step * 100 + each) for each in range(100)]
        self.store.log_batch(self.run_id, metrics, [], [])

    def spans(self) -> None:
        self.step += 1
        trace = f"tr-{self.number:016x}{self.step:016x}"
        self.store.start_trace(stated(trace))
        self.store.log_spans("0", [span(trace, each + 1, 1 if each else None) for each in range(10)])

    def runs(self) -> None:
        self.store.create_run("0", "me", 1, [], None)


def client(uri: str, work: str, number: int, seconds: float, begin: Barrier_, results: Any) -> None:
    store = MongoDBStore(uri)
    call = getattr(Work(store, number), work)
    call()
    begin.wait()
    until, calls, latencies = time.perf_counter() + seconds, 0, []
    while (start := time.perf_counter()) < until:
        call()
        calls += 1
        latencies.append(time.perf_counter() - start)
    results.put((calls, sorted(latencies), _resident(os.getpid())))
    store.close()


def _resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _busy_seconds() -> float:
    """Processor time of the whole machine that was not idle."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


def measure(uri: str, work: str, clients: int, seconds: float) -> dict[str, Any]:
    begin, results = _FORK.Barrier(clients + 1), _FORK.Queue()
    processes = [
        _FORK.Process(target=client, args=(uri, work, number, seconds, begin, results), daemon=True)
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    begin.wait()
    with pymongo.MongoClient[Any](uri) as admin:
        status = admin.admin.command("serverStatus")
        before, busy, started = _processor_seconds(status["pid"]), _busy_seconds(), time.perf_counter()
        answers = [results.get() for _ in processes]
        elapsed = time.perf_counter() - started
        used, busy = _processor_seconds(status["pid"]) - before, _busy_seconds() - busy
        connections = admin.admin.command("serverStatus")["connections"]["current"]
    for process in processes:
        process.join()
    things = sum(calls for calls, _, _ in answers) * SIZES[work]
    latencies = sorted(each for _, some, _ in answers for each in some)
    return {
        "work": work,
        "clients": clients,
        "a second": things / elapsed,
        "mongod ms each": used * 1000 / things,
        "a core of mongod bears": things / used,
        "cores busy": busy / elapsed / (os.cpu_count() or 1),
        "p50 ms": latencies[len(latencies) // 2] * 1000,
        "p95 ms": latencies[int(len(latencies) * 0.95)] * 1000,
        "connections": connections,
        "megabytes a client": max(resident for _, _, resident in answers) / 2**20,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| what | clients | a second | a core of mongod bears | cores busy | p50, p95 of a call "
        "| connections | MB a client |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['work']} | {row['clients']} | {row['a second']:,.0f} | {row['a core of mongod bears']:,.0f} "
        f"| {row['cores busy']:.0%} | {row['p50 ms']:.1f}, {row['p95 ms']:.1f} ms | {row['connections']} "
        f"| {row['megabytes a client']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help="how many processes")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--work", nargs="+", choices=SIZES, default=list(SIZES), help="what is logged")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, mongod(Path(folder)) as uri_of:
        for work in arguments.work:
            # A process of its own opens it first: one that has a client must not be forked.
            opening = _FORK.Process(target=MongoDBStore(uri_of(work)).get_experiment, args=("0",))
            opening.start()
            opening.join()
            rows += [measure(uri_of(work), work, clients, arguments.seconds) for clients in arguments.clients]
    print(json.dumps(rows, indent=2) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
