"""Large databases quickly: templates are written through a store and copied in bulk beneath it.

A copy has an id of its own, its times moved and its floats shifted by very little, so that orders are strict.
It is otherwise what the store itself wrote, whatever the store.
"""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

TEMPLATES = 40
SECOND = 1000
SHIFT = 1e-9
BATCH = 5_000

Change = Callable[[Any], Any]
Template = tuple[str, Any]


def changer(old: str, new: str, number: int) -> Change:
    """What makes a copy of any value of a template."""
    moved = number * SECOND

    def change(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(old, new) if old in value else value
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            if 1_600_000_000_000 < value < 2_000_000_000_000:
                return value + moved
            if 1_600_000_000_000_000_000 < value < 2_000_000_000_000_000_000:
                return value + moved * 1_000_000
            return value
        if isinstance(value, float):
            return value + number * SHIFT
        if isinstance(value, dict):
            return {name: change(each) for name, each in value.items()}
        if isinstance(value, list):
            return [change(each) for each in value]
        return value

    return change


class Filler:
    def fill_runs(self, operations: Any, total: int) -> int:
        return self._fill(operations, "runs", total, operations.run_template, lambda: uuid.uuid4().hex)

    def fill_traces(self, operations: Any, total: int) -> int:
        return self._fill(
            operations, "traces", total, operations.trace_template, lambda: f"tr-{uuid.uuid4().hex}"
        )

    def _fill(
        self,
        operations: Any,
        kind: str,
        total: int,
        template: Callable[[int], tuple[str, int]],
        new_id: Callable[[], str],
    ) -> int:
        """Bring the number of what was filled to ``total``."""
        kept = operations.__dict__.setdefault("filled", {})
        if kind not in kept:
            kept[kind] = {
                "templates": [self.read(template(number)[0]) for number in range(TEMPLATES)],
                "count": TEMPLATES,
            }
        state = kept[kind]
        self.write(self._copies(state, total, new_id))
        state["count"] = max(total, state["count"])
        return int(state["count"])

    def _copies(self, state: dict[str, Any], total: int, new_id: Callable[[], str]) -> Iterator[Any]:
        for number in range(state["count"], total):
            old, rows = state["templates"][number % TEMPLATES]
            change = changer(old, new_id(), number)
            yield {table: [change(row) for row in found] for table, found in rows.items()}

    def read(self, template_id: str) -> Template:
        """The id of a template and its rows by table."""
        raise NotImplementedError

    def write(self, copies: Iterator[Any]) -> None:
        pending: dict[str, list[Any]] = {}
        for copy in copies:
            for table, rows in copy.items():
                waiting = pending.setdefault(table, [])
                waiting += rows
                if len(waiting) >= BATCH:
                    self.insert(table, waiting)
                    pending[table] = []
        for table, rows in pending.items():
            if rows:
                self.insert(table, rows)
        self.finish()

    def insert(self, table: str, rows: list[Any]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """What a database needs after many insertions."""


class MongoFiller(Filler):
    def __init__(self, uri: str) -> None:
        import pymongo

        client: Any = pymongo.MongoClient(uri, w="majority")
        self.database = client.get_default_database()

    def read(self, template_id: str) -> Template:
        rows: dict[str, list[Any]] = {}
        for each in self.database.list_collections(filter={"type": "collection"}):
            name = each["name"]
            found = [
                document
                for document in self.database[name].find()
                if template_id in str(document)  # small as long as only templates are there
            ]
            if found:
                rows[name] = found
        return template_id, rows

    def insert(self, table: str, rows: list[Any]) -> None:
        from bson import ObjectId

        for row in rows:
            if isinstance(row.get("_id"), ObjectId):
                row["_id"] = ObjectId()
        self.database[table].insert_many(rows, ordered=False)


class SqlFiller(Filler):
    OWNERS = ("run_uuid", "request_id", "trace_id", "run_id")

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        self.engine = sqlalchemy.create_engine(uri)
        self.tables = sqlalchemy.MetaData()
        self.tables.reflect(self.engine)
        self.sqlalchemy = sqlalchemy

    def read(self, template_id: str) -> Template:
        rows: dict[str, list[Any]] = {}
        with self.engine.connect() as connection:
            for table in self.tables.sorted_tables:
                owner = next((name for name in self.OWNERS if name in table.c), None)
                if owner is None:
                    continue
                query = self.sqlalchemy.select(table).where(table.c[owner] == template_id)
                if found := [dict(row) for row in connection.execute(query).mappings()]:
                    rows[table.name] = found
        return template_id, rows

    def write(self, copies: Iterator[Any]) -> None:
        """All of a copy at once: its rows point at each other."""
        import itertools

        while some := list(itertools.islice(copies, 1000)):
            with self.engine.begin() as connection:
                for table in self.tables.sorted_tables:
                    if rows := [row for copy in some for row in copy.get(table.name, [])]:
                        connection.execute(table.insert(), rows)
        self.finish()

    def finish(self) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")


def filler(kind: str, uri: str) -> Filler:
    return SqlFiller(uri) if kind in {"sqlite", "postgresql"} else MongoFiller(uri)
