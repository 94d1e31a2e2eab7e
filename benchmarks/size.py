"""What runs, points and traces cost on disk, in the embedded MongoDB, data and indexes.

python benchmarks/size.py [--runs 5000] [--traces 5000] [--json]
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pymongo
from mlflow.entities import Metric, Param, RunTag

from genesis_flow import MongoDBStore, embedded

sys.path.insert(0, str(Path(__file__).parent))
from operations import Operations

POINTS = 1000
NOW = 1_700_000_000_000


def log_run(store: MongoDBStore, experiment: str, metrics: list[Metric]) -> None:
    """20 params and 8 tags, some of their values rare, some frequent."""
    run = store.create_run(experiment, "someone", NOW, [], None).info.run_id
    params = [Param(f"param {n}", f"{random.random():.8f}" if n % 2 else str(n)) for n in range(20)]
    tags = [RunTag(f"tag {n}", f"value {random.randrange(10)}") for n in range(8)]
    store.log_batch(run, [], params, tags)
    store.log_batch(run, metrics, [], [])


def numbers(count: int, points: int) -> list[Metric]:
    return [
        Metric(f"metric {n}", random.random(), NOW + point * 1000, point)
        for n in range(count)
        for point in range(points)
    ]


class Bytes(NamedTuple):
    documents: float
    indexes: float

    @property
    def all(self) -> float:
        return self.documents + self.indexes


def disk(client: "pymongo.MongoClient[dict[str, object]]") -> Bytes:
    """Bytes of all collections and of all indexes, after a checkpoint."""
    client.admin.command("fsync")
    database = client["mlflow"]
    names = [each["name"] for each in database.list_collections() if each["type"] == "collection"]
    stats = [database.command("collStats", name) for name in names]
    return Bytes(
        sum(int(each["storageSize"]) for each in stats), sum(int(each["totalIndexSize"]) for each in stats)
    )


def measure(runs: int, traces: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="gf-size-") as folder:
        directory = Path(folder, "data")
        store = MongoDBStore(f"genesis://{directory}")
        experiment = store.create_experiment("size")
        with pymongo.MongoClient[dict[str, object]](embedded.status(directory).uri) as client:

            def cost(make: Callable[[int], None], times: int) -> Bytes:
                before = disk(client)
                for number in range(times):
                    make(number)
                return Bytes(*((now - then) / times for now, then in zip(disk(client), before, strict=True)))

            operations = Operations(store, None)
            operations.prepare()
            make_trace = operations.before()["trace of 10 spans"]
            log_made = operations.calls()["trace of 10 spans"]

            def log_trace(_: int) -> None:
                make_trace()
                log_made()

            few = cost(lambda _: log_run(store, experiment, numbers(10, 1)), runs)
            long = cost(lambda _: log_run(store, experiment, numbers(1, POINTS)), runs // 5)
            single = cost(lambda _: log_run(store, experiment, numbers(1, 1)), runs // 5)
            trace = cost(log_trace, traces)
        embedded.stop(directory, force=True)
    return {
        "bytes of a run with 20 params, 8 tags and 10 metrics": round(few.all),
        "of these in indexes": round(few.indexes),
        "bytes of a point in a history of 1,000": round((long.all - single.all) / (POINTS - 1), 1),
        "bytes of a trace with ten spans": round(trace.all),
        "of these in its indexes": round(trace.indexes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--traces", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.runs, options.traces)
    print(
        json.dumps(found)
        if options.json
        else "\n".join(f"{value:>9}  {what}" for what, value in found.items())
    )


if __name__ == "__main__":
    main()
