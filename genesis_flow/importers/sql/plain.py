"""Reads the kinds that the table of kinds describes column by column."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.importers.kinds import PLAIN, Column, Kind, Rows, within
from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.sql.reading import Layout, Reading, checked, grouped

_CHILDREN_AT_ONCE = 1_000


def read_plain(name: str) -> Callable[[Reading, Any], Iterable[Item]]:
    """The reader of a kind, with those that are read in its units."""

    def read(reading: Reading, ids: Sequence[Any]) -> Iterator[Item]:
        kind = PLAIN[name]
        problems: list[Problem] = []
        layout = {"experiment_id": "I"} | _layout(kind.columns)
        (key,) = kind.key
        rows = reading.snapshot.of(kind.table, (key, *layout), key, ids, order=(key,))
        for row in _read(reading, kind, rows, {key: "T"} | layout, problems):
            experiment = row.pop("experiment_id")
            workspace = reading.workspace_of(experiment)
            record = _record(kind, row.pop(key), experiment, row, workspace)
            yield record
            for child in within(name):
                yield from _children(reading, child, record, experiment, problems)
        yield from problems

    return read


def _children(
    reading: Reading, kind: Kind, parent: Record, experiment: int, problems: list[Problem]
) -> Iterator[Item]:
    """In pages, since a queue may have any number of items."""
    layout = _layout(kind.columns)
    owner, key = kind.key
    if not reading.snapshot.has(kind.table):
        return
    of_parent = reading.snapshot.column(kind.table, owner) == parent.id
    pages = reading.snapshot.pages(kind.table, tuple(layout), of_parent, order=(key,), size=_CHILDREN_AT_ONCE)
    for page in pages:
        for row in checked(page, layout, kind.table, kind.name, problems):
            identifier = f"{row[owner]}{SEPARATOR}{row[key]}"
            yield _record(kind, identifier, experiment, row, parent.workspace)


def _read(
    reading: Reading, kind: Kind, rows: Iterable[Sequence[Any]], layout: Layout, problems: list[Problem]
) -> Iterator[Body]:
    """Rows by column, with what other tables say of them."""
    (key,) = kind.key
    found = list(checked(rows, layout, kind.table, kind.name, problems))
    ids = [row[key] for row in found]
    parts = [(rows, _parts(reading, kind, rows, ids, problems)) for rows in kind.rows]
    for row in found:
        for rows_of, by_owner in parts:
            row[rows_of.field] = _shaped(kind, rows_of, row[key], by_owner.get(row[key], []), problems)
        yield row


def _parts(
    reading: Reading, kind: Kind, rows: Rows, ids: Sequence[Any], problems: list[Problem]
) -> dict[Any, list[Body]]:
    layout = {rows.owner: "T"} | _layout(rows.columns)
    snapshot = reading.snapshot
    if not snapshot.has(rows.table):
        return {}
    conditions = [snapshot.column(rows.table, name) == value for name, value in rows.where]
    conditions += [snapshot.column(rows.table, name).is_not(None) for name in rows.filled]
    order = (rows.owner, rows.columns[0].name)
    found = snapshot.of(rows.table, tuple(layout), rows.owner, ids, *conditions, order=order)
    return grouped(checked(found, layout, rows.table, kind.name, problems), rows.owner)


def _shaped(kind: Kind, rows: Rows, of: Any, found: list[Body], problems: list[Problem]) -> Any:
    documents = [
        {column.field: row[column.name] for column in rows.columns if row[column.name] is not None}
        | dict(rows.constants)
        for row in found
    ]
    if rows.shape == "values":
        return sorted(value for document in documents for value in document.values())
    if rows.shape == "list":
        return documents
    for more in documents[1:]:
        where = (
            f"table {rows.table}, {rows.owner}={of}, {rows.columns[0].name}={found[documents.index(more)]}"
        )
        reason = f"its {kind.name} has another one, and the target keeps one of each"
        problems.append(Problem(kind.name, where, reason, 1))
    return documents[0] if documents else None


def _record(kind: Kind, identifier: str, experiment: int, row: Body, workspace: str | None) -> Record:
    body = {"id": identifier, "experiment_id": str(experiment)}
    body |= {column.field: row[column.name] for column in kind.columns}
    body |= {rows.field: row[rows.field] for rows in kind.rows}
    return Record(kind.name, identifier, body, workspace)


def _layout(columns: Iterable[Column]) -> dict[str, str]:
    return {column.name: column.letter for column in columns}
