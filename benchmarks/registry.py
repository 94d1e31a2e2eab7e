"""Registry reads at 100 models or MCP servers and at 10,000, with 20 versions each: medians, their growth.

    python benchmarks/registry.py [--of models|servers] [--many 10000] [--json]

All are copies of one that the store made, inserted in bulk: only reads are measured.
"""

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
from mlflow.entities.mcp_server import MCPStatus

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore, embedded

VERSIONS = 20
ROUNDS = 21
BULK = 2_000


def model_name(number: int) -> str:
    return f"model-{number:06d}"


def server_name(number: int) -> str:
    return f"com.example/server-{number:06d}"


def make_model(store: Any) -> None:
    store.create_registered_model(model_name(0))
    for number in range(1, VERSIONS + 1):
        store.create_model_version(model_name(0), f"s3://bucket/{number}", run_id=uuid.uuid4().hex)
    store.transition_model_version_stage(model_name(0), "3", "Production", False)
    store.set_registered_model_alias(model_name(0), "champion", "7")


def make_server(store: Any) -> None:
    store.create_mcp_server(server_name(0), "What it is for, in a sentence.")
    for number in range(1, VERSIONS + 1):
        version = f"1.{number}.0"
        store.create_mcp_server_version(
            {"name": server_name(0), "version": version, "description": "What it is for."}
        )
        store.update_mcp_server_version(server_name(0), version, MCPStatus.ACTIVE)
    store.set_mcp_server_alias(server_name(0), "champion", "1.7.0")
    store.create_mcp_access_endpoint(server_name(0), "https://example.com/mcp", server_alias="champion")


def model_copy(model: Any, number: int) -> Any:
    return {**model, "_id": uuid.uuid4().hex, "name": model_name(number)}


def server_copy(server: Any, number: int) -> Any:
    endpoints = [{**endpoint, "id": uuid.uuid4().hex} for endpoint in server["endpoints"]]
    versions = [
        {**version, "content": version["content"].replace(server_name(0), server_name(number))}
        for version in server["versions"]
    ]
    _id = server["_id"].replace(server_name(0), server_name(number))
    return {**server, "_id": _id, "name": server_name(number), "endpoints": endpoints, "versions": versions}


def model_reads(store: Any) -> dict[str, Callable[[], Any]]:
    name = model_name(57)
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


def server_reads(store: Any) -> dict[str, Callable[[], Any]]:
    name = server_name(57)
    return {
        "get by name": lambda: store.get_mcp_server(name),
        "get by version": lambda: store.get_mcp_server_version(name, "1.11.0"),
        "get by alias": lambda: store.get_mcp_server_version_by_alias(name, "champion"),
        "latest version": lambda: store.get_latest_mcp_server_version(name),
        "page of 100 servers": lambda: store.search_mcp_servers(max_results=100),
        "page of 100 servers, newest": lambda: store.search_mcp_servers(
            max_results=100, order_by=["last_updated_at DESC"]
        ),
        "page of 100 active servers": lambda: store.search_mcp_servers("status = 'active'", max_results=100),
        "versions of one server": lambda: store.search_mcp_server_versions(name),
    }


class Thing(NamedTuple):
    """What a registry holds, in which collections, with how versions refer to their parent."""

    open: Callable[[str, str], Any]
    name: Callable[[int], str]
    parents: str
    children: str
    parent: str
    updated: str
    make: Callable[[Any], None]
    copy: Callable[[Any, int], Any]
    reads: Callable[[Any], dict[str, Callable[[], Any]]]


THINGS = {
    "models": Thing(
        lambda uri, _: MongoDBModelRegistryStore(uri),
        model_name,
        "registered_models",
        "model_versions",
        "model",
        "last_updated_time",
        make_model,
        model_copy,
        model_reads,
    ),
    "servers": Thing(
        MongoDBStore,
        server_name,
        "mcp_servers",
        "mcp_contents",
        "server",
        "last_update_time",
        make_server,
        server_copy,
        server_reads,
    ),
}


def copies(thing: Thing, database: Any, first: int, last: int) -> None:
    """Insert what has the numbers ``first`` to ``last`` as copies of number 0."""
    parents, children = database[thing.parents], database[thing.children]
    original = parents.find_one({"name": thing.name(0)})
    its_children = list(children.find({thing.parent: original["_id"]}))
    more_parents: list[Any] = []
    more_children: list[Any] = []
    for number in range(first, last):
        later = {thing.updated: original[thing.updated] + number}
        parent = {**thing.copy(original, number), **later}
        more_parents.append(parent)
        for child in its_children:
            of_parent = {
                "_id": parent["_id"] + child["_id"][len(original["_id"]) :],
                thing.parent: parent["_id"],
            }
            named = {"name": parent["name"], **later} if "name" in child else {}
            more_children.append({**child, **of_parent, **named})
        if len(more_parents) >= BULK // VERSIONS or number == last - 1:
            parents.insert_many(more_parents, ordered=False)
            children.insert_many(more_children, ordered=False)
            more_parents, more_children = [], []


def measure(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    medians = {}
    for operation, call in calls.items():
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
    parser.add_argument("--of", choices=THINGS, default="models", help="what is registered")
    parser.add_argument("--many", type=int, default=10_000, help="how many to compare with 100")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    thing = THINGS[arguments.of]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        with embedded.acquire(data) as server:
            store = thing.open(f"genesis://{data}", Path(folder, "artifacts").as_uri())
            thing.make(store)
            client: pymongo.MongoClient[Any] = pymongo.MongoClient(server.uri)
            copies(thing, client["mlflow"], 1, 100)
            small = measure(thing.reads(store))
            copies(thing, client["mlflow"], 100, arguments.many)
            large = measure(thing.reads(store))
            store.close()
            client.close()
        embedded.stop(data, force=True)
    if arguments.json:
        print(json.dumps({"100": small, str(arguments.many): large}, indent=2))
        return
    print(
        f"| read | 100 {arguments.of}, ms | {arguments.many} {arguments.of}, ms | ratio |\n|---|---|---|---|"
    )
    for operation, before in small.items():
        print(f"| {operation} | {before:.2f} | {large[operation]:.2f} | {large[operation] / before:.2f} |")


if __name__ == "__main__":
    main()
