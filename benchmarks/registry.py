"""Registry reads at 100 models and at 10,000, each with 20 versions: medians, and how they grow.

    python benchmarks/registry.py [--models 10000] [--json]

The models are copies of one that the store made, inserted in bulk: only reads are measured.
"""

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo

from genesis_flow import MongoDBModelRegistryStore, embedded
from genesis_flow.documents.keys import SEPARATOR

VERSIONS = 20
ROUNDS = 21
BULK = 2_000


def name_of(number: int) -> str:
    return f"model-{number:06d}"


def make_first(store: Any) -> None:
    store.create_registered_model(name_of(0))
    for number in range(1, VERSIONS + 1):
        store.create_model_version(name_of(0), f"s3://bucket/{number}", run_id=uuid.uuid4().hex)
    store.transition_model_version_stage(name_of(0), "3", "Production", False)
    store.set_registered_model_alias(name_of(0), "champion", "7")


def copy_models(database: Any, first: int, last: int) -> None:
    """Insert the models ``first`` to ``last`` as copies of the model 0."""
    models, versions = database["registered_models"], database["model_versions"]
    model = models.find_one({"name": name_of(0)})
    its_versions = list(versions.find({"model": model["_id"]}))
    more_models: list[Any] = []
    more_versions: list[Any] = []
    for number in range(first, last):
        name, model_id = name_of(number), uuid.uuid4().hex
        later = {"last_updated_time": model["last_updated_time"] + number}
        more_models.append({**model, "_id": model_id, "name": name, **later})
        for version in its_versions:
            _id = model_id + SEPARATOR + version["_id"].partition(SEPARATOR)[2]
            more_versions.append({**version, "_id": _id, "model": model_id, "name": name, **later})
        if len(more_models) >= BULK // VERSIONS or number == last - 1:
            models.insert_many(more_models, ordered=False)
            versions.insert_many(more_versions, ordered=False)
            more_models, more_versions = [], []


def reads(store: Any) -> dict[str, Callable[[], Any]]:
    name = name_of(57)
    return {
        "get by name": lambda: store.get_registered_model(name),
        "get by version": lambda: store.get_model_version(name, "11"),
        "get by alias": lambda: store.get_model_version_by_alias(name, "champion"),
        "latest versions": lambda: store.get_latest_versions(name),
        "page of 100 models": lambda: store.search_registered_models(max_results=100),
        "page of 100 models, newest": lambda: store.search_registered_models(
            max_results=100, order_by=["last_updated_timestamp DESC"]
        ),
        "page of 100 versions": lambda: store.search_model_versions(max_results=100),
        "versions of one model": lambda: store.search_model_versions(f"name = '{name}'"),
    }


def measure(store: Any) -> dict[str, float]:
    medians = {}
    for operation, call in reads(store).items():
        assert call(), operation
        times = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1000)
        medians[operation] = statistics.median(times)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        with embedded.acquire(data) as server:
            store = MongoDBModelRegistryStore(f"genesis://{data}")
            make_first(store)
            client: pymongo.MongoClient[Any] = pymongo.MongoClient(server.uri)
            copy_models(client["mlflow"], 1, 100)
            small = measure(store)
            copy_models(client["mlflow"], 100, arguments.models)
            large = measure(store)
            store.close()
            client.close()
        embedded.stop(data, force=True)
    if arguments.json:
        print(json.dumps({"100": small, str(arguments.models): large}, indent=2))
        return
    print(f"| read | 100 models, ms | {arguments.models} models, ms | ratio |\n|---|---|---|---|")
    for operation, before in small.items():
        print(f"| {operation} | {before:.2f} | {large[operation]:.2f} | {large[operation] / before:.2f} |")


if __name__ == "__main__":
    main()
