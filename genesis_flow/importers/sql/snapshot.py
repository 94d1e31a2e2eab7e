"""One connection in one read-only transaction: everything is read as it was when the source was opened.

This is the only module that knows SQLAlchemy, and of it only Core: tables are named with the columns that the
database says they have, so that every revision of MLflow's schema is read by the same code.
"""

import copy
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from genesis_flow.core.redact import mask
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.sql.values import Undecodable

Row = Sequence[Any]
Condition = sa.ColumnElement[bool]

# The workspace of a database that knows no other; what has none is told with it.
DEFAULT = "default"
# SQL Server takes 2,100 parameters, older SQLite 999.
IDS_AT_ONCE = 500
ROWS_AT_ONCE = 5_000
_UNDECODABLE = "Could not decode to UTF-8"


class Snapshot:
    def __init__(self, connection: sa.Connection, name: str, notes: Sequence[str] = ()) -> None:
        self._connection = connection
        self.name = name
        self.notes = list(notes)
        # Of which workspace things are listed; of all without one.
        self.workspace: str | None = None
        self.dialect = connection.dialect.name
        inspector = sa.inspect(connection)
        self.tables: dict[str, sa.TableClause] = {
            table: sa.table(table, *(sa.column(each["name"]) for each in inspector.get_columns(table)))
            for table in inspector.get_table_names()
        }
        # Drivers parse JSON columns, which may change numbers; as text they are what was stored.
        self._parsed = {
            (table, each["name"])
            for table in self.tables
            if self.dialect == "postgresql"
            for each in inspector.get_columns(table)
            if "JSON" in str(each["type"]).upper()
        }

    def of_workspace(self, workspace: str) -> "Snapshot":
        """This snapshot, of which only things of one workspace are listed."""
        part = copy.copy(self)
        part.workspace = workspace
        return part

    def own(self, table: str) -> list[Condition]:
        """What holds for the rows of a table that are of the workspace; what has none is of its owner."""
        if self.workspace is None:
            return []
        if self.has(table, "workspace"):
            named = self.tables[table].c.workspace
            mine = named == self.workspace
            return [mine | named.is_(None) if self._is_default() else mine]
        if not (self.has(table, "experiment_id") and self.has("experiments", "workspace")):
            return []
        of, named = self.tables[table].c.experiment_id, self.tables["experiments"].c.workspace
        if not self._is_default():
            return [of.in_(self.ids_where("experiments", "experiment_id", named == self.workspace))]
        # What is of no experiment is told with the default workspace.
        others = self.ids_where("experiments", "experiment_id", named != self.workspace)
        return [of.not_in(others) | of.is_(None)]

    def _is_default(self) -> bool:
        return self.workspace == DEFAULT

    def close(self) -> None:
        engine = self._connection.engine
        self._connection.close()
        engine.dispose()

    def has(self, table: str, column: str | None = None) -> bool:
        return table in self.tables and (column is None or column in self.tables[table].c)

    def column(self, table: str, column: str) -> sa.ColumnElement[Any]:
        """A column for conditions; null if the table does not have it."""
        found = self.tables[table].c.get(column)
        return sa.null() if found is None else found

    def ids_where(self, table: str, column: str, condition: Condition) -> Any:
        """For conditions: the values of a column where ``condition`` holds."""
        if not self.has(table, column):
            return ()
        return sa.select(self.tables[table].c[column]).where(condition)

    def rows(
        self,
        table: str,
        names: Sequence[str],
        *where: Condition,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """All rows, with None for columns that the table lacks; none if there is no such table."""
        return [row for some in self.stream(table, names, *where, order=order, limit=limit) for row in some]

    def pages(
        self, table: str, names: Sequence[str], *where: Condition, order: Sequence[str], size: int
    ) -> Iterator[list[Row]]:
        """All rows, in pages that each begin behind the last row, so that nothing stays open in between.

        Of a workspace, if one is meant, as what is counted; rows by the ids of what has them are its own.
        """
        if table not in self.tables:
            return
        where = (*where, *self.own(table))
        at = [names.index(name) for name in order]
        keys = [self.tables[table].c[name] for name in order]
        behind: tuple[Condition, ...] = tuple(key.is_not(None) for key in keys)
        while page := self.rows(table, names, *where, *behind, order=order, limit=size):
            yield page
            if len(page) < size:
                return
            last = [page[-1][position] for position in at]
            behind = (_behind(keys, last),)

    def of(
        self,
        table: str,
        names: Sequence[str],
        owner: str,
        ids: Sequence[Any],
        *where: Condition,
        order: Sequence[str] = (),
    ) -> Iterator[Row]:
        """The rows that belong to ``ids``."""
        if table not in self.tables or owner not in self.tables[table].c:
            return
        for start in range(0, len(ids), IDS_AT_ONCE):
            some = self.tables[table].c[owner].in_(ids[start : start + IDS_AT_ONCE])
            yield from self.rows(table, names, some, *where, order=order)

    def stream(
        self,
        table: str,
        names: Sequence[str],
        *where: Condition,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> Iterator[list[Row]]:
        """The rows in bunches as the database gives them out, however many there are."""
        if table not in self.tables:
            return
        statement = sa.select(*(self._selected(table, name) for name in names)).where(*where)
        statement = statement.select_from(self.tables[table])
        statement = statement.order_by(*(self.tables[table].c[name] for name in order)).limit(limit)
        yield from self._bunches(statement)

    def count_by(self, table: str, owner: str, ids: Sequence[Any]) -> dict[Any, int]:
        if not self.has(table, owner):
            return {}
        counts: dict[Any, int] = {}
        column = self.tables[table].c[owner]
        for start in range(0, len(ids), IDS_AT_ONCE):
            some = column.in_(ids[start : start + IDS_AT_ONCE])
            statement = sa.select(column, sa.func.count()).select_from(self.tables[table])
            for bunch in self._bunches(statement.where(some).group_by(column)):
                counts |= {key: int(count) for key, count in bunch}
        return counts

    def count(self, table: str, *where: Condition) -> int:
        if table not in self.tables:
            return 0
        where = (*where, *self.own(table))
        statement = sa.select(sa.func.count()).select_from(self.tables[table]).where(*where)
        return int(next(self._bunches(statement))[0][0])

    def orphans(
        self,
        child: str,
        keys: Sequence[str],
        parent: str,
        parent_keys: Sequence[str],
        *where: Condition,
    ) -> Iterator[tuple[tuple[Any, ...], int]]:
        """The keys of rows of ``child`` without a row of ``parent``, and how many rows there are of each."""
        ours, theirs = self.tables[child], self.tables[parent]
        joined = [ours.c[key] == theirs.c[other] for key, other in zip(keys, parent_keys, strict=True)]
        columns = [ours.c[key] for key in keys]
        alone = ~sa.exists(sa.select(sa.literal(1)).select_from(theirs).where(*joined).correlate(ours))
        yield from self._counted(child, columns, alone, *where)

    def counts(
        self, table: str, names: Sequence[str], *where: Condition
    ) -> Iterator[tuple[tuple[Any, ...], int]]:
        """The values that columns have together, and how many rows have them; none without such columns."""
        if all(self.has(table, name) for name in names):
            columns = [self.tables[table].c[name] for name in names]
            yield from self._counted(table, columns, *where, *self.own(table))

    def _counted(
        self, table: str, columns: Sequence[sa.ColumnElement[Any]], *where: Condition
    ) -> Iterator[tuple[tuple[Any, ...], int]]:
        statement = sa.select(*columns, sa.func.count()).select_from(self.tables[table])
        for bunch in self._bunches(statement.where(*where).group_by(*columns).order_by(*columns)):
            for *values, rows in bunch:
                yield tuple(values), int(rows)

    def _selected(self, table: str, name: str) -> sa.ColumnElement[Any]:
        column = self.tables[table].c.get(name)
        if column is None:
            return sa.null().label(name)
        return sa.cast(column, sa.Text).label(name) if (table, name) in self._parsed else column

    def _bunches(self, statement: sa.Select[Any]) -> Iterator[list[Row]]:
        given = 0
        try:
            for bunch in self._executed(statement):
                yield bunch
                given += len(bunch)
        except (SQLAlchemyError, sqlite3.Error) as error:
            if _UNDECODABLE not in str(error):
                raise ImportFailed(_failure(f"{self.name} could not be read", error)) from error
            with self._undecoded():
                yield from self._rest(statement, given)

    def _executed(self, statement: sa.Select[Any]) -> Iterator[list[Row]]:
        if self.dialect == "sqlite":
            with self._connection.execute(statement) as result:
                # Columns have no types here, so that SQLAlchemy's rows would add nothing but time.
                while bunch := list(result.cursor.fetchmany(ROWS_AT_ONCE)):
                    yield bunch
            return
        connection = self._connection.execution_options(stream_results=True, max_row_buffer=ROWS_AT_ONCE)
        with connection.execute(statement) as result:
            yield from result.partitions(ROWS_AT_ONCE)  # type: ignore[misc]

    def _rest(self, statement: sa.Select[Any], given: int) -> Iterator[list[Row]]:
        """What comes behind the first ``given`` rows: the order of a statement is the same each time."""
        for bunch in self._executed(statement):
            if given < len(bunch):
                yield bunch[given:]
            given = max(0, given - len(bunch))

    @contextmanager
    def _undecoded(self) -> Iterator[None]:
        """Text that is no UTF-8 comes as what it is, instead of ending the statement."""
        raw: Any = self._connection.connection.dbapi_connection
        raw.text_factory = _decoded
        try:
            yield
        finally:
            raw.text_factory = str


def _decoded(value: bytes) -> str | Undecodable:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Undecodable(value)


def _behind(keys: Sequence[sa.ColumnElement[Any]], last: Sequence[Any]) -> Condition:
    """Rows that sort behind ``last``; spelled out, since SQL Server compares no tuples."""
    return sa.or_(
        *(
            sa.and_(*(keys[before] == last[before] for before in range(at)), keys[at] > last[at])
            for at in range(len(keys))
        )
    )


def not_all(conditions: Sequence[Condition]) -> Condition:
    """At least one of them does not hold."""
    return sa.not_(sa.and_(*conditions))


def open_snapshot(uri: str, needed: Sequence[str] = ("experiments", "runs")) -> Snapshot:
    try:
        url = sa.make_url(uri)
    except ArgumentError as error:
        raise ImportFailed("The source is not an SQLAlchemy URI such as sqlite:///mlflow.db.") from error
    name = canonical_name(url)
    open_dialect = _OPENERS.get(url.get_backend_name(), _open_other)
    try:
        connection, notes = open_dialect(url)
        snapshot = Snapshot(connection, name, notes)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ImportFailed(
            f"The driver of {name} is not installed ({error}): install it with pip, for instance "
            "psycopg2-binary for postgresql, pymysql for mysql+pymysql, pyodbc for mssql+pyodbc."
        ) from error
    except SQLAlchemyError as error:
        raise ImportFailed(_failure(f"{name} cannot be opened", error)) from error
    if not all(snapshot.has(table) for table in needed):
        snapshot.close()
        raise ImportFailed(
            f"{name} holds no MLflow data: it has no tables {' and '.join(needed)}. Check the URI."
        )
    return snapshot


def canonical_name(url: sa.URL) -> str:
    """One name for each database, whoever reads it: the URL without user and password."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{_sqlite_path(url)}"
    bare = sa.URL.create(url.get_backend_name(), host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def _failure(what: str, error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{what}: {mask(str(cause)).strip() or type(cause).__name__}"


def _sqlite_path(url: sa.URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise ImportFailed(
            "Name the file of the SQLite database: sqlite:///relative.db or sqlite:////absolute.db."
        )
    return Path(url.database.removeprefix("file:").partition("?")[0]).absolute()


def _open_sqlite(url: sa.URL) -> tuple[sa.Connection, list[str]]:
    path = _sqlite_path(url)
    if not path.is_file():
        raise ImportFailed(f"There is no SQLite database at {path}. Check the URI.")

    def connect(options: str) -> Callable[[], sqlite3.Connection]:
        target = f"file:{quote(str(path))}?{options}"
        return lambda: sqlite3.connect(target, uri=True, isolation_level=None, check_same_thread=False)

    notes: list[str] = []
    try:
        return _begun(connect("mode=ro")), notes
    except OperationalError as error:
        # Even a reader makes files beside a database with a write-ahead log. Where it may not, and there is
        # no log, nobody can be writing either.
        if "unable to open" not in str(error.orig) or path.with_name(path.name + "-wal").exists():
            raise
        notes.append(f"{path} lies in a read-only folder and is read as a file that nobody changes.")
        return _begun(connect("mode=ro&immutable=1")), notes


def _begun(connect: Callable[[], sqlite3.Connection]) -> sa.Connection:
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    connection = engine.connect()
    try:
        # Sorting the points of most runs should not need files; it takes as much again.
        connection.exec_driver_sql("PRAGMA cache_size = -8192")
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
        # The snapshot is taken by the first read.
        connection.exec_driver_sql("SELECT COUNT(*) FROM sqlite_master").all()
    except BaseException:
        connection.close()
        raise
    return connection


def _open_postgresql(url: sa.URL) -> tuple[sa.Connection, list[str]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    connection = engine.connect().execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    connection.execute(sa.select(1))
    return connection, []


def _open_mysql(url: sa.URL) -> tuple[sa.Connection, list[str]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    connection = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    return connection, []


def _open_mssql(url: sa.URL) -> tuple[sa.Connection, list[str]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        allowed = connection.exec_driver_sql(
            "SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()"
        ).scalar()
    if allowed == 1:
        return engine.connect().execution_options(isolation_level="SNAPSHOT"), []
    note = (
        "The SQL Server database does not allow snapshot isolation, so what changes during the import may be "
        "read half before and half after: stop its writers, or run ALTER DATABASE name SET "
        "ALLOW_SNAPSHOT_ISOLATION ON."
    )
    return engine.connect(), [note]


def _open_other(url: sa.URL) -> tuple[sa.Connection, list[str]]:
    raise ImportFailed(
        f"MLflow does not support {url.get_backend_name()} databases: name one of sqlite, postgresql, mysql "
        "and mssql."
    )


_OPENERS: dict[str, Callable[[sa.URL], tuple[sa.Connection, list[str]]]] = {
    "sqlite": _open_sqlite,
    "postgresql": _open_postgresql,
    "mysql": _open_mysql,
    "mssql": _open_mssql,
}
