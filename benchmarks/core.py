"""The core operations beside MLflow's SQL store on SQLite and bare PyMongo: medians and ratios.

python benchmarks/core.py [--runs 2000] [--rounds 60] [--json]
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow import MongoDBStore, embedded

Call = Callable[[int], object]
EXPERIMENTS = 4


class Subject:
    """One store with a run to write to and, after ``fill``, runs to search."""

    def __init__(self, name: str, store: Any) -> None:
        self.name = name
        self.store = store
        self.experiments = [store.create_experiment(f"e{number}", None, []) for number in range(EXPERIMENTS)]
        self.run_id = self.new_run(0)

    def new_run(self, number: int) -> str:
        experiment = self.experiments[number % EXPERIMENTS]
        tags = [RunTag(f"tag{index}", f"v{number % (index + 5)}") for index in range(5)]
        run = self.store.create_run(experiment, "me", 1_700_000_000_000 + number, tags, f"run {number}")
        run_id: str = run.info.run_id
        return run_id

    def fill(self, runs: int) -> None:
        rng = random.Random(1)
        for number in range(runs):
            metrics = [Metric(f"m{index}", rng.random(), number, 0) for index in range(10)]
            params = [Param(f"p{index}", str(rng.randrange(10))) for index in range(10)]
            self.store.log_batch(self.new_run(number), metrics, params, [])

    def search(self, filter_string: str, order_by: list[str], everywhere: bool = False) -> Any:
        experiments = self.experiments if everywhere else self.experiments[:1]
        return self.store.search_runs(experiments, filter_string, ViewType.ACTIVE_ONLY, 100, order_by)

    def pages(self, order_by: list[str], count: int) -> None:
        token = None
        for _ in range(count):
            page = self.store.search_runs(self.experiments, "", 1, 100, order_by, token)
            token = page.token
            if not token:
                return


def writes(subject: Subject) -> dict[str, Call]:
    store, run_id = subject.store, subject.run_id
    keys = [f"k{index}" for index in range(200)]

    def batch(round_: int) -> None:
        metrics = [Metric(key, round_, round_, round_) for key in keys]
        params = [Param(f"p{round_}_{index}", "x") for index in range(50)]
        store.log_batch(run_id, metrics, params, [RunTag(f"t{index}", str(round_)) for index in range(20)])

    def points(round_: int) -> None:
        store.log_batch(
            run_id, [Metric("curve", step, step, round_ * 1000 + step) for step in range(1000)], [], []
        )

    def new_keys(round_: int) -> None:
        metrics = [Metric(f"new{round_}_{index}", 1, 1, 1) for index in range(200)]
        store.log_batch(run_id, metrics, [], [])

    return {
        "create_run": lambda round_: subject.new_run(round_),
        "log_metric": lambda round_: store.log_metric(run_id, Metric("loss", round_, round_, round_)),
        "log_param": lambda round_: store.log_param(run_id, Param(f"q{round_}", "1")),
        "set_tag": lambda round_: store.set_tag(run_id, RunTag("state", str(round_))),
        "log_batch of 3 metrics": lambda round_: store.log_batch(
            run_id, [Metric(key, round_, round_, round_) for key in keys[:3]], [], []
        ),
        "log_batch of 200 metrics, 50 params, 20 tags": batch,
        "log_batch of 1,000 points of one metric": points,
        "log_batch of 200 new metrics": new_keys,
    }


def reads(subject: Subject, runs: list[str]) -> dict[str, Call]:
    store = subject.store
    return {
        "get_run": lambda round_: store.get_run(runs[round_ % len(runs)]),
        "newest 100 runs": lambda _: subject.search("", []),
        "order by a metric, 100": lambda _: subject.search("", ["metrics.m1 DESC"]),
        "metric > 0.9 and param = '7'": lambda _: subject.search("metrics.m2 > 0.9 and params.p3 = '7'", []),
        "tag = 'v3', all experiments": lambda _: subject.search("tags.tag2 = 'v3'", [], everywhere=True),
        "metric > 0.999 ordered by it": lambda _: subject.search("metrics.m4 > 0.999", ["metrics.m4 DESC"]),
        "10 pages of 100 by a metric": lambda _: subject.pages(["metrics.m5 DESC"], 10),
        "history of 1,000 points": lambda _: store.get_metric_history(subject.run_id, "curve"),
    }


def bare(uri: str) -> dict[str, Call]:
    """The least that the operation could cost: one acknowledged write, one read by id."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri, w="majority")
    floor = client["floor"]["documents"]
    floor.insert_one({"_id": "one"})

    def update(round_: int) -> None:
        floor.update_one({"_id": "one"}, {"$set": {"value": round_}})

    return {
        "create_run": lambda round_: floor.insert_one({"name": str(round_)}),
        **dict.fromkeys(("log_metric", "log_param", "set_tag"), update),
        "get_run": lambda _: floor.find_one({"_id": "one"}),
    }


