"""The registry under concurrent writers and readers, with and without transactions."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pymongo
import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBModelRegistryStore
from tests.areas.explain import raw
from tests.mongod import Mongod

WRITERS = 32
CLIENTS = 8


@pytest.fixture(params=["mongod", "standalone"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[list[MongoDBModelRegistryStore]]:
    """Stores of one database with a client each, so that they share no lock."""
    server: Mongod = request.getfixturevalue(request.param)
    name = f"test_{uuid.uuid4().hex[:12]}"
    uri = server.database_uri(name)
    made = [MongoDBModelRegistryStore(f"{uri}&appName=client{number}") for number in range(CLIENTS)]
    await made[0].open()
    yield made
    for store in made:
        await store.close()
    with pymongo.MongoClient(server.uri) as client:
        client.drop_database(name)


async def test_version_numbers_are_dense_and_unique(stores: list[MongoDBModelRegistryStore]) -> None:
    await stores[0].create_registered_model("m")
    created = await asyncio.gather(
        *(
            stores[number % CLIENTS].create_model_version(
                "m", f"s3://{number}", tags=[ModelVersionTag("writer", str(number))]
            )
            for number in range(WRITERS)
        )
    )
    assert sorted(version.version for version in created) == list(range(1, WRITERS + 1))
    for number, version in enumerate(created):
        assert (await stores[0].get_model_version("m", version.version)).tags == {"writer": str(number)}


async def test_of_many_creators_of_a_name_one_succeeds(stores: list[MongoDBModelRegistryStore]) -> None:
    for name in (f"m{number}" for number in range(10)):
        results = await asyncio.gather(
            *(store.create_registered_model(name) for store in stores), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, MlflowException)]
        assert len(refused) == CLIENTS - 1
        assert {error.error_code for error in refused} == {"RESOURCE_ALREADY_EXISTS"}


async def test_readers_see_exactly_one_version_in_production(stores: list[MongoDBModelRegistryStore]) -> None:
    await stores[0].create_registered_model("m")
    for number in range(4):
        await stores[0].create_model_version("m", f"s3://{number}")
    await stores[0].transition_model_version_stage("m", 1, "Production", True)
    done = asyncio.Event()
    observations = 0

    async def read(store: MongoDBModelRegistryStore) -> None:
        nonlocal observations
        while not done.is_set():
            latest = await store.get_latest_versions("m", ["Production"])
            assert len(latest) == 1
            everything = await store.search_model_versions("name = 'm'")
            assert [version.current_stage for version in everything].count("Production") == 1
            observations += 1

    readers = [asyncio.create_task(read(store)) for store in stores[4:]]
    for turn in range(15):
        await asyncio.gather(
            *(
                store.transition_model_version_stage("m", 1 + (turn + offset) % 4, "Production", True)
                for offset, store in enumerate(stores[:4])
            )
        )
    done.set()
    await asyncio.gather(*readers)
    assert observations > 15


async def test_a_model_is_always_found_whole_while_it_is_renamed(
    stores: list[MongoDBModelRegistryStore],
) -> None:
    await stores[0].create_registered_model("name0")
    for number in range(5):
        await stores[0].create_model_version("name0", f"s3://{number}")
    await stores[0].set_registered_model_alias("name0", "best", 3)
    done = asyncio.Event()
    found = 0
    refusals: list[tuple[str, str]] = []

    async def read(store: MongoDBModelRegistryStore) -> None:
        nonlocal found
        while not done.is_set():
            [model] = await store.search_registered_models()
            for lookup in (
                store.get_model_version(model.name, 5),
                store.get_model_version_by_alias(model.name, "best"),
            ):
                try:
                    version = await lookup
                except MlflowException as error:
                    refusals.append((model.name, error.error_code))
                else:
                    assert version.name == model.name
                    found += 1

    readers = [asyncio.create_task(read(store)) for store in stores[1:4]]
    for number in range(40):
        await stores[0].rename_registered_model(f"name{number}", f"name{number + 1}")
    done.set()
    await asyncio.gather(*readers)
    assert found > 20
    # Only a reader that was late is refused: the name that it had read is no model's any more.
    assert {code for _, code in refusals} <= {"RESOURCE_DOES_NOT_EXIST"}
    assert "name40" not in {name for name, _ in refusals}
    assert len(await stores[0].search_model_versions("name = 'name40'")) == 5


async def test_of_many_renames_onto_one_name_one_succeeds(stores: list[MongoDBModelRegistryStore]) -> None:
    for number, store in enumerate(stores):
        await store.create_registered_model(f"m{number}")
        await store.create_model_version(f"m{number}", f"s3://{number}")
    results = await asyncio.gather(
        *(store.rename_registered_model(f"m{number}", "winner") for number, store in enumerate(stores)),
        return_exceptions=True,
    )
    winners = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
    assert len(winners) == 1
    assert (await stores[0].get_model_version("winner", 1)).source == f"s3://{winners[0]}"
    for number in set(range(CLIENTS)) - set(winners):
        assert (await stores[0].get_model_version(f"m{number}", 1)).source == f"s3://{number}"


async def test_deleting_a_model_leaves_nothing_of_racing_writers(
    stores: list[MongoDBModelRegistryStore],
) -> None:
    database = raw(stores[0].database)
    for _ in range(10):
        await stores[0].create_registered_model("m")
        await stores[0].create_model_version("m", "s3://x")
        await asyncio.gather(
            stores[0].delete_registered_model("m"),
            *(store.create_model_version("m", "s3://y") for store in stores[1:4]),
            stores[4].set_registered_model_alias("m", "best", 1),
            stores[5].transition_model_version_stage("m", 1, "Production", True),
            return_exceptions=True,
        )
        assert await database["registered_models"].count_documents({}) == 0
        assert await database["model_versions"].count_documents({}) == 0


async def test_a_deleted_version_leaves_no_alias_and_no_stage(
    stores: list[MongoDBModelRegistryStore],
) -> None:
    database = raw(stores[0].database)
    for number in range(1, 16):
        if number == 1:
            await stores[0].create_registered_model("m")
        await stores[0].create_model_version("m", "s3://x")
        results = await asyncio.gather(
            stores[0].delete_model_version("m", number),
            *(store.set_registered_model_alias("m", "best", number) for store in stores[1:4]),
            *(store.transition_model_version_stage("m", number, "Staging", False) for store in stores[4:6]),
            return_exceptions=True,
        )
        assert results[0] is None
        model = await database["registered_models"].find_one({"name": "m"})
        assert model is not None
        assert (model["aliases"], model["stages"]) == ({}, {})
    assert (await stores[0].get_registered_model("m")).latest_versions == []


async def test_racing_aliases_and_tags_all_arrive(stores: list[MongoDBModelRegistryStore]) -> None:
    await stores[0].create_registered_model("m")
    await stores[0].create_model_version("m", "s3://x")
    await stores[0].create_model_version("m", "s3://y")
    await asyncio.gather(
        *(
            stores[number % CLIENTS].set_registered_model_alias("m", f"a{number}", 1 + number % 2)
            for number in range(WRITERS)
        ),
        *(
            stores[number % CLIENTS].set_model_version_tag("m", 1, ModelVersionTag(f"t{number}", "x"))
            for number in range(WRITERS)
        ),
        stores[1].transition_model_version_stage("m", 1, "Production", True),
    )
    model = await stores[0].get_registered_model("m")
    assert model.aliases == {f"a{number}": 1 + number % 2 for number in range(WRITERS)}
    assert len((await stores[0].get_model_version("m", 1)).tags) == WRITERS
    for number in range(WRITERS):
        found = await stores[0].get_model_version_by_alias("m", f"a{number}")
        assert found.version == 1 + number % 2
