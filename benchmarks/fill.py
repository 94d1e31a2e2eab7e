"""Large databases quickly: templates are written through a store and copied in bulk beneath it.

A copy has an id of its own, its times moved and its metrics, which lie between 0 and 1, spread evenly over
that range, so that a filter finds as many as one expects. It is otherwise what the store itself wrote.
"""

import itertools
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

TEMPLATES = 40
SECOND = 1000
GOLDEN = 0.6180339887498949
BATCH, SENDERS = 10_000, 2
EARLIEST, LATEST = 1_600_000_000_000, 2_000_000_000_000

Change = Callable[[Any], Any]
Copy = tuple[int, str, str]
"""The number of a copy, the id of its template, and its own id."""


def is_time(value: int) -> bool:
    return EARLIEST < value < LATEST


def changer(old: str, new: str, number: int) -> Change:
    """What makes a copy of any value of a template."""
    moved = number * SECOND

    def change(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(old, new) if old in value else value
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            if is_time(value):
                return value + moved
            if is_time(value // 1_000_000):
                return value + moved * 1_000_000
            return value
        if isinstance(value, float):
            return (value + number * GOLDEN) % 1.0 if 0 < value < 1 else value
        if isinstance(value, dict):
            return {name: change(each) for name, each in value.items()}
        if isinstance(value, list):
            return [change(each) for each in value]
        return value

    return change


class Filler:
    """Brings a store's database to a size; what was filled before stays."""

    def __init__(self) -> None:
        self.templates: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}

    def fill_runs(self, operations: Any, total: int) -> int:
        return self._fill("runs", total, operations.run_template, "")

    def fill_traces(self, operations: Any, total: int) -> int:
        return self._fill("traces", total, operations.trace_template, "tr-")

    def fill_points(self, operations: Any, total: int) -> None:
        operations.fill_points(total)

    def _fill(self, kind: str, total: int, template: Callable[[int], tuple[str, int]], prefix: str) -> int:
        """Bring the number of what was filled to ``total``."""
        if kind not in self.templates:
            self.templates[kind] = [template(number)[0] for number in range(TEMPLATES)]
            self.counts[kind] = TEMPLATES
            self.remember(kind, self.templates[kind])
        first = self.counts[kind]
        if total > first:
            copies = (
                (number, self.templates[kind][number % TEMPLATES], f"{prefix}{uuid.uuid4().hex}")
                for number in range(first, total)
            )
            self.copy(kind, copies)
            self.finish()
            self.counts[kind] = total
        return self.counts[kind]

    def remember(self, kind: str, templates: list[str]) -> None:
        """Look at the templates, while little else is there."""
        raise NotImplementedError

    def copy(self, kind: str, copies: Iterator[Copy]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """What a database needs after many insertions."""


class MongoFiller(Filler):
    def __init__(self, uri: str) -> None:
        import pymongo

        super().__init__()
        # Only the stores' own writes need to survive a crash.
        client: Any = pymongo.MongoClient(uri.replace("w=majority", "w=1"))
        self.database = client.get_default_database()
        self.rows: dict[str, list[tuple[str, Any]]] = {}

    def remember(self, kind: str, templates: list[str]) -> None:
        for each in self.database.list_collections(filter={"type": "collection"}):
            for document in self.database[each["name"]].find():
                text = str(document)
                for template_id in templates:
                    if template_id in text:
                        self.rows.setdefault(template_id, []).append((each["name"], document))

    def finish(self) -> None:
        """Sums of traces know nothing of copies that no store has written."""
        self.database["trace_sums"].delete_many({})

    def copy(self, kind: str, copies: Iterator[Copy]) -> None:
        """The server stores two batches while the next is made."""
        pending: dict[str, list[Any]] = {}
        sent: deque[Future[None]] = deque()
        with ThreadPoolExecutor(max_workers=SENDERS) as sender:
            for number, old, new in copies:
                change = changer(old, new, number)
                for collection, document in self.rows[old]:
                    pending.setdefault(collection, []).append(change(document))
                if sum(map(len, pending.values())) >= BATCH:
                    if len(sent) == SENDERS:
                        sent.popleft().result()
                    sent.append(sender.submit(self._insert, pending))
                    pending = {}
            sent.append(sender.submit(self._insert, pending))
            for each in sent:
                each.result()

    def _insert(self, pending: dict[str, list[Any]]) -> None:
        from bson import ObjectId

        for collection, documents in pending.items():
            for document in documents:
                if isinstance(document.get("_id"), ObjectId):
                    document["_id"] = ObjectId()
            self.database[collection].insert_many(documents, ordered=False)


class SqlFiller(Filler):
    """Copies are made inside the database: rows of templates joined with a table of old and new ids."""

    OWNERS = ("run_uuid", "request_id", "trace_id", "run_id")
    CHUNK = 10_000

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        super().__init__()
        self.engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT")
        self.connection = self.engine.connect()
        self.sqlite = self.engine.dialect.name == "sqlite"
        self.sqlalchemy = sqlalchemy
        tables = sqlalchemy.MetaData()
        tables.reflect(self.engine)
        self.owners = {
            table: owner
            for table in tables.sorted_tables
            if (owner := next((name for name in self.OWNERS if name in table.c), None))
        }
        self.statements: dict[str, list[str]] = {}
        if self.sqlite:
            faster = ("PRAGMA synchronous=OFF", "PRAGMA cache_size=-500000", "PRAGMA temp_store=MEMORY")
        else:  # foreign keys are triggers there: checking a million of copies takes most of the time
            faster = ("SET synchronous_commit=off", "SET session_replication_role=replica")
        for statement in (
            *faster,
            "CREATE TEMPORARY TABLE copies (number BIGINT, old_id VARCHAR(64), new_id VARCHAR(64))",
        ):
            self.connection.exec_driver_sql(statement)

    def remember(self, kind: str, templates: list[str]) -> None:
        ids = ", ".join(f"'{each}'" for each in templates)
        self.statements[kind] = []
        for table, owner in self.owners.items():
            kept = f"template_{kind}_{table.name}"
            run = self.connection.exec_driver_sql
            run(f"CREATE TEMPORARY TABLE {kept} AS SELECT * FROM {table.name} WHERE {owner} IN ({ids})")
            rows = run(f"SELECT * FROM {kept}").mappings().all()
            if not rows:
                continue
            values = ", ".join(self._value(column, owner, rows) for column in table.c)
            columns = ", ".join(f'"{column.name}"' for column in table.c)
            self.statements[kind].append(
                f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM copies m "
                f"JOIN {kept} t ON t.{owner} = m.old_id ORDER BY m.number"
            )

    def _value(self, column: Any, owner: str, rows: Any) -> str:
        """What a column of a copy holds."""
        types, name = self.sqlalchemy.types, f't."{column.name}"'
        found = [row[column.name] for row in rows if row[column.name] is not None]
        if column.name == owner:
            return "m.new_id"
        if found and isinstance(column.type, types.Float):
            moved = f"({name} + m.number * {GOLDEN!r})"
            whole = f"CAST({moved} AS BIGINT)" if self.sqlite else f"floor({moved})"
            return f"CASE WHEN {name} > 0 AND {name} < 1 THEN {moved} - {whole} ELSE {name} END"
        if any(isinstance(each, int) and is_time(each) for each in found):
            moved = f"{name} + m.number * {SECOND}"
            return f"CASE WHEN {name} BETWEEN {EARLIEST} AND {LATEST} THEN {moved} ELSE {name} END"
        if any(isinstance(row[column.name], str) and row[owner] in row[column.name] for row in rows):
            return f"replace({name}, m.old_id, m.new_id)"
        return name

    def copy(self, kind: str, copies: Iterator[Copy]) -> None:
        run = self.connection.exec_driver_sql
        rows = self.sqlalchemy.text("INSERT INTO copies VALUES (:number, :old, :new)")
        while some := list(itertools.islice(copies, self.CHUNK)):
            run("BEGIN")
            self.connection.execute(rows, [{"number": n, "old": old, "new": new} for n, old, new in some])
            for statement in self.statements[kind]:
                run(statement)
            run("DELETE FROM copies")
            run("COMMIT")

    def fill_points(self, operations: Any, total: int) -> None:
        """The store writes the ends of a long history; the database makes what is between them."""

        def between(run: str, first: int, last: int) -> None:
            numbers = "WITH RECURSIVE n(i) AS (SELECT {0} UNION ALL SELECT i + 1 FROM n WHERE i < {1})"
            self.connection.exec_driver_sql(
                f"{numbers.format(first, last - 1)} "
                "INSERT INTO metrics (key, value, timestamp, step, run_uuid, is_nan) "
                f"SELECT 'loss', i / 7.0, {operations.START} + i, i, '{run}', false FROM n"
            )

        operations.fill_points(total, between)

    def finish(self) -> None:
        self.connection.exec_driver_sql("ANALYZE" if self.sqlite else "VACUUM ANALYZE")


def filler(kind: str, uri: str) -> Filler:
    return SqlFiller(uri) if kind in {"sqlite", "postgresql"} else MongoFiller(uri)