def measure(calls: dict[str, dict[str, Call]], rounds: int) -> dict[str, dict[str, float]]:
    """Medians in milliseconds by operation and subject; the subjects take turns within each round."""
    medians: dict[str, dict[str, float]] = {}
    operations = {operation: None for subject in calls.values() for operation in subject}
    for operation in operations:
        taking_part = {name: subject[operation] for name, subject in calls.items() if operation in subject}
        times: dict[str, list[float]] = {name: [] for name in taking_part}
        heavy = any(
            word in operation for word in ("batch", "pages", "runs", "order", "metric >", "tag =", "points")
        )
        for round_ in range(max(5, rounds // 6) if heavy else rounds):
            for name, call in taking_part.items():
                begin = time.perf_counter()
                call(round_)
                times[name].append((time.perf_counter() - begin) * 1000)
        # The first round warms up: connections, plans, first metric of a name.
        medians[operation] = {name: statistics.median(each[1:]) for name, each in times.items()}
    return medians


def new_keys_by_size(subject: Subject, most: int) -> dict[int, float]:
    """Milliseconds to log 1,000 metrics with new names, by how many the run has already."""
    run_id = subject.new_run(0)
    taken: dict[int, float] = {}
    for start in range(0, most + 1000, 1000):
        metrics = [Metric(f"key{start + index}", 1.0, 1, 1) for index in range(1000)]
        begin = time.perf_counter()
        subject.store.log_batch(run_id, metrics, [], [])
        taken[start] = (time.perf_counter() - begin) * 1000
    return taken


def import_seconds() -> tuple[float, float]:
    """Seconds to import MLflow, and what the store adds to that."""
    program = (
        "import time; t = time.perf_counter(); import mlflow; m = time.perf_counter(); "
        "from genesis_flow import MongoDBStore; print(m - t, time.perf_counter() - m)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    plain, added = map(float, shown.stdout.split())
    return plain, added


def open_seconds(uri: str) -> float:
    """A new process's first call on an existing database, imports left out."""
    program = (
        "import time, mlflow; from genesis_flow import MongoDBStore; t = time.perf_counter(); "
        f"MongoDBStore({uri!r}).get_experiment('0'); print(time.perf_counter() - t)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(shown.stdout)


def table(medians: dict[str, dict[str, float]]) -> str:
    lines = [
        "| operation | genesis_flow, ms | to bare PyMongo | SQLite, ms | SQLite to genesis_flow |",
        "|---|---|---|---|---|",
    ]
    for operation, found in medians.items():
        ours = found["genesis_flow"]
        floor = f"{ours / found['bare']:.2f}x" if "bare" in found else ""
        sql = f"{found['sqlite']:.1f} | {found['sqlite'] / ours:.1f}x" if "sqlite" in found else " | "
        lines.append(f"| {operation} | {ours:.2f} | {floor} | {sql} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000, help="runs in the database for the searches")
    parser.add_argument("--rounds", type=int, default=60, help="calls of each cheap operation")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = f"genesis://{folder}/data"
        begin = time.perf_counter()
        with embedded.acquire(Path(folder, "data")) as server:
            started = time.perf_counter() - begin
            ours = Subject("genesis_flow", MongoDBStore(uri))
            reopened = open_seconds(uri)
            sql = Subject("sqlite", SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", folder))
            floor = bare(server.uri)
            medians = measure(
                {"genesis_flow": writes(ours), "sqlite": writes(sql), "bare": floor}, arguments.rounds
            )
            for subject in (ours, sql):
                subject.fill(arguments.runs)
            calls = {subject.name: reads(subject, [subject.run_id]) for subject in (ours, sql)}
            medians |= measure({**calls, "bare": {"get_run": floor["get_run"]}}, arguments.rounds)
            growth = new_keys_by_size(ours, 20_000)
            ours.store.close()
        embedded.stop(Path(folder, "data"), force=True)
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "medians_ms": medians, "new_keys_ms": growth}, indent=2))
        return
    print(f"{arguments.runs} runs in {EXPERIMENTS} experiments, Python {sys.version.split()[0]}\n")
    print(table(medians))
    first, last = (statistics.median(list(growth.values())[part]) for part in (slice(0, 5), slice(-5, None)))
    print(
        f"\n1,000 new metrics: {first:.0f} ms at the start, {last:.0f} ms behind 20,000 ({last / first:.2f}x)"
    )
    print(f"embedded server started in {started:.2f} s, first call of a new process {reopened:.2f} s")
    plain, added = import_seconds()
    print(f"import mlflow {plain:.2f} s, the store on top {added:.2f} s")


if __name__ == "__main__":
    main()
