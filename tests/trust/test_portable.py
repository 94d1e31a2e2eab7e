"""The portable profile: nothing leaves the store that Azure Cosmos DB for MongoDB (RU) does not know.

There is no RU service here: these tests say what is sent, not how the service answers. The same listener is
on every test of a run with GENESIS_FLOW_PROFILE=portable, for instance of tests/contract.
"""

import math
import random
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from pymongo import AsyncMongoClient

from genesis_flow.aio import MongoDBStore
from genesis_flow.core.settings import Settings
from genesis_flow.documents.portable import PortableCollection, in_order
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.initialise import initialise
from genesis_flow.migrate.schema_check import compare
from tests.commands import CommandRecorder
from tests.contract.trace_scenes import span, trace_id
from tests.mongod import Mongod
from tests.scenes import play
from tests.trust.portable_rules import rules
from tests.trust.tour import World

_ADDRESS = re.compile(" at 0x[0-9a-f]+")
RU = "mongodb://name.mongo.cosmos.azure.com:10255/db?ssl=true&replicaSet=globaldb"


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")


@pytest.fixture
async def world(store_uri: str, tmp_path: Path) -> AsyncIterator[World]:
    made = World(store_uri, str(tmp_path / "artifacts"))
    yield made
    await made.close()


@pytest.mark.usefixtures("portable")
async def test_a_tour_of_all_writes_and_many_reads_sends_nothing_else(
    world: World, commands: CommandRecorder
) -> None:
    with rules.enforced() as violations, commands.recording() as sent:
        await play(world)
        for name, read in reads(world).items():
            assert await read() is not None, name
    assert sorted(set(violations)) == []
    assert len(sent) > 300
    assert {"find", "insert", "update", "delete", "findAndModify", "aggregate", "createIndexes"} <= {
        name for name, _ in sent
    }


def reads(world: World) -> dict[str, Any]:
    """Reads of every kind that sorts, groups or joins."""
    store, registry, experiment = world.store, world.registry, world.ids.get("experiment", "1")
    count = [MetricAggregation(AggregationType.COUNT)]

    def runs(filter_string: str = "", *order: str, token: str | None = None) -> Any:
        return lambda: store._search_runs([experiment], filter_string, ViewType.ALL, 7, list(order), token)

    return {
        "newest": runs(),
        "oldest": runs("", "attributes.start_time ASC"),
        "by metric": runs("", "metrics.m DESC"),
        "by metric up": runs("metrics.m > -1", "metrics.m ASC"),
        "by param": runs("", "params.p", "attributes.end_time DESC"),
        "by name": runs("params.p LIKE '1%'", "attributes.run_name"),
        "by tag": runs("tags.t != 'x' and metrics.m < 100", "tags.t DESC"),
        "by five": runs("", "params.p", "tags.t", "attributes.status", "attributes.end_time", "metrics.m"),
        "experiments": store.search_experiments,
        "experiments by name": lambda: store.search_experiments(ViewType.ALL, order_by=["name DESC"]),
        "traces": lambda: store.search_traces(locations=["0"], max_results=3),
        "traces by duration": lambda: store.search_traces(locations=["0"], order_by=["execution_time DESC"]),
        "traces by tag": lambda: store.search_traces(filter_string="tags.u = '2'", locations=["0"]),
        "trace metrics": lambda: store.query_trace_metrics(
            ["0"], MetricViewType.TRACES, "trace_count", count, dimensions=["trace_status"]
        ),
        "span metrics": lambda: store.query_trace_metrics(
            ["0"], MetricViewType.SPANS, "span_count", count, dimensions=["span_type"]
        ),
        "sessions": lambda: store.find_completed_sessions("0", 0, 2**50),
        "logged models": lambda: store.search_logged_models([experiment]),
        "logged models by metric": lambda: store.search_logged_models(
            [experiment], order_by=[{"field_name": "metrics.acc", "ascending": False}]
        ),
        "logged models by name": lambda: store.search_logged_models(
            [experiment], order_by=[{"field_name": "name", "ascending": True}]
        ),
        "datasets": store.search_datasets,
        "models": registry.search_registered_models,
        "models by update": lambda: registry.search_registered_models(
            order_by=["last_updated_timestamp DESC"]
        ),
        "versions": registry.search_model_versions,
        "versions by name": lambda: registry.search_model_versions(order_by=["name ASC"]),
        "prompts": lambda: registry.search_prompts(),
        "prompt versions": lambda: registry.search_prompt_versions("greeting"),
        "latest": lambda: registry.get_registered_model("renamed"),
        "webhooks": registry.list_webhooks,
    }


