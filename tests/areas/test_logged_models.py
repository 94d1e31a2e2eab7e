"""Logged models: round trips, exactly once under faults and races, nothing left behind, index plans."""

import asyncio
from typing import Any

import pymongo
import pytest
from mlflow.entities import (
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
    Param,
)
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.logged_models import plans as logged_model_plans
from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from tests.areas.explain import profiled
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod


@pytest.fixture
async def run_id(store: MongoDBStore) -> str:
    return str((await store.create_run("0", "me", 1000, [], "a run")).info.run_id)


@pytest.fixture
async def model_id(store: MongoDBStore) -> str:
    return str((await store.create_logged_model("0", "model")).model_id)


async def test_round_trips(
    store: MongoDBStore, run_id: str, model_id: str, commands: CommandRecorder
) -> None:
    async def sent(call: Any) -> list[str]:
        with commands.recording() as recorded:
            await call
        return [name for name, _ in recorded]

    assert await sent(store.create_logged_model("0", "m")) == ["find", "insert"]
    assert await sent(store.get_logged_model(model_id)) == ["find", "find"]
    assert await sent(store.set_logged_model_tags(model_id, [LoggedModelTag("a", "b")])) == ["update"]
    assert await sent(store.log_logged_model_params(model_id, [LoggedModelParameter("a", "b")])) == ["update"]
    assert await sent(store.delete_logged_model_tag(model_id, "a")) == ["update"]
    assert await sent(store.search_logged_models(["0"])) == ["find"] * 3
    await store.log_metric(run_id, Metric("m", 1.0, 1, 0))
    assert await sent(store.log_metric(run_id, Metric("m", 1.0, 2, 0))) == ["update"]
    of_model = Metric("m", 1.0, 3, 0, model_id)
    assert await sent(store.log_metric(run_id, of_model)) == ["find", "update", "insert"]


@pytest.mark.parametrize(
    "fault",
    [{"closeConnection": True}, {"errorCode": 16500}, {"errorCode": 11602}],
    ids=["closed", "throttled", "interrupted"],
)
async def test_passing_faults_are_ridden_out_exactly_once(
    store: MongoDBStore, run_id: str, model_id: str, mongod: Mongod, fault: dict[str, Any]
) -> None:
    for step in range(3):
        points = [Metric(key, step, step, step, model_id, "data", "1") for key in ("a", "b")]
        with failing(mongod.uri, "update", "insert", "find", times=3, **fault):
            await store.log_batch(run_id, points, [Param("p", "v")], [])
            await store.log_metric(run_id, points[0])
    with failing(mongod.uri, "update", "insert", times=3, **fault):
        await store.log_logged_model_params(model_id, [LoggedModelParameter("p", "v")])
        made = await store.create_logged_model("0", "made during a fault")
    assert len((await store.get_logged_model(model_id)).metrics or []) == 6
    assert len(await store.search_logged_models(["0"], "name = 'made during a fault'")) == 1
    assert (await store.get_logged_model(made.model_id)).status == LoggedModelStatus.PENDING


async def test_a_call_that_died_half_way_can_be_repeated(
    store: MongoDBStore, run_id: str, model_id: str
) -> None:
    metric = Metric("m", 1.0, 1, 0, model_id)
    await store.log_metric(run_id, metric)
    # The state after a crash between the run's point and the model's.
    await store.database.collection(ModelMetricFields).delete_many({})
    await store.log_metric(run_id, metric)
    assert [m.value for m in (await store.get_logged_model(model_id)).metrics or []] == [1.0]
    assert len(await store.get_metric_history(run_id, "m")) == 1


async def test_races_for_points_and_params(store: MongoDBStore, run_id: str, model_id: str) -> None:
    points = [Metric("m", float(step), step, step, model_id) for step in range(20)]
    await asyncio.gather(*(store.log_batch(run_id, points, [], []) for _ in range(8)))
    assert len((await store.get_logged_model(model_id)).metrics or []) == 20
    outcomes = await asyncio.gather(
        *(
            store.log_logged_model_params(model_id, [LoggedModelParameter("p", str(writer))])
            for writer in range(8)
        ),
        return_exceptions=True,
    )
    assert outcomes.count(None) == 1
    refused = [each for each in outcomes if isinstance(each, MlflowException)]
    assert [each.error_code for each in refused] == ["INVALID_PARAMETER_VALUE"] * 7
    assert (await store.get_logged_model(model_id)).params == {"p": str(outcomes.index(None))}


