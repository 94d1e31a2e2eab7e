"""Evaluation datasets: idempotent upserts, races, faults, large records, round trips, index plans."""

import asyncio
import json
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
)
from tests.areas.explain import profiled
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod


@pytest.fixture
async def dataset_id(store: MongoDBStore) -> str:
    return str((await store.create_dataset("data", None, ["0"])).dataset_id)


def records(count: int, **given: Any) -> list[dict[str, Any]]:
    return [{"inputs": {"n": number}, **given} for number in range(count)]


async def loaded(store: MongoDBStore, dataset_id: str) -> list[Any]:
    return (await store._load_dataset_records(dataset_id))[0]


async def profile(store: MongoDBStore, dataset_id: str) -> Any:
    return json.loads((await store.get_dataset(dataset_id)).profile or "null")


async def test_round_trips(store: MongoDBStore, dataset_id: str, commands: CommandRecorder) -> None:
    async def sent(call: Any) -> list[str]:
        with commands.recording() as recorded:
            await call
        return [name for name, _ in recorded]

    upsert = store.upsert_dataset_records(dataset_id, records(500))
    assert await sent(upsert) == ["find", "update", "aggregate", "update"]
    assert await sent(store._load_dataset_records(dataset_id, 100)) == ["find"]
    assert await sent(store.get_dataset(dataset_id)) == ["find"]
    assert await sent(store.search_datasets()) == ["find"]
    assert await sent(store.search_datasets(["0"])) == ["find", "find"]
    assert await sent(store.set_dataset_tags(dataset_id, {"a": 1})) == ["update"]


async def test_upserts_at_once_leave_each_record_once(store: MongoDBStore, dataset_id: str) -> None:
    calls = [
        store.upsert_dataset_records(dataset_id, records(30, expectations={f"by {writer}": writer}))
        for writer in range(8)
    ]
    counts = await asyncio.gather(*calls)
    assert sum(count["inserted"] for count in counts) == 30
    assert sum(count["updated"] for count in counts) == 7 * 30
    found = await loaded(store, dataset_id)
    assert [len(record.expectations) for record in found] == [8] * 30
    assert await profile(store, dataset_id) == {"num_records": 30}
    schema = json.loads((await store.get_dataset(dataset_id)).schema or "")
    assert set(schema["expectations"]) == {f"by {writer}" for writer in range(8)}


async def test_a_dataset_deleted_during_upserts_leaves_no_records(store: MongoDBStore) -> None:
    for _ in range(10):
        dataset_id = (await store.create_dataset("short lived", None, ["0"])).dataset_id
        outcomes = await asyncio.gather(
            store.upsert_dataset_records(dataset_id, records(20)),
            store.delete_dataset(dataset_id),
            store.upsert_dataset_records(dataset_id, records(40)),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert not isinstance(outcome, Exception) or isinstance(outcome, MlflowException)
        assert await store.database.collection(DatasetRecordFields).count_documents({}) == 0
        assert await store.database.collection(EntityAssociationFields).count_documents({}) == 0


@pytest.mark.parametrize(
    "fault",
    [{"closeConnection": True}, {"errorCode": 16500}, {"errorCode": 11602}],
    ids=["closed", "throttled", "interrupted"],
)
async def test_passing_faults_are_ridden_out(
    store: MongoDBStore, mongod: Mongod, fault: dict[str, Any]
) -> None:
    with failing(mongod.uri, "insert", "update", times=3, **fault):
        dataset_id = (await store.create_dataset("during a fault", None, ["0"])).dataset_id
    for _ in range(3):
        with failing(mongod.uri, "update", "aggregate", "find", times=3, **fault):
            await store.upsert_dataset_records(dataset_id, records(10, tags={"t": "v"}))
    assert len(await loaded(store, dataset_id)) == 10
    assert await profile(store, dataset_id) == {"num_records": 10}
    assert len(await store.search_datasets(["0"])) == 1
    assert await store.database.collection(EvaluationDatasetFields).count_documents({}) == 1


async def test_large_records(store: MongoDBStore, dataset_id: str) -> None:
    large = {"inputs": {"n": 1}, "outputs": "x" * 5 * 2**20}
    assert (await store.upsert_dataset_records(dataset_id, [large] * 12))["updated"] == 11
    many = [{"inputs": {"n": number, "text": "x" * 2**20}} for number in range(60)]
    await store.upsert_dataset_records(dataset_id, many)
    page, token = await store._load_dataset_records(dataset_id, 10)
    assert (len(page), bool(token)) == (10, True)
    assert await profile(store, dataset_id) == {"num_records": 61}
    document = await store.database.collection(EvaluationDatasetFields).find_one({"_id": dataset_id})
    assert len(repr(document)) < 2_000


async def test_experiments_deleted_for_good_are_forgotten(store: MongoDBStore, dataset_id: str) -> None:
    experiment_id = await store.create_experiment("gone")
    await store.add_dataset_to_experiments(dataset_id, [experiment_id])
    await store.delete_experiment(experiment_id)
    assert set(await store.get_dataset_experiment_ids(dataset_id)) == {"0", experiment_id}
    await store._hard_delete_experiment(experiment_id)
    assert await store.get_dataset_experiment_ids(dataset_id) == ["0"]


async def test_pages_and_lookups_use_indexes(store: MongoDBStore, dataset_id: str) -> None:
    for number in range(120):
        await store.create_dataset(f"name {number}", {"kind": str(number)}, ["0"] if number % 2 else None)
    await store.upsert_dataset_records(dataset_id, records(1000))
    async with profiled(store.database) as queries:
        await store._load_dataset_records(dataset_id, 50)
        await store.search_datasets(max_results=20)
        await store.search_datasets(max_results=20, order_by=["name"])
        await store.search_datasets(filter_string="tags.kind = '5'")
        await store.search_entities_by_destination("0", "experiment", "evaluation_dataset", 10)
        await store.search_entities_by_source(dataset_id, "evaluation_dataset", "experiment")
    assert len(queries) == 6
    assert not [query for query in queries if query.scans_collection]
    assert all(query.documents <= 60 for query in queries)
    assert not [query for query in queries[:3] if query.blocking_sort]
