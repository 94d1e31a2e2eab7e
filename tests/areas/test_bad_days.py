"""What a user sees when the database is away, refuses, or is not what it should be."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from pymongo.errors import OperationFailure

from genesis_flow.aio import MongoDBStore
from genesis_flow.mongo.connection import Database
from tests.faults import failing
from tests.mongod import Mongod, free_port, guarded_mongod
from tests.patience import PATIENCE_SECONDS, answered

CANARY = "s3cr3t-c4n4ry"


async def failure(store: MongoDBStore) -> MlflowException:
    with pytest.raises(MlflowException) as caught:
        await store.get_experiment("0")
    await store.close()
    return caught.value


async def test_unreachable_server_is_named_without_password_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT", "500")
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "600")  # what is said late is said when the test has failed
    port = free_port()
    error = await failure(MongoDBStore(f"mongodb://user:{CANARY}@127.0.0.1:{port}/db"))
    assert error.error_code == "TEMPORARILY_UNAVAILABLE"
    assert f"127.0.0.1:{port}" in str(error)
    assert CANARY not in str(error)
    assert CANARY not in repr(error.__cause__)


async def test_a_context_fails_as_a_call_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT", "500")
    with pytest.raises(MlflowException) as caught:
        async with MongoDBStore(f"mongodb://127.0.0.1:{free_port()}/db"):
            raise AssertionError("there is no server")
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


async def test_a_context_outlives_a_connection_that_is_lost_while_it_opens(
    mongod: Mongod, database_name: str
) -> None:
    name = "opening"
    uri = f"{mongod.database_uri(database_name)}&appName={name}"
    async with MongoDBStore(uri) as first:
        await first.get_experiment("0")
    with failing(mongod.uri, "find", times=2, app=name, closeConnection=True):
        async with MongoDBStore(uri) as store:
            assert (await store.get_experiment("0")).experiment_id == "0"


@pytest.mark.parametrize("code", [175, 11602])
async def test_a_query_that_the_server_ended_is_asked_again(
    mongod: Mongod, store: MongoDBStore, code: int
) -> None:
    """MongoDB 9 ends queries over an index that turns multikey under them, which the first list does."""
    await store.get_experiment("0")
    with failing(mongod.uri, "find", times=2, errorCode=code):
        assert (await store.get_experiment("0")).experiment_id == "0"


async def test_a_write_waits_while_a_server_has_too_many_transactions(
    mongod: Mongod, store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of MongoDB 9. Its code has no number that a fail point of an older server could send."""
    run = await store.create_run("0", "me", 1, [], None)
    refusals = 2

    async def refuse(self: object, write: object) -> object:
        nonlocal refusals
        if refusals == 0:
            return await atomically(self, write)
        refusals -= 1
        details = {"codeName": "TooManyOpenTransactions", "errmsg": "there are 10000 open transactions"}
        raise OperationFailure(details["errmsg"], 999, details)

    atomically: Any = Database.atomically
    monkeypatch.setattr(Database, "atomically", refuse)
    await store.log_batch(run.info.run_id, [Metric("loss", 1.0, 1, 1)], [Param("a", "1")], [])
    assert refusals == 0
    assert (await store.get_run(run.info.run_id)).data.params == {"a": "1"}


async def test_database_name_is_required(mongod: Mongod) -> None:
    with pytest.raises(MlflowException, match="database") as caught:
        MongoDBStore(mongod.uri)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """A server that asks for passwords, with a reader and a writer of the database "db"."""
    with guarded_mongod("admin", CANARY) as server:
        with pymongo.MongoClient(server.uri, username="admin", password=CANARY) as admin:
            for role in ("read", "readWrite"):
                roles = [{"role": role, "db": "db"}]
                admin["db"].command("createUser", role, pwd=CANARY, roles=roles)
        yield server


def as_user(server: Mongod, user: str, password: str = CANARY) -> MongoDBStore:
    return MongoDBStore(f"mongodb://{user}:{password}@127.0.0.1:{server.port}/db")


async def test_wrong_password(guarded: Mongod) -> None:
    error = await failure(as_user(guarded, "readWrite", CANARY + "x"))
    assert error.error_code == "UNAUTHENTICATED"
    assert CANARY not in str(error)


