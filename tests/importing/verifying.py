"""Imported fixtures, and changes of a single character or digit in them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genesis_flow.importers.engine import Options, run_import
from genesis_flow.importers.records import Filters
from genesis_flow.importers.verify.command import Verification, verify_import
from genesis_flow.importers.verify.compare import SourceReader
from genesis_flow.importers.verify.entities import Entity
from genesis_flow.importers.verify.histories import Point
from genesis_flow.migrate.config import load_config
from tests.importing.sql_databases import unpacked

SQL = Path(__file__).parent / "fixtures" / "sql"
SQL_VERSIONS = tuple(
    sorted(path.name.removeprefix("mlflow-").removesuffix(".sql.gz") for path in SQL.glob("*.gz"))
)


def unpack_sql(version: str, folder: Path) -> str:
    """The URI of a SQLite database that an MLflow version made."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{unpacked(version, folder)}"


def bring(uri: str, source: str, **options: Any) -> Any:
    return run_import(load_config(uri, environ={}), source, Options(**options))


def check(uri: str, source: str, filters: Filters | None = None) -> Verification:
    return verify_import(load_config(uri, environ={}), source, filters or Filters())


class ReadOnce:
    """A source as a comparison asks for it, from memory: one that is compared many times."""

    def __init__(self, source: SourceReader) -> None:
        self.kinds = tuple(source.kinds)
        self._entities = {kind: list(source.entities(kind)) for kind in self.kinds}
        self._points = {run.id: list(source.points(run)) for run in self._entities["run"]}
        self._latest = {run.id: source.latest(run) for run in self._entities["run"]}
        self.troubles, self.left_out, self.complete = source.troubles, source.left_out, source.complete

    def entities(self, kind: str) -> Iterator[Entity]:
        yield from self._entities[kind]

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        yield from self._points[run.id]

    def latest(self, run: Entity) -> Mapping[str, Point] | None:
        return self._latest[run.id]

    def close(self) -> None:
        """There is nothing to close."""


def changed(value: Any) -> Any:
    """The value with one character, digit or bit changed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 2 if value and value * 2 != value else 0.125
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        last = value[-1:]
        return value[:-1] + ("8" if last == "7" else "7")
    raise TypeError(type(value))


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value in a document with the way to it."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, (*path, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from leaves(value, (*path, number))
    elif document is not None and document != b"":
        yield path, document


def with_change(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value at the end of the way."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = with_change(copy[path[0]], path[1:], value)
    return copy
