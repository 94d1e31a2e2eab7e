"""Steps of many metrics: what one takes, what all of them take with folding, and what they cost readers.

    python benchmarks/wide.py [--steps 400] [--runs 1000] [--json]

A blocking store on one mongod logs steps of 64 and of 1,000 known metrics, each after 2 ms of other work,
and to compare, some without places: each metric an update of its head. All points a second are of the time
in calls, the end of the run included, which folds what waits. Then a running and a finished run of 1,000
metrics are read, and finished runs are searched by a metric, with no run in which steps wait and with four.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pauses import STEP, work
from servers import mongod

WIDTHS = (64, 1_000)
FEW = 20
READS = 30
RUNNING = 4

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--runs", type=int, default=1_000, help="finished runs that are searched")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="genesis-flow-bench-") as folder, mongod(Path(folder)) as server:
        found = measure(server("wide"), options.steps, options.runs)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| what | median, ms | 95th of 100, ms | points a second, all in |\n|---|---|---|---|")
    for what, figures in found.items():
        cells = [figures["p50"], figures["p95"], figures.get("points_per_second")]
        print(f"| {what} | " + " | ".join("" if cell is None else f"{cell:,.2f}" for cell in cells) + " |")


def measure(uri: str, steps: int, runs: int) -> dict[str, Figures]:
    from genesis_flow import MongoDBStore
    from genesis_flow.areas.metrics import wide

    store, found = MongoDBStore(uri), {}
    for width in WIDTHS:
        run_id = new_run(store)
        found[f"a step of {width:,} metrics"] = log(store, run_id, width, steps)
        usual, wide.WIDE_FROM = wide.WIDE_FROM, sys.maxsize
        found[f"a step of {width:,} metrics, head by head"] = log(store, new_run(store), width, FEW)
        wide.WIDE_FROM = usual
    running = new_run(store)
    log(store, running, WIDTHS[-1], 100, ends=False)
    found["get_run, running, 100 steps wait"] = timed(lambda: store.get_run(running))
    found["get_run, finished"] = timed(lambda: store.get_run(run_id))
    experiment = finished_runs(store, runs)
    order = ["metrics.m1 DESC"]

    def search() -> Any:
        return store._search_runs([experiment], "metrics.m1 > 0.5", 1, 100, order, None)

    found[f"search by a metric in {runs:,} finished runs"] = timed(search)
    for _ in range(RUNNING):
        log(store, new_run(store, experiment), WIDTHS[-1], 100, ends=False)
    found[f"the same with {RUNNING} running ones, 100 steps of each wait"] = timed(search)
    store.close()
    return found


def new_run(store: Any, experiment: str = "0") -> str:
    return str(store.create_run(experiment, "user", 1, [], "run").info.run_id)


def log(store: Any, run_id: str, width: int, steps: int, *, ends: bool = True) -> Figures:
    """Steps of a run whose metrics are there, and its end."""
    from mlflow.entities import Metric, RunStatus

    def batch(step: int) -> list[Any]:
        return [Metric(f"m{index}", step + index / width, 1_000 + step, step) for index in range(width)]

    for step in range(2):
        store.log_batch(run_id, batch(step), [], [])
    took = []
    for step in range(2, steps + 2):
        metrics = batch(step)
        work(STEP)
        begin = time.perf_counter()
        store.log_batch(run_id, metrics, [], [])
        took.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    if ends:
        store.update_run_info(run_id, RunStatus.FINISHED, 2, None)
    spent = sum(took) + time.perf_counter() - begin
    if len(store.get_metric_history(run_id, "m1")) != steps + 2:
        raise SystemExit("points are missing")
    return {**figures(took), "points_per_second": width * steps / spent}


def finished_runs(store: Any, runs: int) -> str:
    from mlflow.entities import Metric

    experiment = str(store.create_experiment("finished"))
    for number in range(runs):
        metrics = [Metric(f"m{index}", number / runs, 1, 0) for index in range(10)]
        store.log_batch(new_run(store, experiment), metrics, [], [])
    return experiment


def timed(call: Callable[[], Any]) -> Figures:
    call()
    took = []
    for _ in range(READS):
        begin = time.perf_counter()
        call()
        took.append(time.perf_counter() - begin)
    return figures(took)


def figures(took: list[float]) -> Figures:
    ordered = sorted(took)
    return {
        "p50": statistics.median(ordered) * 1000,
        "p95": ordered[int(len(ordered) * 0.95)] * 1000,
    }


if __name__ == "__main__":
    main()
