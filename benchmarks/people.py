"""Pages of issues with and without their numbers of traces, and of a review queue from its front to its end.

python benchmarks/people.py [--assessments 10000 100000] [--issues 10 100 1000] [--items 100000] [--rounds 21]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
from searches import COUNTS, reads
from servers import mongod

from genesis_flow import MongoDBStore

PAGE = 100
_AT_ONCE = 10_000
_SHARED = {"workspace": "default", "experiment_id": 0, "last_update_time": 1}
_LEVELS = ("not_an_issue", "low", "medium", "high")


def issues(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            **_SHARED,
            "_id": f"iss-{number:06}",
            "name": f"issue {number}",
            "name_lower": f"issue {number}",
            "description": "The answer does not say where its facts come from. " * 4,
            "status": "pending",
            "severity": _LEVELS[number % 4],
            "rank": number % 4,
            "root_causes": ["The prompt does not ask for it."],
            "category_keys": [],
            "created_time": number,
            "last_seen": number,
        }


def references(count: int, of: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            **_SHARED,
            "_id": f"a-{number:08}",
            "trace_id": f"tr-{number // 2:08}",
            "trace_time": 1,
            "kind": "issue",
            "name": f"iss-{number % of:06}",
            "value": "{}",
            "created_time": number,
            "source_type": "LLM_JUDGE",
        }


def items(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            **_SHARED,
            "_id": f"rq-1|tr-{number:08}",
            "queue_id": "rq-1",
            "item_type": "trace",
            "item_id": f"tr-{number:08}",
            "status": "pending" if number % 3 else "complete",
            "created_time": number // 20,
        }


def fill(collection: Any, documents: Iterator[dict[str, Any]]) -> None:
    collection.delete_many({})
    while portion := [each for _, each in zip(range(_AT_ONCE), documents, strict=False)]:
        collection.insert_many(portion, ordered=False)


def median(call: Callable[[], Any], rounds: int) -> float:
    """In milliseconds; the first call is not counted."""
    call()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


def measure_issues(store: MongoDBStore, database: Any, assessments: int, count: int, rounds: int) -> None:
    fill(database["issues"], issues(count))
    fill(database["assessments"], references(assessments, count))
    first = time.perf_counter()
    store.search_issues("0", max_results=PAGE, include_trace_count=True)
    first = (time.perf_counter() - first) * 1000
    without = median(lambda: store.search_issues("0", max_results=PAGE), rounds)

    def counted() -> Any:
        return store.search_issues("0", max_results=PAGE, include_trace_count=True)

    with_counts = median(counted, rounds)
    keys = sum(read["keys"] for read in reads(database, counted))
    print(
        f"{assessments:>8,} assessments of {count:>6,} issues: page {without:.2f} ms, with numbers "
        f"{with_counts:.2f} ms ({with_counts / without:.2f}x, {keys:,} keys); the first, which counts, "
        f"{first:.0f} ms"
    )


def measure_queue(store: MongoDBStore, database: Any, count: int, rounds: int) -> None:
    database["review_queues"].insert_one(
        {
            **_SHARED,
            **{"_id": "rq-1", "name": "q", "name_key": "q", "type": "custom", "users": [], "schema_ids": []},
            **{"additions": 0, "created_time": 1},
        }
    )
    fill(database["review_queue_items"], items(count))
    token, number = None, 0
    tokens: dict[str, str | None] = {"first": None}
    while True:
        page = store.list_review_queue_items("rq-1", max_results=PAGE, page_token=token)
        number += len(page)
        if not page.token:
            break
        token = page.token
        if number == count // 2:
            tokens["middle"] = token
    tokens["last"] = token
    assert number == count
    for name, start in tokens.items():

        def call(start: str | None = start) -> Any:
            return store.list_review_queue_items("rq-1", max_results=PAGE, page_token=start)

        (read,) = reads(database, call)
        counts = ", ".join(f"{read[each]:,} {each}" for each in COUNTS.values())
        print(f"{name:<6} page of {count:,} items: {median(call, rounds):.2f} ms; {counts}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assessments", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--issues", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mongod(Path(folder)) as database_uri:
        uri = database_uri("people")
        store = MongoDBStore(uri, folder)
        store.get_experiment("0")
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            database = client.get_default_database()
            for assessments in options.assessments:
                for count in options.issues:
                    measure_issues(store, database, assessments, count, options.rounds)
            measure_queue(store, database, options.items, options.rounds)
        store.close()


if __name__ == "__main__":
    main()
