"""Values that their columns are not for: SQLite checks no types. They are named, and the rest is compared."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.importers.verify.databases import DatabaseSource
from genesis_flow.importers.verify.entities import Entity, Troubles
from genesis_flow.importers.verify.opening import engine_of
from genesis_flow.importers.verify.wanted import Wanted
from tests.importing.people import fill
from tests.importing.registries import fill_gateway, fill_registries
from tests.importing.sql_databases import connected, oracle, unpacked
from tests.importing.verifying import bring, check

WHOLE = ("INTEGER", "BIGINT", "SMALLINT")
NUMBERS = (*WHOLE, "FLOAT", "BOOLEAN", "BLOB", "JSON", "NUMERIC")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has something of all kinds."""
    path = unpacked("3.17.2", tmp_path_factory.mktemp("types"))
    with oracle(path) as (store, _):
        fill(store)
        fill_gateway(store)
        fill_registries(store)
    return path


class Reader(DatabaseSource):
    """Knows which tables it was asked for."""

    asked: set[str] | None = None

    def rows(self, name: str, /, *order: str, **where: Any) -> list[dict[str, Any]]:
        self._ask(name)
        return super().rows(name, *order, **where)

    def pages(self, name: str, /, *keys: str, **where: Any) -> Iterator[dict[str, Any]]:
        self._ask(name)
        return super().pages(name, *keys, **where)

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        self._ask("metrics")
        return super().points(run)

    def _ask(self, name: str) -> None:
        if self.asked is not None:
            self.asked.add(name)

    def all_of(self, kind: str) -> list[Any]:
        """What there is of a kind, with the points of runs."""
        self.troubles = Troubles()
        found: list[Any] = list(self.entities(kind))
        if kind == "run":
            runs: list[Entity] = list(found)
            found += [(sorted(self.points(run)), self.latest(run)) for run in runs]
        return found


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Tables, columns and types of all that are no texts, and that name neither the row nor whose it is."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    for (table,) in tables.fetchall():
        naming = {row[3] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
        told = connection.execute(f"PRAGMA table_info({table})").fetchall()
        keys = [column for _, column, *_, is_key in told if is_key]
        for _, column, kind, *_ in told:
            if kind.partition("(")[0] in NUMBERS and column not in naming and keys != [column]:
                yield table, column, kind


def test_no_value_ends_the_comparison(full: Path) -> None:
    """Of each column in turn: what it is not for is named with it, unless nothing is read of the column."""
    missed, tried = [], 0
    with connected(full) as connection, closing(Reader(engine_of(f"sqlite:///{full}"), Wanted())) as reader:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        usual: dict[str, list[Any]] = {}
        asks: dict[str, set[str]] = {}
        for kind in reader.kinds:
            reader.asked = asks[kind] = set()
            usual[kind] = reader.all_of(kind)
        for number, (table, column, declared) in enumerate(_columns(connection)):
            value = 2.0**64 if declared in WHOLE and number % 2 else "soon"
            row, before = connection.execute(f"SELECT max(rowid), {column} FROM {table}").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
            connection.commit()
            for kind in (kind for kind in usual if table in asks[kind] and row is not None):
                found, named = reader.all_of(kind), [str(each) for each in reader.troubles]
                tried += 1
                if found != usual[kind] and not any(column in each for each in named):
                    missed.append((table, column, value, kind, named))
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (before, row))
            connection.commit()
    assert missed == []
    assert tried > 100


DAMAGE = (
    "UPDATE spans SET start_time_unix_nano = 'soon' WHERE {last}",
    "UPDATE spans SET total_cost = 'much' WHERE {first}",
    "UPDATE trace_info SET total_tokens = 'many' WHERE {first}",
    "UPDATE assessments SET created_timestamp = 1e20 WHERE {last}",
    "UPDATE inputs SET step = 'first' WHERE source_type = 'RUN_OUTPUT' AND {first}",
    "UPDATE logged_model_metrics SET metric_value = 'high' WHERE {last}",
    "UPDATE evaluation_dataset_records SET tags = 5 WHERE {last}",
    "UPDATE registered_model_aliases SET version = 'two' WHERE {last}",
    "UPDATE model_versions SET creation_time = 1e20 WHERE {first}",
    "UPDATE webhooks SET creation_timestamp = 'once' WHERE {first}",
    "UPDATE issues SET created_timestamp = 'once' WHERE {last}",
    "UPDATE scorer_versions SET creation_time = 'once' WHERE {last}",
    "UPDATE label_schemas SET enable_comment = 'maybe' WHERE {last}",
    "UPDATE review_queue_items SET creation_time_ms = 'once' WHERE {last}",
    "UPDATE mcp_server_versions SET version_major = 'one' WHERE {last}",
    "UPDATE endpoint_model_mappings SET weight = 'heavy' WHERE {last}",
)


def test_what_no_column_is_for_is_left_out_on_both_sides(full: Path, store_uri: str, tmp_path: Path) -> None:
    """The import names it and takes the rest; so does the comparison, which finds no difference."""
    path = tmp_path / "mlflow.db"
    path.write_bytes(full.read_bytes())
    with connected(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in DAMAGE:
            table = statement.split()[1]
            given = statement.partition(" WHERE ")[2].partition("{")[0]
            ends = {
                end: f"rowid = (SELECT {of}(rowid) FROM {table} WHERE {given} 1)"
                for end, of in (("first", "min"), ("last", "max"))
            }
            assert connection.execute(statement.format(**ends)).rowcount == 1, statement
    source = f"sqlite:///{path}"
    told = bring(store_uri, source)
    found = check(store_uri, source)
    assert [each for each in found.outcome.differences if each.kind != "dataset"] == []
    assert found.exit_code == 3
    assert told.problems >= len(DAMAGE)
    named = {each.kind for each in found.outcome.unreadable}
    assert {statement.split()[1] for statement in DAMAGE} <= named