async def test_both_profiles_find_the_same_in_the_same_order(
    world: World, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await play(world)
    dice = random.Random(7)
    for number in range(40):
        run = await world.store.create_run(
            world["experiment"], "me", dice.choice([5, 6, 7]), [RunTag("t", dice.choice("abc"))], None
        )
        value = dice.choice([math.nan, math.inf, -1.0, 0.5, 0.5, 2.0])
        if number % 3:
            await world.store.log_metric(run.info.run_id, Metric("m", value, number, 0))
        if number % 4:
            await world.store.log_param(run.info.run_id, Param("p", dice.choice(["1", "10", "é", ""])))
    monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")
    other = World(store_uri, str(tmp_path / "artifacts"))
    other.ids = world.ids
    ours, theirs = reads(other), reads(world)
    for name, read in ours.items():
        assert plain(await read()) == plain(await theirs[name]()), name
    for order in ("metrics.m DESC", "params.p ASC", "attributes.start_time ASC"):
        pages = [await walk(each.store, world["experiment"], order) for each in (world, other)]
        assert pages[0] == pages[1]
        assert len(pages[0]) == 42
    assert not other.store.database.has_transactions
    await other.close()


def plain(found: Any) -> Any:
    """What was found, as far as it has an order and an identity."""
    if isinstance(found, tuple):
        return [plain(each) for each in found]
    if isinstance(found, list):
        return [plain(each) for each in found]
    return found if isinstance(found, str | None) else _ADDRESS.sub("", repr(vars(found)))


async def walk(store: MongoDBStore, experiment: str, order: str) -> list[str]:
    ids: list[str] = []
    token = None
    while True:
        runs, token = await store._search_runs([experiment], "", ViewType.ACTIVE_ONLY, 6, [order], token)
        ids += [run.info.run_id for run in runs]
        if token is None:
            return ids


async def test_the_listener_finds_what_the_full_profile_sends(world: World) -> None:
    """A check that finds nothing is worth something only if it can find."""
    with rules.enforced() as violations:
        await play(world)
        for read in reads(world).values():
            await read()
    found = "\n".join(violations)
    for what in (
        *("commitTransaction", "txnNumber", "hint=", "viewOn", "allowDiskUse", "without exactly that index"),
        *("with partialFilterExpression", "with sparse", "compound index over nested fields"),
    ):
        assert what in found, what


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("aggregate", {"aggregate": "c", "pipeline": [{"$lookup": {"from": "d", "let": {}}}]}),
        ("aggregate", {"aggregate": "c", "pipeline": [{"$group": {"_id": {"$dateTrunc": {}}}}]}),
        ("aggregate", {"aggregate": "c", "pipeline": [{"$facet": {"a": [{"$graphLookup": {}}]}}]}),
        ("update", {"update": "c", "updates": [{"q": {}, "u": [{"$set": {"a": 1}}]}]}),
        ("update", {"update": "c", "updates": [{"q": {"$where": "1"}, "u": {"$set": {"a": 1}}}]}),
        ("update", {"update": "c", "updates": [{"q": {}, "u": {"$set": {"a": 1}}, "collation": {}}]}),
        ("find", {"find": "c", "filter": {"$text": {"$search": "x"}}}),
        ("find", {"find": "c", "filter": {}, "sort": {"a": 1}}),
        ("findAndModify", {"findAndModify": "c", "query": {}, "sort": {"a": 1, "b": 1}}),
        ("insert", {"insert": "c", "documents": [{"a": "x" * 1_600_000}]}),
        ("createIndexes", {"createIndexes": "c", "indexes": [{"key": {"a.$**": 1, "b": 1}, "name": "n"}]}),
        ("createIndexes", {"createIndexes": "c", "indexes": [{"key": {"a": "text"}, "name": "n"}]}),
        ("collMod", {"collMod": "c"}),
        ("renameCollection", {"renameCollection": "c"}),
    ],
)
def test_the_listener_knows_the_table(name: str, command: dict[str, Any]) -> None:
    assert list(rules.violations(name, command, "db"))


