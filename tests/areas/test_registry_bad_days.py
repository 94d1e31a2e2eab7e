"""The registry when connections break in the middle of a call, or a process died there."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pymongo
import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBModelRegistryStore
from tests.areas.explain import raw
from tests.faults import failing
from tests.mongod import Mongod

APP = "registry-bad-days"


@pytest.fixture
async def on_set(mongod: Mongod) -> AsyncIterator[MongoDBModelRegistryStore]:
    store, name = _store(mongod)
    yield store
    await _end(store, mongod, name)


@pytest.fixture
async def on_standalone(standalone: Mongod) -> AsyncIterator[MongoDBModelRegistryStore]:
    store, name = _store(standalone)
    yield store
    await _end(store, standalone, name)


def _store(server: Mongod) -> tuple[MongoDBModelRegistryStore, str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    return MongoDBModelRegistryStore(f"{server.database_uri(name)}&appName={APP}"), name


async def _end(store: MongoDBModelRegistryStore, server: Mongod, name: str) -> None:
    await store.close()
    with pymongo.MongoClient(server.uri) as client:
        client.drop_database(name)


ONCE = {"times": 1, "app": APP}
BEFORE: dict[str, Any] = {**ONCE, "closeConnection": True}
# The write is done, but the server does not hear from the others whether they have it.
AFTER: dict[str, Any] = {**ONCE, "writeConcernError": {"code": 9001, "errmsg": "lost connection"}}


@pytest.mark.parametrize("command", ["findAndModify", "insert", "commitTransaction"])
async def test_a_version_is_created_once(
    on_set: MongoDBModelRegistryStore, mongod: Mongod, command: str
) -> None:
    await on_set.create_registered_model("m")
    with failing(mongod.uri, command, **BEFORE):
        assert (await on_set.create_model_version("m", "s3://x")).version == 1
    if command == "commitTransaction":
        with failing(mongod.uri, command, **AFTER):
            assert (await on_set.create_model_version("m", "s3://x")).version == 2
    versions = await on_set.search_model_versions("name = 'm'", order_by=["version_number"])
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("command", ["findAndModify", "update", "delete", "find"])
async def test_calls_survive_a_broken_connection(
    on_set: MongoDBModelRegistryStore, mongod: Mongod, command: str
) -> None:
    await on_set.create_registered_model("m")
    for _ in range(2):
        await on_set.create_model_version("m", "s3://x")
    for call in (
        lambda: on_set.set_registered_model_alias("m", "best", 1),
        lambda: on_set.transition_model_version_stage("m", 2, "Production", True),
        lambda: on_set.transition_model_version_stage("m", 1, "Production", True),
        lambda: on_set.rename_registered_model("m", "n"),
        lambda: on_set.rename_registered_model("n", "m"),
        lambda: on_set.delete_model_version("m", 2),
    ):
        with failing(mongod.uri, command, **BEFORE):
            await call()
    model = await on_set.get_registered_model("m")
    assert model.aliases == {"best": 1}
    assert [(v.version, v.current_stage) for v in model.latest_versions] == [(1, "Production")]
    with failing(mongod.uri, command, **BEFORE):
        await on_set.delete_registered_model("m")
    assert await on_set.search_model_versions() == []


async def test_a_rename_that_was_killed_is_finished_by_the_next(
    on_standalone: MongoDBModelRegistryStore,
) -> None:
    store = on_standalone
    await store.create_registered_model("old")
    for _ in range(3):
        await store.create_model_version("old", "s3://x")
    await store.set_registered_model_alias("old", "best", 2)
    # What a rename leaves that is killed after its first write.
    models = raw(store.database)["registered_models"]
    await models.update_one({"name": "old"}, {"$set": {"name": "new", "renamed_from": "old"}})
    assert (await store.get_model_version("new", 3)).name == "new"
    assert (await store.get_model_version_by_alias("new", "best")).version == 2
    assert (await store.get_model_version_by_alias("new", "latest")).version == 3
    assert [v.version for v in (await store.get_registered_model("new")).latest_versions] == [3]
    # Even when somebody takes the old name meanwhile.
    await store.create_registered_model("old")
    assert (await store.create_model_version("old", "s3://y")).version == 1
    assert (await store.get_model_version("old", 1)).source == "s3://y"
    assert (await store.get_model_version("new", 1)).source == "s3://x"
    await store.delete_registered_model("old")
    await store.rename_registered_model("old", "new")
    assert len(await store.search_model_versions("name = 'new'")) == 3
    with pytest.raises(MlflowException, match="not found"):
        await store.rename_registered_model("old", "new")


async def test_a_delete_that_was_killed_is_finished_by_the_next(
    on_standalone: MongoDBModelRegistryStore,
) -> None:
    store = on_standalone
    await store.create_registered_model("m")
    for _ in range(3):
        await store.create_model_version("m", "s3://x")
    await store.set_registered_model_alias("m", "best", 3)
    await store.transition_model_version_stage("m", 3, "Staging", False)
    # What a delete leaves that is killed after its first write.
    await raw(store.database)["model_versions"].delete_one({"name": "m", "version": 3})
    assert [v.version for v in (await store.get_registered_model("m")).latest_versions] == [2]
    with pytest.raises(MlflowException, match="not found"):
        await store.get_model_version_by_alias("m", "best")
    await store.delete_model_version("m", 3)
    model = await store.get_registered_model("m")
    assert (model.aliases, [v.version for v in model.latest_versions]) == ({}, [2])


async def test_a_number_without_a_version_is_passed_over(on_standalone: MongoDBModelRegistryStore) -> None:
    """What a creator leaves that is killed between its two writes, where there are no transactions."""
    store = on_standalone
    await store.create_registered_model("m")
    await store.create_model_version("m", "s3://x")
    await raw(store.database)["registered_models"].update_one({"name": "m"}, {"$inc": {"last_version": 1}})
    assert [v.version for v in await store.get_latest_versions("m")] == [1]
    assert [v.version for v in (await store.search_registered_models())[0].latest_versions] == [1]
    assert (await store.create_model_version("m", "s3://x")).version == 3


async def test_what_cannot_be_stored_takes_no_number(on_set: MongoDBModelRegistryStore) -> None:
    await on_set.create_registered_model("m")
    for source in ("s3://\ud800", "x" * (17 * 1024 * 1024)):
        with pytest.raises(MlflowException) as refused:
            await on_set.create_model_version("m", source)
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert (await on_set.create_model_version("m", "s3://x")).version == 1


async def test_many_reads_at_once(on_set: MongoDBModelRegistryStore) -> None:
    """Many calls at once share one connection pool without waiting for each other for ever."""
    await on_set.create_registered_model("m")
    await on_set.create_model_version("m", "s3://x")
    found = await asyncio.gather(*(on_set.get_model_version("m", 1) for _ in range(300)))
    assert {version.version for version in found} == {1}
