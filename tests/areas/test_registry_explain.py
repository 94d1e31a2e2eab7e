"""What the registry's reads cost, in commands and in examined documents, however large the registry is."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pymongo
import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.webhook import WebhookEvent

from genesis_flow.aio import MongoDBModelRegistryStore
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields, version_id
from tests.areas.explain import Query, profiled, raw
from tests.commands import CommandRecorder
from tests.mongod import Mongod

MODELS = 1_500
VERSIONS = 4
PAGE = 50
PROMPT_TAG = "mlflow.prompt.is_prompt"


@pytest.fixture(scope="module")
async def large(mongod: Mongod) -> AsyncIterator[MongoDBModelRegistryStore]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    store = MongoDBModelRegistryStore(f"{mongod.database_uri(name)}&appName=explain")
    await store.open()
    models = [_model(number) for number in range(MODELS)]
    await store.database.collection(RegisteredModelFields).insert_many(models)
    await store.database.collection(ModelVersionFields).insert_many(
        [_version(model, number) for model in models for number in range(1, VERSIONS + 1)]
    )
    yield store
    await store.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


def _model(number: int) -> dict[str, Any]:
    is_prompt = number % 5 == 4
    fields = RegisteredModelFields(
        _id=f"id{number:05}",
        workspace="default",
        name=f"{'prompt' if is_prompt else 'model'}{number:05}",
        creation_time=number,
        last_updated_time=number * 7919 % MODELS,
        tags={"bucket": str(number % 100), **({PROMPT_TAG.replace(".", "%2E"): "true"} if is_prompt else {})},
        is_prompt=is_prompt,
        last_version=VERSIONS,
        stages={"2": "Production", "1": "Archived"} if number % 2 else {},
        aliases={"best": 3},
    )
    return fields.model_dump(by_alias=True, exclude_none=True)


def _version(model: dict[str, Any], number: int) -> dict[str, Any]:
    fields = ModelVersionFields(
        _id=version_id(model["_id"], number),
        workspace="default",
        model=model["_id"],
        name=model["name"],
        version=number,
        creation_time=number,
        last_updated_time=model["last_updated_time"],
        source="s3://x",
        run_id=f"run-{model['_id']}-{number}",
        status="READY",
        tags={"n": str(number)},
        is_prompt=model["is_prompt"],
        aliases=["best"] if number == 3 else [],
    )
    return fields.model_dump(by_alias=True, exclude_none=True)


def assert_cheap(queries: list[Query], *, examined: int) -> None:
    assert queries
    for query in queries:
        assert not query.scans_collection, query
        assert not query.blocking_sort, query
        assert query.documents <= examined, query
        assert query.keys <= 2 * examined + 10, query


@pytest.mark.parametrize("order_by", [None, ["name DESC"], ["last_updated_timestamp DESC"]])
async def test_pages_of_models(large: MongoDBModelRegistryStore, order_by: list[str] | None) -> None:
    first = await large.search_registered_models(max_results=PAGE, order_by=order_by)
    async with profiled(large.database) as queries:
        page = await large.search_registered_models(None, PAGE, order_by, first.token)
    assert len(page) == PAGE
    assert [len(model.latest_versions) for model in page[:2]] in ([1, 3], [3, 1], [1, 1], [3, 3])
    assert len(queries) == 2
    assert_cheap(queries, examined=4 * PAGE)


async def test_deep_pages_cost_what_the_first_costs(large: MongoDBModelRegistryStore) -> None:
    token = None
    for _ in range(15):
        page = await large.search_registered_models(None, PAGE, ["last_updated_timestamp DESC"], token)
        token = page.token
    async with profiled(large.database) as queries:
        await large.search_registered_models(None, PAGE, ["last_updated_timestamp DESC"], token)
    assert_cheap(queries, examined=4 * PAGE)


async def test_pages_of_prompts_read_no_versions(large: MongoDBModelRegistryStore) -> None:
    async with profiled(large.database) as queries:
        assert len(await large.search_prompts(max_results=PAGE)) == PAGE
    assert [query.collection for query in queries] == ["registered_models"]
    assert_cheap(queries, examined=PAGE + 1)


async def test_filters_of_models(large: MongoDBModelRegistryStore) -> None:
    for filter_string, expected in (
        ("name = 'model00010'", 1),
        ("name IN ('model00010', 'model00011')", 2),
        ("name LIKE 'model0001%'", 8),
    ):
        async with profiled(large.database) as queries:
            assert len(await large.search_registered_models(filter_string)) == expected
        assert_cheap(queries, examined=40)
    async with profiled(large.database) as queries:
        assert len(await large.search_registered_models("tags.bucket = '17'")) == MODELS // 100
    assert not any(query.scans_collection for query in queries)
    assert max(query.documents for query in queries) <= 4 * MODELS // 100


@pytest.mark.parametrize("order_by", [None, ["name", "version_number DESC"]])
async def test_pages_of_versions(large: MongoDBModelRegistryStore, order_by: list[str] | None) -> None:
    first = await large.search_model_versions(max_results=PAGE, order_by=order_by)
    async with profiled(large.database) as queries:
        page = await large.search_model_versions(None, PAGE, order_by, first.token)
    assert len(page) == PAGE
    assert_cheap(queries, examined=2 * PAGE)


async def test_versions_of_one_model_and_of_one_run(large: MongoDBModelRegistryStore) -> None:
    for filter_string, expected in (
        ("name = 'model00010'", VERSIONS),
        ("run_id = 'run-id00010-2'", 1),
        ("run_id IN ('run-id00010-2', 'run-id00011-2')", 2),
    ):
        async with profiled(large.database) as queries:
            assert len(await large.search_model_versions(filter_string)) == expected
        assert not any(query.scans_collection for query in queries)
        assert max(query.documents for query in queries) <= 10


async def test_gets_are_one_round_trip(large: MongoDBModelRegistryStore, commands: CommandRecorder) -> None:
    """At most two commands, sent side by side; a third is for the versions in stages."""
    for call, expected in (
        (lambda: large.get_model_version("model00010", 2), 2),
        (lambda: large.get_model_version_download_uri("model00010", 2), 2),
        (lambda: large.get_model_version_by_alias("model00010", "best"), 2),
        (lambda: large.get_model_version_by_alias("model00010", "latest"), 2),
        (lambda: large.get_registered_model("model00010"), 2),
        (lambda: large.get_registered_model("model00011"), 3),
        (lambda: large.get_latest_versions("model00010"), 2),
        (lambda: large.get_latest_versions("model00011"), 3),
        (lambda: large.get_prompt("prompt00004"), 1),
    ):
        with commands.recording() as sent:
            await call()
        assert [name for name, _ in sent] == ["find"] * expected
    async with profiled(large.database) as queries:
        await large.get_model_version("model00010", 2)
        await large.get_model_version_by_alias("model00010", "best")
        await large.get_registered_model("model00011")
    assert_cheap(queries, examined=3)


async def test_deleting_a_model_leaves_nothing_behind(large: MongoDBModelRegistryStore) -> None:
    database = raw(large.database)
    await large.create_registered_model("mine", [RegisteredModelTag("k", "unmistakable")])
    await large.create_model_version("mine", "s3://unmistakable", tags=[ModelVersionTag("k", "unmistakable")])
    await large.set_registered_model_alias("mine", "unmistakable", 1)
    model = await database["registered_models"].find_one({"name": "mine"})
    assert model is not None
    await large.delete_registered_model("mine")
    for name in await database.list_collection_names():
        if not name.startswith("system."):
            async for document in database[name].find():
                assert "unmistakable" not in repr(document)
                assert model["_id"] not in repr(document)


async def test_webhooks_by_event(large: MongoDBModelRegistryStore) -> None:
    event = WebhookEvent.from_str("prompt.created")
    for number in range(20):
        events = [event] if number == 7 else [WebhookEvent.from_str("model_version.created")]
        await large.create_webhook(f"hook{number}", "https://8.8.8.8/x", events)
    async with profiled(large.database) as queries:
        assert [webhook.name for webhook in await large.list_webhooks_by_event(event)] == ["hook7"]
    assert_cheap(queries, examined=1)