async def test_sorting_here_is_sorting_there(mongod: Mongod) -> None:
    dice = random.Random(3)
    values = [None, math.nan, -math.inf, -1, 0, 0.5, 2**40, math.inf, "", "a", "B", "é", {"x": 1}, {"x": 2}]
    values += [True, False, b"x"]
    documents = [
        {"_id": number, "a": dice.choice(values), "n": {"b": dice.choice(values)}} for number in range(400)
    ]
    for document in documents[::7]:
        del document["a"]
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongod.uri)
    plain_collection = client[f"test_{uuid.uuid4().hex}"]["any"]
    await plain_collection.insert_many(documents)
    portable = PortableCollection(plain_collection, "any")
    for sort in (
        [("a", 1), ("_id", 1)],
        [("a", -1), ("n.b", 1), ("_id", -1)],
        [("n.b", -1), ("a", -1), ("_id", 1)],
    ):
        wanted = [row["_id"] for row in await plain_collection.find({}, sort=sort).to_list()]
        assert [row["_id"] for row in in_order(documents, sort)] == wanted
        found = await portable.find({}, {"_id": 1}, sort=sort, limit=9).to_list()
        assert [row["_id"] for row in found] == wanted[:9]
    await client.drop_database(plain_collection.database.name)
    await client.close()


@pytest.mark.usefixtures("portable")
async def test_documents_beyond_the_limit_are_refused_before_they_are_sent(store: MongoDBStore) -> None:
    tags = [RunTag(f"t{number}", "x" * 8_000) for number in range(200)]
    with rules.enforced() as violations:
        with pytest.raises(MlflowException) as refused:
            await store.create_run("0", "me", 1, tags, None)
        long = span(trace_id(9), 1, attributes={"text": "é" * 3_000_000})
        await store.log_spans("0", [long])
        (found,) = (await store.get_trace(trace_id(9))).data.spans
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "2 MB on Azure" in str(refused.value)
    assert found.attributes["text"] == "é" * 3_000_000
    assert violations == []


def test_the_schema_check_knows_what_stands_for_what(mongod: Mongod, database_name: str) -> None:
    from genesis_flow.stores.areas import DECLARED

    with pymongo.MongoClient(mongod.uri, retryWrites=False) as client, rules.enforced() as violations:
        initialise(client[database_name], "p_", portable=True)
        assert client[database_name]["p_schema_migrations"].count_documents({}) == len(migration_files())
        assert violations == []
        assert compare(client[database_name], "p_", DECLARED, portable=True) == []
        assert compare(client[database_name], "p_", DECLARED) != []
        client.drop_database(database_name)


def test_the_profile_is_chosen_by_the_host_or_by_the_user() -> None:
    def chosen(uri: str, **environ: str) -> Settings:
        return Settings.resolve(uri, environ=environ)

    assert chosen(RU).portable
    assert chosen(RU).retry_writes is False
    assert chosen(RU).sources["portable"] == "host of the URI"
    assert not chosen(RU, GENESIS_FLOW_PROFILE="full").portable
    assert not chosen("mongodb+srv://name.mongocluster.cosmos.azure.com/db").portable
    assert not chosen("mongodb://localhost/db").portable
    forced = chosen("mongodb://localhost/db", GENESIS_FLOW_PROFILE="portable")
    assert forced.portable
    assert forced.retry_writes is False
    assert chosen("mongodb://localhost/db?retryWrites=true", GENESIS_FLOW_PROFILE="portable").retry_writes
    with pytest.raises(MlflowException, match="full, portable") as refused:
        chosen(RU, GENESIS_FLOW_PROFILE="azure")
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
