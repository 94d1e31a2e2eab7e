"""How long `genesis-flow usage` takes in a large database, and what the server reads for it.

    python benchmarks/usage.py [--runs 100000] [--traces 10000] [--json]

The runs are copies of forty (`fill.py`): ten params, ten metrics with a point each, five tags, of seven users
in four experiments. Every fortieth has two more metrics, with 400 points. For each way to ask are printed the
seconds, and the keys and documents that MongoDB's profiler has seen examined.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pymongo
from mlflow.entities import Metric

from genesis_flow import MongoDBStore
from genesis_flow.cli.usage.report import made
from genesis_flow.cli.usage.source import Source
from genesis_flow.core.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))
from fill import SECOND, TEMPLATES, MongoFiller
from operations import START, Operations
from servers import mongod

USERS = 7
LONG = 400
# The last tenth of the runs: each starts a second after the one before.
SHARE = 10


class UserOperations(Operations):
    """Runs of several users, the first of them with long histories."""

    def run_template(self, number: int) -> tuple[str, int]:
        run_id, begin = super().run_template(number)
        if number == 0:
            for key in ("long loss", "long accuracy"):
                points = [Metric(key, 0.5, begin + step, step) for step in range(LONG)]
                self.store.log_batch(run_id, points, [], [])
        return run_id, begin


def asked(database: Any, uri: str, since: int | None, *, exact: bool) -> dict[str, Any]:
    database.command("profile", 0)
    database.drop_collection("system.profile")
    database.create_collection("system.profile", capped=True, size=64 * 2**20)
    database.command("profile", 2)
    begun = time.perf_counter()
    report = made(Source(database, Settings.resolve(uri)), since, exact=exact)
    seconds = time.perf_counter() - begun
    database.command("profile", 0)
    read: dict[str, Counter[str]] = {}
    for each in database["system.profile"].find({"docsExamined": {"$exists": True}}):
        counted = read.setdefault(each["ns"].partition(".")[2], Counter())
        counted.update(commands=1, keys=each["keysExamined"], documents=each["docsExamined"])
    return {
        "seconds": round(seconds, 2),
        "runs": report["totals"]["runs"],
        "points": report["totals"]["points"],
        "counted": report["points"],
        "read": {name: dict(counted) for name, counted in read.items() if counted["documents"] > 100},
    }


def measure(runs: int, traces: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gf-usage-") as folder, mongod(Path(folder)) as uri_of:
        uri = uri_of("usage")
        store = MongoDBStore(uri, Path(folder).as_uri())
        operations = UserOperations(store, None)
        operations.prepare()
        filler = MongoFiller(uri)
        begun = time.perf_counter()
        filler.fill_runs(operations, runs)
        filler.fill_traces(operations, traces)
        store.close()
        print(f"filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            database = client.get_default_database()
            for user in range(1, USERS):  # by the last digit of the id
                of_user = {"_id": {"$regex": f"{user}$"}}
                database["runs"].update_many(of_user, {"$set": {"user_id": f"user {user}"}})
            since = START + (runs - runs // SHARE) * SECOND
            return {
                "all there is": asked(database, uri, None, exact=False),
                "all there is, all points": asked(database, uri, None, exact=True),
                "the last tenth": asked(database, uri, since, exact=False),
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.runs < TEMPLATES:
        parser.error(f"--runs: at least {TEMPLATES}, which are copied")
    found = measure(options.runs, options.traces)
    if options.json:
        print(json.dumps(found))
        return
    for name, each in found.items():
        runs, points = f"{each['runs']:,} runs", f"{each['points']:,} points"
        print(f"{name}: {each['seconds']} s, {runs}, {points}, {each['counted']}")
        for collection, read in each["read"].items():
            print(f"  {collection}: {read}")


if __name__ == "__main__":
    main()
