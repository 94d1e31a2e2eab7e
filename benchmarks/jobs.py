"""Claims of background jobs: eight workers beside each other, on MongoDB and on MLflow's own SQLite.

    python benchmarks/jobs.py [--jobs 400] [--workers 8] [--turns 3] [--at-once 10]

Each worker is a process, as runners of servers are. It lists the jobs that wait, asks for --at-once of them,
as many as a runner has room for, ends those that it got, and lists them again until none waits. A job that
another has claimed first counts for nothing. The stores take turns. Printed are, for each store, the claims
of a second (the median of all turns), the processor time of a claim in the workers and in the database's
server, calls that failed, and how many jobs were claimed twice or never.
"""

import argparse
import json
import multiprocessing
import os
import queue
import random
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Barrier as Barrier_
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from servers import mongod, process_of, processor_seconds

OURS, SQLITE = "genesis_flow", "sqlite"
LEASE_SECONDS = 60
START_SECONDS = 240

Told = dict[str, Any]


def job_store(uri: str) -> Any:
    if uri.startswith("sqlite:"):
        from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore

        return SqlAlchemyJobStore(uri)
    from genesis_flow.sync.jobs import MongoDBJobStore

    return MongoDBJobStore(uri)


def work(
    uri: str, number: int, at_once: int, begin: Barrier_, results: "multiprocessing.Queue[Told]"
) -> None:
    """Claim what waits until nothing does."""
    from mlflow.entities._job_status import JobStatus
    from mlflow.store.jobs.abstract_store import JobUpdateStatus

    store, claimed, failed = job_store(uri), list[str](), 0
    next(iter(store.list_jobs(job_name="none")), None)  # opens it
    draw = random.Random(number)
    begin.wait(START_SECONDS)
    used = time.process_time()
    while waiting := [job.job_id for job in store.list_jobs(statuses=[JobStatus.PENDING])]:
        for job_id in draw.sample(waiting, min(at_once, len(waiting))):
            try:
                if store.claim_job(job_id, LEASE_SECONDS) == JobUpdateStatus.APPLIED:
                    claimed.append(job_id)
                    store.report_job_result(job_id, JobStatus.SUCCEEDED, result="1")
            except Exception as error:  # noqa: BLE001 - whatever a store loses a call with is counted
                failed += 1
                print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    results.put({"claimed": claimed, "failed": failed, "used": time.process_time() - used})


def answer(results: "multiprocessing.Queue[Told]", processes: list[Any]) -> Told:
    """What the next worker tells; a worker that died tells nothing, and is not waited for."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise SystemExit("A worker ended before its time; the lines above say why.") from None


def turn(uri: str, options: argparse.Namespace) -> dict[str, float]:
    store, server = job_store(uri), process_of(uri)
    made = {store.create_job("kind", json.dumps({"number": number})).job_id for number in range(options.jobs)}
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(options.workers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(uri, number, options.at_once, begin, results), daemon=True)
        for number in range(options.workers)
    ]
    for process in processes:
        process.start()
    begin.wait(START_SECONDS)
    started, used = time.perf_counter(), processor_seconds(server)
    told = [answer(results, processes) for _ in processes]
    elapsed, used = time.perf_counter() - started, processor_seconds(server) - used
    for process in processes:
        process.join()
    store.delete_jobs()
    claimed = [job_id for each in told for job_id in each["claimed"]]
    return {
        "claims a second": len(claimed) / elapsed,
        "ms of a worker": sum(each["used"] for each in told) * 1000 / len(claimed),
        "ms of the server": used * 1000 / len(claimed),
        "failed": sum(each["failed"] for each in told),
        "wrong": len(claimed) - len(set(claimed)) + len(made - set(claimed)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Claims of background jobs, beside MLflow's SQLite.")
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=10, help="claims before a worker looks again")
    options = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="genesis-flow-bench-") as folder, mongod(Path(folder)) as server:
        uris = {OURS: server("jobs"), SQLITE: f"sqlite:///{folder}/jobs.db"}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in uris}
        for number in range(options.turns):
            print(f"turn {number + 1} of {options.turns}", file=sys.stderr, flush=True)
            for name, uri in uris.items():
                found[name].append(turn(uri, options))
    print("| store | claims a second | processor ms of a claim: worker, server | failed | wrong |")
    print("|---|---|---|---|---|")
    for name, turns in found.items():
        middle = {what: statistics.median(each[what] for each in turns) for what in turns[0]}
        lost = [f"{sum(each[what] for each in turns):.0f}" for what in ("failed", "wrong")]
        used = f"{middle['ms of a worker']:.1f}, {middle['ms of the server']:.1f}"
        print(f"| {name} | {middle['claims a second']:,.0f} | {used} | {' | '.join(lost)} |")


if __name__ == "__main__":
    main()
