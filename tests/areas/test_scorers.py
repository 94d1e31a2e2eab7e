"""Scorers: commands and plans of the calls that pages and the scheduler make, and calls that are repeated."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pymongo
import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.judges.documents import ScorerFields
from tests.areas.explain import Query, profiled, raw
from tests.faults import failing
from tests.mongod import Mongod

SCORERS = 2_000
EXPERIMENTS = 100
ONLINE = 20
TEXT = '{"third_party_scorer_data": {"model": "gateway:/e-1"}}'


@pytest.fixture(scope="module")
async def large(mongod: Mongod) -> AsyncIterator[MongoDBStore]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    store = MongoDBStore(mongod.database_uri(name))
    await store.get_experiment("0")
    for number in range(1, 4):
        await store.create_experiment(f"e{number}")
    await store.database.collection(ScorerFields).insert_many([_scorer(number) for number in range(SCORERS)])
    await raw(store.database)["gateway_endpoints"].insert_one(
        {"_id": "e-1", "name": "chat", "workspace": "default"}
    )
    yield store
    await store.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


def _scorer(number: int) -> dict[str, Any]:
    online = {"id": uuid.uuid4().hex, "sample_rate": 0.5 if number < ONLINE else 0.0}
    fields = ScorerFields(
        _id=str(uuid.uuid4()),
        workspace="default",
        experiment_id=number % EXPERIMENTS,
        name=f"s{number // EXPERIMENTS:03}",
        versions=[{"version": each, "text": TEXT, "creation_time": 1, "call": ""} for each in (1, 2, 3)],
        online=online if number % 2 == 0 else None,
    )
    return fields.model_dump(by_alias=True, exclude_none=True)


def assert_cheap(queries: list[Query], *, trips: int, documents: int) -> None:
    assert len(queries) == trips, queries
    for query in queries:
        assert not query.scans_collection, query
        assert not query.blocking_sort, query
        assert query.documents <= documents, query
        assert query.keys <= documents + 10, query


async def test_active_scorers_are_read_by_their_index(large: MongoDBStore) -> None:
    async with profiled(large.database) as queries:
        found = await large.get_active_online_scorers()
    assert len(found) == ONLINE // 2
    assert all("gateway:/chat" in scorer.serialized_scorer for scorer in found)
    assert_cheap(queries, trips=2, documents=ONLINE // 2)


async def test_lists(large: MongoDBStore) -> None:
    async with profiled(large.database) as queries:
        page = await large.list_scorers("2")
    assert [each.scorer_name for each in page] == [
        f"s{number:03}" for number in range(SCORERS // EXPERIMENTS)
    ]
    assert {each.scorer_version for each in page} == {3}
    assert_cheap(queries, trips=3, documents=SCORERS // EXPERIMENTS)
    async with profiled(large.database) as queries:
        found = await large.list_scorers_across_experiments(["3", "1", "2"])
    assert len(found) == 3 * SCORERS // EXPERIMENTS
    assert_cheap(queries, trips=2, documents=3 * SCORERS // EXPERIMENTS)


async def test_single_reads(large: MongoDBStore) -> None:
    async with profiled(large.database) as queries:
        got = await large.get_scorer("1", "s001", 2)
    assert got.scorer_version == 2
    assert_cheap(queries, trips=3, documents=1)
    async with profiled(large.database) as queries:
        await large.get_online_scoring_configs([str(got.scorer_id)])
    assert_cheap(queries, trips=1, documents=1)


async def test_registering_sends_two_commands(large: MongoDBStore) -> None:
    async with profiled(large.database) as queries:
        for number in (1, 2):
            made = await large.register_scorer("3", f"new {uuid.uuid4()}" if number == 1 else "s001", "{}")
    assert made.scorer_version == 4
    assert all(not query.scans_collection and query.documents <= 1 for query in queries)


@pytest.mark.parametrize("command", ["insert", "update"])
@pytest.mark.parametrize("when", [{"errorCode": 11600}, {"closeConnection": True}], ids=["error", "cut"])
async def test_a_version_is_registered_once(
    store: MongoDBStore, mongod: Mongod, command: str, when: dict[str, Any]
) -> None:
    """A command that fails on its way: the call is repeated, and makes one version."""
    if command == "update":
        await store.register_scorer("0", "s", "{}")
    with failing(mongod.uri, command, times=1, **when):
        made = await store.register_scorer("0", "s", '{"made": "once"}')
    versions = await store.list_scorer_versions("0", "s")
    assert [each.scorer_version for each in versions] == [*range(1, made.scorer_version + 1)]
    assert [each._serialized_scorer for each in versions].count('{"made": "once"}') == 1


async def test_bounded_races_of_versions(store: MongoDBStore, store_uri: str) -> None:
    """Who registers and who deletes at once: numbers are single, and the latest is the highest."""
    async with MongoDBStore(store_uri) as other:
        for _ in range(10):
            calls = [
                each.register_scorer("0", "s", json.dumps({"by": number}))
                for number in range(4)
                for each in (store, other)
            ]
            made = await asyncio.gather(*calls, _deleted(other, "0", "s", 2), _deleted(store, "0", "s", 1))
            left = [each.scorer_version for each in await store.list_scorer_versions("0", "s")]
            assert left == sorted(set(left))
            assert (await other.get_scorer("0", "s")).scorer_version == left[-1]
            assert max(each.scorer_version for each in made if each is not None) >= left[-1]
            await store.delete_scorer("0", "s")


async def _deleted(store: MongoDBStore, experiment: str, name: str, version: int) -> None:
    try:
        await store.delete_scorer(experiment, name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


async def test_versions_beyond_a_document_are_refused_in_words(store: MongoDBStore) -> None:
    large = json.dumps({"text": "x" * 6_000_000})
    for _ in range(2):
        await store.register_scorer("0", "s", large)
    with pytest.raises(MlflowException) as caught:
        await store.register_scorer("0", "s", large)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert [each.scorer_version for each in await store.list_scorer_versions("0", "s")] == [1, 2]
    await store.delete_scorer("0", "s", 1)
    assert (await store.register_scorer("0", "s", large)).scorer_version == 3
