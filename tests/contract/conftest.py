"""The pair of stores under comparison: genesis_flow and MLflow's SQL store on SQLite."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pymongo
import pytest
import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.time import get_current_time_millis
from pymongo.database import Database

from genesis_flow.sync.tracking import MongoDBStore
from tests.contract.pair import Pair
from tests.contract.scenes import Clock
from tests.emptied import empty
from tests.mongod import Mongod, unique
from tests.sql_schema import make_schema

# Both stores: artifact locations are then the same text.
ARTIFACT_ROOT = "s3://bucket/base"


@contextmanager
def _oracle(folder: Path) -> Iterator[SqlAlchemyStore]:
    make_schema(folder / "oracle.db")
    uri = f"sqlite:///{folder}/oracle.db"
    engine = SqlAlchemyStore._get_or_create_engine(uri)
    sqlalchemy.event.listen(engine, "connect", _trade_durability_for_speed)
    try:
        yield SqlAlchemyStore(uri, ARTIFACT_ROOT)
    finally:
        SqlAlchemyStore._engine_map.pop(uri).dispose()


def _trade_durability_for_speed(connection: Any, _record: Any = None) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@pytest.fixture(scope="session")
def session_oracle(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SqlAlchemyStore, sqlite3.Connection]]:
    """One for the session, and what it was at first."""
    with _oracle(tmp_path_factory.mktemp("oracle")) as store, closing(sqlite3.connect(":memory:")) as first:
        with closing(_connected(store)) as now:
            now.backup(first)
        yield store, first


@pytest.fixture
def oracle(session_oracle: tuple[SqlAlchemyStore, sqlite3.Connection]) -> SqlAlchemyStore:
    """MLflow's own store, empty but for the default experiment."""
    store, first = session_oracle
    with closing(_connected(store)) as now:
        _trade_durability_for_speed(now)
        first.backup(now)
        # The default experiment is made now, as in the store that it is compared with.
        made = get_current_time_millis()
        now.execute("UPDATE experiments SET creation_time = ?, last_update_time = ?", (made, made))
        now.commit()
    return store


def _connected(store: SqlAlchemyStore) -> sqlite3.Connection:
    return sqlite3.connect(store.db_uri.removeprefix("sqlite:///"))


@pytest.fixture(scope="session")
def contract_database(mongod: Mongod) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client["contract"]
        client.drop_database("contract")


@pytest.fixture
def pair(mongod: Mongod, contract_database: Database[dict[str, Any]], oracle: SqlAlchemyStore) -> Pair:
    """Both stores, empty but for the default experiment."""
    empty(contract_database)
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
