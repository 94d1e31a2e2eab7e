"""On a sharded cluster: what a training, an agent and a page send goes to the shards that have the documents.

There is no cluster here. The commands of every call are recorded and routed by the rules of
``tools/shard_routes.py``: the tests say what is sent, not how a cluster answers.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.documents.sharding import ShardKey
from genesis_flow.stores.areas import DECLARED
from tests.commands import recorder
from tests.scenes import play
from tests.trust.tour import Made, World
from tools.shard_routes import Cluster, Command, shard_keys, transactions

Sent = dict[str, list[tuple[str, Command]]]

# What is asked of all shards, and why. A command of another call fails the test: give it the key, or say here
# why it cannot have one.
SEARCHES = (
    "A page looks for what it does not know the id of; each shard answers its first page from an index."
)
DELETIONS = "What an experiment, a run, a trace or a workspace had goes, once, and is found by it."
SUMS = "A number over all traces of an experiment or of the gateway; readers keep what has settled."
BROADCASTS = {
    "_search_runs": SEARCHES,
    "search_traces": SEARCHES,
    "search_logged_models": SEARCHES,
    "find_completed_sessions": SEARCHES,
    "archive_traces": SEARCHES,
    "_get_deleted_runs": SEARCHES,
    "_get_deleted_logged_models": SEARCHES,
    "calculate_trace_filter_correlation": SUMS,
    "query_trace_metrics": SUMS,
    "sum_gateway_trace_cost": SUMS,
    "_exceeded_gateway_budget": SUMS,
    "_count_gateway_cost": SUMS,
    "delete_run": DELETIONS,
    "delete_experiment": DELETIONS,
    "restore_experiment": DELETIONS,
    "delete_workspace": DELETIONS,
    "_hard_delete_run": DELETIONS,
    "_hard_delete_experiment": DELETIONS,
}
# Calls whose transaction is on more than one shard: none of them logs anything.
WIDE_TRANSACTIONS: dict[str, str] = {}
# What a training and an agent wait for.
LOGGING = (
    *("create_run", "log_metric", "log_batch", "log_param", "set_tag", "update_run_info", "get_run"),
    *("get_metric_history", "log_inputs", "start_trace", "log_spans", "get_trace", "get_trace_info"),
    *("create_logged_model", "get_logged_model", "create_assessment", "set_trace_tag"),
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster(64)


@pytest.fixture
async def sent(store_uri: str, tmp_path: Path) -> AsyncIterator[Sent]:
    """The commands of every call of all scenes, by the call's name."""
    world, found = World(store_uri, str(tmp_path / "artifacts")), defaultdict(list)

    async def recorded(name: str, make: Made) -> Any:
        with recorder.recording() as commands:
            answer = await make()
        found[name] += commands
        return answer

    world.around = recorded
    await play(world)
    yield found
    await world.close()


async def test_every_call_names_the_shard_key(sent: Sent, cluster: Cluster) -> None:
    assert set(LOGGING) <= sent.keys()
    asking_all, problems, wide = set(), [], set()
    routed = 0
    for name, commands in sent.items():
        for command, body in commands:
            route = cluster.route(command, body)
            if route is None or route.collection not in cluster.keys:
                continue
            routed += 1
            if not route.targeted:
                asking_all.add(name)
            if route.problem:
                problems.append(f"{name}: {command} {route.collection}: {route.problem}")
        wide |= {name for shards in transactions(cluster, commands).values() if len(shards) > 1}
    assert routed > 200, "the scenes were to send something"
    assert asking_all - BROADCASTS.keys() == set(), "these have to name the shard key"
    assert BROADCASTS.keys() - asking_all == set(), "these do by now: take them off the list"
    assert not BROADCASTS.keys() & set(LOGGING)
    assert problems == []
    assert wide == WIDE_TRANSACTIONS.keys()


def test_each_shard_key_has_an_index_that_begins_with_it() -> None:
    for declared in DECLARED:
        if (key := declared.Settings.shard) is not None and key.field != "_id":
            firsts = [next(iter(index.document["key"])) for index in declared.Settings.indexes]
            assert key.field in firsts, declared.Settings.name


def test_no_spread_collection_has_another_unique_index() -> None:
    for declared in DECLARED:
        if (key := declared.Settings.shard) is not None:
            for index in declared.Settings.indexes:
                document = index.document
                assert not document.get("unique") or next(iter(document["key"])) == key.field, document[
                    "name"
                ]


@pytest.mark.parametrize(
    ("query", "shards"),
    [
        ({"_id": "00ff"}, {0}),
        ({"_id": "ffff|loss"}, {3}),
        ({"_id": {"$in": ["1", "5", "f"]}}, {0, 1, 3}),
        ({"_id": {"$gte": "4000|", "$lt": "4000}"}}, {1}),
        ({"_id": {"$gte": "3f", "$lt": "41"}}, {0, 1}),
        ({"$and": [{"_id": "81"}, {"key": "loss"}]}, {2}),
        ({"$or": [{"_id": "00"}, {"_id": "f0"}]}, {0, 3}),
        ({"$or": [{"_id": "00"}, {"key": "loss"}]}, {0, 1, 2, 3}),
        ({"key": "loss"}, {0, 1, 2, 3}),
        ({"_id": {"$ne": "00"}}, {0, 1, 2, 3}),
        ({}, {0, 1, 2, 3}),
    ],
)
def test_routes(query: Any, shards: set[int]) -> None:
    cluster = Cluster(4, {"runs": ShardKey("_id", "")})
    route = cluster.route("find", {"find": "runs", "filter": query})
    assert route is not None
    assert route.shards == shards
    assert route.targeted == (len(shards) < 4)


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("update", {"updates": [{"q": {"_id": "1"}, "u": {}, "upsert": True}]}, False),
        ("update", {"updates": [{"q": {"x": 1}, "u": {}, "multi": True}]}, False),
        ("update", {"updates": [{"q": {"x": 1}, "u": {}}]}, True),
        ("update", {"updates": [{"q": {"x": 1}, "u": {}, "upsert": True}]}, True),
        ("delete", {"deletes": [{"q": {"x": 1}, "limit": 0}]}, False),
        ("delete", {"deletes": [{"q": {"x": 1}, "limit": 1}]}, True),
        ("findAndModify", {"query": {"x": 1}, "update": {}}, True),
        ("findAndModify", {"query": {"_id": "1"}, "update": {}, "upsert": True}, False),
    ],
)
def test_what_a_router_does_not_take(name: str, body: dict[str, Any], problem: bool) -> None:
    cluster = Cluster(4, {"runs": ShardKey("_id", "")})
    route = cluster.route(name, {name: "runs", **body})
    assert route is not None
    assert bool(route.problem) == problem


def test_ranges_are_of_equal_size() -> None:
    key = ShardKey("_id", "", beginning="tr-")
    assert key.splits(4) == ["tr-4000", "tr-8000", "tr-c000"]
    assert shard_keys().keys() >= {"runs", "metrics", "latest_metrics", "traces", "spans"}
