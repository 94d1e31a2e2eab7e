"""The pair of stores under comparison: genesis_flow and MLflow's SQL store on SQLite."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
import sqlalchemy
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from pymongo.database import Database

from genesis_flow.migrate.initialise import LEDGER
from genesis_flow.sync.tracking import MongoDBStore
from tests.contract.pair import Pair
from tests.mongod import Mongod

MakePair = Callable[[str, Path], Pair]

# Both stores: artifact locations are then the same text.
ARTIFACT_ROOT = "s3://bucket/root"


@pytest.fixture(scope="session")
def oracle_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with MLflow's schema, which takes seconds to make, and nothing else."""
    file = tmp_path_factory.mktemp("oracle") / "template.db"
    with _oracle(file) as oracle, oracle.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM experiments"))
    return file


@contextmanager
def _oracle(file: Path) -> Iterator[SqlAlchemyStore]:
    uri = f"sqlite:///{file}"
    engine = SqlAlchemyStore._get_or_create_engine(uri)
    sqlalchemy.event.listen(engine, "connect", _trade_durability_for_speed)
    try:
        yield SqlAlchemyStore(uri, ARTIFACT_ROOT)
    finally:
        SqlAlchemyStore._engine_map.pop(uri).dispose()


def _trade_durability_for_speed(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


@contextmanager
def _pair(uri: str, template: Path, folder: Path) -> Iterator[Pair]:
    file = folder / "oracle.db"
    shutil.copyfile(template, file)
    with _oracle(file) as oracle:
        yield Pair(MongoDBStore(uri, ARTIFACT_ROOT), oracle)


@pytest.fixture(scope="session")
def contract_database(mongod: Mongod) -> Iterator[Database[dict[str, Any]]]:
    """One database for all tests that want a fresh one: emptying it is faster than making it."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client["contract"]
        client.drop_database("contract")


@pytest.fixture
def pair(
    contract_database: Database[dict[str, Any]], mongod: Mongod, oracle_template: Path, tmp_path: Path
) -> Iterator[Pair]:
    """Both stores, empty but for the default experiment."""
    _empty(contract_database)
    with _pair(mongod.database_uri(contract_database.name), oracle_template, tmp_path) as both:
        yield both


@pytest.fixture(scope="module")
def module_pair(
    mongod: Mongod, oracle_template: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    """Both stores for all tests of a module, for what is filled once and then only read."""
    name = "contract_" + request.module.__name__.rpartition(".")[2]
    with _pair(mongod.database_uri(name), oracle_template, tmp_path_factory.mktemp(name)) as both:
        yield both
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def _empty(database: Database[dict[str, Any]]) -> None:
    for collection in database.list_collections(filter={"type": "collection"}):
        if collection["name"] != LEDGER and not collection["name"].startswith("system."):
            database[collection["name"]].delete_many({})
