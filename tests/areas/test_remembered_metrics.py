"""First points of runs that their store made, and that others may have written or deleted since."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics.documents import BLOCK_FROM, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.remembered import KnownMetrics
from genesis_flow.areas.runs.documents import RunFields
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod

NEW = ["findAndModify", "insert", "commitTransaction"]


@pytest.fixture(params=["mongod", "standalone"])
async def stores(
    request: pytest.FixtureRequest, database_name: str
) -> AsyncIterator[tuple[MongoDBStore, MongoDBStore]]:
    """Two that know nothing of each other, with transactions and without."""
    server: Mongod = request.getfixturevalue(request.param)
    uri = server.database_uri(database_name)
    made = MongoDBStore(uri, "s3://bucket"), MongoDBStore(uri, "s3://bucket")
    yield made
    await made[0].database.client.drop_database(database_name)
    for store in made:
        await store.close()


async def new_run(store: MongoDBStore) -> str:
    return str((await store.create_run("0", "me", 1, [], "a run")).info.run_id)


async def values(store: MongoDBStore, run_id: str, key: str) -> list[float]:
    return [point.value for point in await store.get_metric_history(run_id, key)]


async def test_nothing_is_read_of_metrics_that_cannot_be_there(
    store: MongoDBStore, commands: CommandRecorder
) -> None:
    run_id = await new_run(store)
    calls: list[tuple[Awaitable[None], list[str]]] = [
        (store.log_metric(run_id, Metric("a", 1, 1, 1)), NEW),
        (store.log_metric(run_id, Metric("a", 2, 2, 2)), ["update"]),
        (store.log_metric(run_id, Metric("b", 1, 1, 1)), NEW),
        (store.log_batch(run_id, [Metric("c", 1, 1, 1)], [Param("p", "1")], [RunTag("t", "1")]), NEW),
        (
            store.log_batch(run_id, [Metric("c", 2, 2, 2), Metric("d", 1, 1, 1)], [], []),
            ["find", "findAndModify", "insert", "update", "commitTransaction"],
        ),
        (store.log_metric(run_id, Metric("d", 2, 2, 2)), ["update"]),
    ]
    for call, expected in calls:
        with commands.recording() as sent:
            await call
        assert [name for name, _ in sent] == expected
    assert (await store.get_run(run_id)).data.metrics == {"a": 2, "b": 1, "c": 2, "d": 2}
    run = await store.database.collection(RunFields).find_one({"_id": run_id})
    assert run is not None
    assert run["metric_keys"] == 4


async def test_the_first_points_of_a_run_of_another_store_are_looked_for(
    stores: tuple[MongoDBStore, MongoDBStore], commands: CommandRecorder
) -> None:
    store, other = stores
    run_id = await new_run(other)
    await store.get_run(run_id)
    with commands.recording() as sent:
        await store.log_batch(run_id, [Metric("a", 1, 1, 1)], [], [])
    assert [name for name, _ in sent][:3] == ["find", *NEW[:2]]


async def test_points_that_another_store_was_first_with(stores: tuple[MongoDBStore, MongoDBStore]) -> None:
    store, other = stores
    run_id = await new_run(store)
    many = [Metric("many", -step, step, step) for step in range(BLOCK_FROM)]
    await other.log_batch(run_id, [Metric("a", 1, 1, 1), Metric("b", 1, 1, 1), *many], [], [])
    await store.log_metric(run_id, Metric("a", 2, 2, 2))
    later = [Metric("many", step, step, step) for step in range(BLOCK_FROM, 2 * BLOCK_FROM)]
    await store.log_batch(
        run_id, [Metric("b", 2, 2, 2), Metric("new", 1, 1, 1), *later], [Param("p", "1")], []
    )
    assert await values(store, run_id, "a") == await values(store, run_id, "b") == [1, 2]
    assert await values(store, run_id, "many") == [-step for step in range(BLOCK_FROM)] + [
        *range(BLOCK_FROM, 2 * BLOCK_FROM)
    ]
    data = (await store.get_run(run_id)).data
    assert (data.metrics, data.params) == ({"a": 2, "b": 2, "new": 1, "many": 2 * BLOCK_FROM - 1}, {"p": "1"})


async def _delete(store: MongoDBStore, run_id: str) -> None:
    await store.delete_run(run_id)


async def _erase(store: MongoDBStore, run_id: str) -> None:
    await store.delete_run(run_id)
    await store._hard_delete_run(run_id)


@pytest.mark.parametrize(
    ("change", "error"), [(_delete, "INVALID_PARAMETER_VALUE"), (_erase, "RESOURCE_DOES_NOT_EXIST")]
)
async def test_a_run_that_another_store_deleted(
    stores: tuple[MongoDBStore, MongoDBStore],
    change: Callable[[MongoDBStore, str], Awaitable[None]],
    error: str,
) -> None:
    store, other = stores
    run_id = await new_run(store)
    await change(other, run_id)
    many = [Metric("many", step, step, step) for step in range(BLOCK_FROM)]
    for call in (
        store.log_metric(run_id, Metric("a", 1, 1, 1)),
        store.log_batch(run_id, [Metric("a", 1, 1, 1), *many], [Param("p", "1")], []),
    ):
        with pytest.raises(MlflowException) as caught:
            await call
        assert caught.value.error_code == error
    for declared in (MetricHeadFields, MetricBlockFields):
        assert await store.database.collection(declared).find_one({}) is None


async def test_both_stores_are_first(stores: tuple[MongoDBStore, MongoDBStore]) -> None:
    """Both made the run, as far as they know, and log its first points at the same moment."""
    for attempt in range(15):
        run_id = await new_run(stores[attempt % 2])
        for store in stores:
            store._known_metrics.begin(run_id)
        await asyncio.gather(
            *(
                store.log_batch(run_id, [Metric("a", n, n, n), Metric(f"b{n % 3}", n, n, n)], [], [])
                for n, store in enumerate(stores * 4)
            ),
            *(store.log_metric(run_id, Metric("c", n, n, n)) for n, store in enumerate(stores * 4)),
        )
        assert await values(stores[0], run_id, "a") == [*range(8)]
        assert await values(stores[1], run_id, "c") == [*range(8)]
        found = [await values(stores[0], run_id, f"b{number}") for number in range(3)]
        assert found == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("lost", ["insert", "commitTransaction"])
@pytest.mark.parametrize("times", [1, 3])
async def test_answers_that_are_lost_lose_and_double_nothing(
    mongod: Mongod, store_uri: str, lost: str, times: int
) -> None:
    name = f"first-{lost}-{times}"
    store = MongoDBStore(f"{store_uri}&appName={name}", "s3://bucket")
    run_id = await new_run(store)
    with failing(mongod.uri, lost, times=times, app=name, closeConnection=True):
        await store.log_batch(run_id, [Metric("a", 1, 1, 1), Metric("b", 2, 2, 2)], [Param("p", "1")], [])
    assert [await values(store, run_id, key) for key in "ab"] == [[1], [2]]
    run = await store.database.collection(RunFields).find_one({"_id": run_id})
    assert run is not None
    assert (run["metric_keys"], run["params"]) == (2, {"p": "1"})
    await store.close()


@pytest.mark.parametrize("refused", ["findAndModify", "insert", "commitTransaction"])
async def test_a_transaction_that_the_server_refuses_is_made_again_and_not_recorded(
    mongod: Mongod, store_uri: str, commands: CommandRecorder, refused: str
) -> None:
    """As it does on a busy machine now and then: the other tests here count what was done."""
    name = f"refused-{refused}"
    store = MongoDBStore(f"{store_uri}&appName={name}", "s3://bucket")
    run_id = await new_run(store)
    write_conflict = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
    with failing(mongod.uri, refused, times=2, app=name, **write_conflict), commands.recording() as sent:
        await store.log_metric(run_id, Metric("a", 1, 1, 1))
    assert [name for name, _ in sent] == NEW
    assert await values(store, run_id, "a") == [1]
    await store.close()


def test_what_is_remembered_is_limited() -> None:
    known = KnownMetrics(size=10)
    known.begin("own")
    known.add("own", ["a"])
    assert (known.has_none("own", ["b"]), known.has_none("own", ["a", "b"])) == (True, False)
    assert (known.has_all("own", ["a"]), known.has_all("own", ["a", "b"])) == (True, False)
    known.add("other", ["a", "b"])
    assert not known.has_none("other", ["c"]), "it may have metrics that others wrote"
    assert known.has_all("other", ["b"])
    assert len(known) == 5
    known.add("own", ["c"])
    for number in range(5):
        known.begin(str(number))
    assert len(known) == 8
    assert not known.has_all("other", ["a"]), "the one that was written longest ago goes first"
    assert known.has_all("own", ["a", "c"])
    known.add("wide", [str(number) for number in range(20)])
    assert known.has_all("wide", ["19"])
    assert (len(known), known.has_none("own", ["b"])) == (21, False)
