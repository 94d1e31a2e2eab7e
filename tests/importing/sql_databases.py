"""The SQL fixtures as databases, and MLflow's own stores over upgraded copies of them."""

import functools
import gzip
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow.store.db.utils import _upgrade_db
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.importers.records import Filters, Item, Problem, Record, Series, Source
from genesis_flow.importers.sql import open_sql

FOLDER = Path(__file__).parent / "fixtures" / "sql"
VERSIONS = ("2.0.1", "2.22.0", "3.1.4", "3.6.0", "3.17.2")
ALL = Filters()
ARTIFACT_ROOT = "s3://bucket/base"


def unpacked(version: str, folder: Path, name: str = "mlflow.db") -> Path:
    """A database as that version of MLflow left it."""
    path = folder / name
    path.write_bytes(_content(version))
    return path


@functools.cache
def _content(version: str) -> bytes:
    """The file, which is made once a process and then copied."""
    script = gzip.decompress((FOLDER / f"mlflow-{version}.sql.gz").read_bytes()).decode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        with connected(path) as connection:
            connection.executescript(script)
        return path.read_bytes()


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


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    source = open_sql(f"sqlite:///{path}")
    try:
        yield source
    finally:
        source.close()


def everything(source: Source, filters: Filters = ALL) -> list[Item]:
    """All that a source yields."""
    items: list[Item] = []
    for unit in source.units(filters):
        items += [unit] if isinstance(unit, Problem) else source.read(unit)
    return items


def counted(items: list[Item]) -> Counter[str]:
    """How many there are of each kind, and how many points."""
    counts = Counter(item.kind for item in items if isinstance(item, Record))
    counts["point"] = sum(len(item) for item in items if isinstance(item, Series))
    return counts


def problems_of(items: list[Item]) -> list[Problem]:
    return [item for item in items if isinstance(item, Problem)]


def body(items: list[Item], kind: str, identifier: str) -> dict[str, Any]:
    (found,) = (
        item.body
        for item in items
        if isinstance(item, Record) and item.kind == kind and item.id == identifier
    )
    return found
