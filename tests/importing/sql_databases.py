"""The SQL fixtures as databases, and MLflow's own stores over upgraded copies of them."""

import gzip
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from mlflow.store.db.utils import _upgrade_db
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

FOLDER = Path(__file__).parent / "fixtures" / "sql"
VERSIONS = ("2.0.1", "2.22.0", "3.1.4", "3.6.0", "3.17.2")
ARTIFACT_ROOT = "s3://bucket/root"


def unpacked(version: str, folder: Path, name: str = "mlflow.db") -> Path:
    """A database as that version of MLflow left it."""
    path = folder / name
    script = gzip.decompress((FOLDER / f"mlflow-{version}.sql.gz").read_bytes()).decode()
    with connected(path) as connection:
        connection.executescript(script)
    return path


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


@contextmanager
def oracle(path: Path) -> Iterator[tuple[SqlAlchemyStore, SqlRegistry]]:
    """The stores of the installed MLflow over a database that is brought to its schema."""
    uri = f"sqlite:///{path}"
    engine = sqlalchemy.create_engine(uri)
    _upgrade_db(engine)
    engine.dispose()
    try:
        yield SqlAlchemyStore(uri, ARTIFACT_ROOT), SqlRegistry(uri)
    finally:
        SqlAlchemyStore._engine_map.pop(uri).dispose()
