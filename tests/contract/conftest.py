"""The pair of stores under comparison: genesis_flow and MLflow's SQL store on SQLite."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pymongo
import pytest
import sqlalchemy
from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from pymongo.database import Database

from genesis_flow.migrate.initialise import LEDGER
from genesis_flow.sync.tracking import MongoDBStore
from tests.contract.pair import Pair
from tests.contract.scenes import Clock
from tests.mongod import Mongod, unique

# Both stores: artifact locations are then the same text.
ARTIFACT_ROOT = "s3://bucket/base"


@contextmanager
def _oracle(folder: Path) -> Iterator[SqlAlchemyStore]:
    uri = f"sqlite:///{folder}/oracle.db"
    engine = SqlAlchemyStore._get_or_create_engine(uri)
    sqlalchemy.event.listen(engine, "connect", _trade_durability_for_speed)
    try:
        yield SqlAlchemyStore(uri, ARTIFACT_ROOT)
    finally:
        SqlAlchemyStore._engine_map.pop(uri).dispose()


def _trade_durability_for_speed(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlAlchemyStore]:
    """One for the session: making the schema takes seconds, emptying the tables milliseconds."""
    with _oracle(tmp_path_factory.mktemp("oracle")) as store:
        yield store


@pytest.fixture(scope="session")
def contract_database(mongod: Mongod) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client["contract"]
        client.drop_database("contract")


@pytest.fixture
def pair(mongod: Mongod, contract_database: Database[dict[str, Any]], oracle: SqlAlchemyStore) -> Pair:
    """Both stores, empty but for the default experiment."""
    _empty_database(contract_database)
    _empty_oracle(oracle)
    return Pair(MongoDBStore(mongod.database_uri(contract_database.name), ARTIFACT_ROOT), oracle)


# Where the stores read the time for logged models and evaluation datasets.
_CLOCKS = (
    "genesis_flow.areas.logged_models.methods",
    "genesis_flow.areas.evaluation.datasets",
    "genesis_flow.areas.evaluation.records",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.dbmodels.models",
)


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    made = Clock()
    with ExitStack() as patches:
        for module in _CLOCKS:
            patches.enter_context(mock.patch(f"{module}.get_current_time_millis", made.read))
        yield made


@pytest.fixture(scope="module")
def module_pair(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    """Both stores for all tests of a module, for what is filled once and then only read."""
    name = unique(request.module.__name__.rpartition(".")[2])
    with _oracle(tmp_path_factory.mktemp(name)) as store:
        yield Pair(MongoDBStore(mongod.database_uri(name), ARTIFACT_ROOT), store)
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def _empty_database(database: Database[dict[str, Any]]) -> None:
    for collection in database.list_collections(filter={"type": "collection"}):
        if collection["name"] != LEDGER and not collection["name"].startswith("system."):
            database[collection["name"]].delete_many({})


def _empty_oracle(store: SqlAlchemyStore) -> None:
    with store.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    store._initialize_store_state()