async def test_nothing_is_left_of_what_is_deleted_for_good(store: MongoDBStore, run_id: str) -> None:
    experiment_id = await store.create_experiment("gone")
    metrics = store.database.collection(ModelMetricFields)
    models = [
        (await store.create_logged_model(experiment, "m")).model_id
        for experiment in ("0", experiment_id, "0")
    ]
    for model_id in models:
        await store.log_metric(run_id, Metric("m", 1.0, 1, 0, model_id))
    await store._hard_delete_logged_model(models[0])
    assert {point["model_id"] async for point in metrics.find()} == {*models[1:]}
    await store.delete_experiment(experiment_id)
    await store._hard_delete_experiment(experiment_id)
    assert {point["model_id"] async for point in metrics.find()} == {models[2]}
    assert await store.database.collection(LoggedModelFields).count_documents({}) == 1
    await store.delete_run(run_id)
    await store._hard_delete_run(run_id)
    assert await metrics.count_documents({}) == 0
    assert (await store.get_logged_model(models[2])).metrics is None


async def test_a_model_with_many_metrics_stays_small(store: MongoDBStore, run_id: str, model_id: str) -> None:
    for part in range(5):
        points = [
            Metric("loss", part + step / 1000, step, part * 1000 + step, model_id) for step in range(1000)
        ]
        await store.log_batch(run_id, points, [], [])
    assert len((await store.get_logged_model(model_id)).metrics or []) == 5000
    (document,) = await store.database.collection(LoggedModelFields).find().to_list()
    assert len(repr(document)) < 1000


MODELS = 1500


@pytest.fixture(scope="module")
async def filled(mongod: Mongod) -> Any:
    name = "test_logged_model_plans"
    store = MongoDBStore(mongod.database_uri(name))
    made = await store.create_logged_model("0", "pattern", None, None, None, None)
    models = store.database.collection(LoggedModelFields)
    pattern = await models.find_one({"_id": made.model_id})
    assert pattern is not None
    await models.delete_many({})
    await models.insert_many(
        {
            **pattern,
            "_id": f"m-{number:05}",
            "name": f"name {number % 10}",
            "creation_timestamp": number // 2,
            "params": {"seed": str(number)},
            "tags": {"kind": str(number % 300)},
        }
        for number in range(MODELS)
    )
    await store.database.collection(ModelMetricFields).insert_many(
        {
            "_id": f"run|{number:05}-{key}",
            "model_id": f"m-{number:05}",
            "experiment_id": 0,
            "run_id": "run",
            "key": key,
            "value": number * 7919 % MODELS / MODELS,
            "timestamp": 1,
            "step": 1,
            "dataset_name": "data" if number % 100 else "rare",
            "dataset_digest": "1",
        }
        for number in range(MODELS)
        for key in ("acc", "loss")
    )
    yield store
    await store.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


@pytest.mark.parametrize(
    ("question", "matching", "most_models"),
    [
        # The page is found along the index and read once more as a whole.
        ({}, MODELS, 250),
        ({"filter_string": "params.seed = '42'"}, 1, 10),
        ({"filter_string": "tags.kind = '7'"}, 5, 30),
        ({"filter_string": "metrics.acc > 0.99"}, 14, 60),
        ({"filter_string": "metrics.acc > 0.99", "order_by": [{"field_name": "metrics.loss"}]}, 14, 60),
        ({"datasets": [{"dataset_name": "rare"}]}, 15, 60),
        ({"filter_string": "metrics.acc > 0.1"}, MODELS, 1300),
        ({"filter_string": "name = 'name 3'"}, MODELS // 10, MODELS + 200),
    ],
    ids=str,
)
async def test_plans_use_indexes(
    filled: MongoDBStore,
    question: dict[str, Any],
    matching: int,
    most_models: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logged_model_plans, "FEW", 100)  # 1,500 models stand for many
    async with profiled(filled.database) as queries:
        found = await filled.search_logged_models(["0"], **question)
    assert len(found) == min(matching, 100)
    assert queries
    assert not [query for query in queries if query.scans_collection]
    assert sum(query.documents for query in queries if query.collection == "logged_models") <= most_models


async def test_the_newest_page_does_not_sort(filled: MongoDBStore) -> None:
    token = None
    for _ in range(3):
        async with profiled(filled.database) as queries:
            page = await filled.search_logged_models(["0"], page_token=token)
        assert not [query for query in queries if query.blocking_sort]
        assert sum(query.keys for query in queries if query.collection == "logged_models") <= 500
        token = page.token