async def test_reader_reads_and_is_refused_writes(guarded: Mongod) -> None:
    writer = as_user(guarded, "readWrite")
    run = await writer.create_run("0", "me", 1, [], "a run")
    await writer.close()
    reader = as_user(guarded, "read")
    found = await reader.search_experiments()
    assert [experiment.name for experiment in found] == ["Default"]
    assert (await reader.get_run(run.info.run_id)).info.run_name == "a run"
    for write in (
        reader.create_experiment("mine"),
        reader.log_metric(run.info.run_id, Metric("m", 1, 1, 1)),
        reader.log_param(run.info.run_id, Param("p", "1")),
    ):
        with pytest.raises(MlflowException) as refused:
            await write
        assert refused.value.error_code == "PERMISSION_DENIED"
        assert refused.value.__cause__ is not None
        assert "readWrite" in str(refused.value)
    await reader.close()


async def test_foreign_collections_are_left_alone(mongod: Mongod, store_uri: str, database_name: str) -> None:
    with pymongo.MongoClient(mongod.uri) as client:
        client[database_name]["runs"].insert_one({"of": "another application"})
    error = await failure(MongoDBStore(store_uri))
    assert error.error_code == "INVALID_STATE"
    assert "prefix" in str(error)
    with pymongo.MongoClient(mongod.uri) as client:
        assert client[database_name].list_collection_names() == ["runs"]


async def test_newer_and_older_schemas_are_refused(
    mongod: Mongod, store_uri: str, database_name: str
) -> None:
    # A client of its own: where a store of another test still has one, nobody looks at the schema again.
    uri = f"{store_uri}&appName=schemas"
    store = MongoDBStore(uri)
    await store.get_experiment("0")
    await store.close()
    with pymongo.MongoClient(mongod.uri) as client:
        ledger = client[database_name]["schema_migrations"]
        ledger.insert_one({"_id": "99990101000000", "state": "applied"})
        assert "newer" in str(await failure(MongoDBStore(uri)))
        ledger.delete_many({})
        ledger.insert_one({"_id": "20000101000000", "state": "applied"})
        ledger.insert_one({"_id": "20261121000000", "state": "applied"})
        assert (await failure(MongoDBStore(uri))).error_code == "INVALID_STATE"
        ledger.delete_many({})
        assert "genesis-migrate up" in str(await failure(MongoDBStore(uri)))


async def test_values_that_cannot_be_stored_are_refused(store: MongoDBStore) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    for write in (
        store.log_metric(run_id, Metric("m", 1, 2**63, 1)),
        store.log_metric(run_id, Metric("m", 1, 1, 2**63)),
        store.log_metric(run_id, Metric("m", 10**400, 1, 1)),
        store.log_param(run_id, Param("p", "\ud800")),
    ):
        with pytest.raises(MlflowException) as refused:
            await write
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "fault",
    [{"closeConnection": True}, {"errorCode": 16500}, {"errorCode": 10107}, {"errorCode": 11602}],
    ids=["closed", "throttled", "not-primary", "interrupted"],
)
async def test_passing_faults_are_ridden_out_exactly_once(
    store: MongoDBStore, mongod: Mongod, fault: dict[str, Any]
) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    for step in range(3):
        with failing(mongod.uri, "update", "insert", "findAndModify", times=3, **fault):
            await store.log_metric(run_id, Metric("m", step, step, step))
            await store.log_batch(run_id, [Metric("m", 9, 100 + step, 9), Metric("n", 1, step, 1)], [], [])
    assert len(await store.get_metric_history(run_id, "m")) == 6
    with failing(mongod.uri, "insert", times=3, **fault):
        experiment_id = await store.create_experiment("during a fault")
    assert (await store.get_experiment(experiment_id)).name == "during a fault"


async def test_an_outage_past_the_deadline_is_one_clear_error(
    store_uri: str, mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "2")
    store = MongoDBStore(store_uri)
    run_id = (await answered(lambda: store.create_run("0", "me", 1, [], None))).info.run_id
    await answered(lambda: store.log_metric(run_id, Metric("m", 0, 0, 0)))
    with failing(mongod.uri, "update", closeConnection=True), pytest.raises(MlflowException) as caught:
        await asyncio.wait_for(store.log_metric(run_id, Metric("m", 1, 1, 1)), PATIENCE_SECONDS)
    assert caught.value.error_code in ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED")
    await store.close()
