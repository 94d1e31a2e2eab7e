"""Where the time of a search of runs goes: medians beside the newest page, and what the server read for each.

python benchmarks/searches.py [--runs 100000] [--experiments 4] [--rounds 11] [--json]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import operations
import pymongo
from fill import MongoFiller
from servers import mongod

from genesis_flow import MongoDBStore

NEWEST = "search newest 100"
SEARCHES = (
    NEWEST,
    "search ordered by a metric",
    "search metric and param",
    "search metric and tag ordered by a metric",
)
# Fields of the server's profile, and what they are called here.
COUNTS = {"keysExamined": "keys", "docsExamined": "documents", "nreturned": "returned", "millis": "ms"}


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, Any]]:
    """Medians of calls that take turns; the first round is not counted."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    client: dict[str, list[float]] = {name: [] for name in calls}
    rows: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begin_cpu, begin = time.process_time(), time.perf_counter()
            rows[name] = len(call())
            wall[name].append((time.perf_counter() - begin) * 1000)
            client[name].append((time.process_time() - begin_cpu) * 1000)
    medians = {name: statistics.median(wall[name][1:]) for name in calls}
    return {
        name: {
            "runs": rows[name],
            "ms": medians[name],
            "to_newest": medians[name] / medians[NEWEST],
            "client_cpu_ms": statistics.median(client[name][1:]),
        }
        for name in calls
    }


def reads(database: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """What the server did for one call, from its profiler."""
    database.command("profile", 0)
    database.drop_collection("system.profile")
    database.command("profile", 2)
    call()
    database.command("profile", 0)
    found = database["system.profile"].find({"planSummary": {"$exists": True}})
    return [
        {"collection": entry["ns"].partition(".")[2], "plan": entry["planSummary"]}
        | {name: entry.get(field, 0) for field, name in COUNTS.items()}
        for entry in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000, help="runs in all (default %(default)s)")
    parser.add_argument("--experiments", type=int, default=operations.EXPERIMENTS, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=11, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    operations.EXPERIMENTS = options.experiments
    with tempfile.TemporaryDirectory() as folder, mongod(Path(folder)) as database_uri:
        uri = database_uri("searches")
        asked = operations.Operations(MongoDBStore(uri, folder), None)
        asked.prepare()
        MongoFiller(uri).fill_runs(asked, options.runs)
        calls = {name: call for name, call in asked.calls().items() if name in SEARCHES}
        found = timed(calls, options.rounds)
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            for name, call in calls.items():
                found[name]["reads"] = reads(client.get_default_database(), call)
    if options.json:
        print(json.dumps({"runs": options.runs, "experiments": options.experiments, "searches": found}))
        return
    for name, each in found.items():
        print(
            f"{name}: {each['runs']} runs in {each['ms']:.1f} ms, {each['to_newest']:.1f}x newest, "
            f"client {each['client_cpu_ms']:.1f} ms of processor time"
        )
        for read in each["reads"]:
            counts = ", ".join(f"{read[count]:,} {count}" for count in COUNTS.values())
            print(f"    {read['collection']:<15} {counts}, {read['plan']}")


if __name__ == "__main__":
    main()
