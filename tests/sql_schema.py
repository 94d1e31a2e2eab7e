"""The empty database of MLflow's SQL stores on SQLite: made once a process, for seconds, and then copied."""

import functools
import tempfile
from pathlib import Path

import sqlalchemy
from mlflow.store.db.utils import _initialize_tables


def make_schema(path: Path) -> None:
    """Write a database that has all tables, and nothing in them that a store puts there."""
    path.write_bytes(_schema())


@functools.cache
def _schema() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "schema.db"
        engine = sqlalchemy.create_engine(f"sqlite:///{path}")
        _initialize_tables(engine)
        engine.dispose()
        return path.read_bytes()
