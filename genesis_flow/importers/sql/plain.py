"""Reads the kinds that the table of kinds describes column by column."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from genesis_flow.documents.keys import SEPARATOR, escape
from genesis_flow.importers.kind import Column, Kind, Lookup, Rows
from genesis_flow.importers.kinds import PLAIN, within
from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.sql.reading import (
    Layout,
    Reading,
    checked,
    conditions_of,
    grouped,
    rows_of_kind,
)
from genesis_flow.importers.sql.snapshot import Condition, Row

_CHILDREN_AT_ONCE = 1_000


def read_plain(name: str) -> Callable[[Reading, Any], Iterable[Item]]:
    """The reader of a kind, with those that are read in its units: of ids, or of a workspace and a name."""
    kind = PLAIN[name]

    def read(reading: Reading, wanted: Any) -> Iterator[Item]:
        problems: list[Problem] = []
        layout = _whole_layout(kind)
        if kind.named:
            workspace, *names = wanted
            where = _named(reading, kind.table, kind.key, names, workspace)
            rows: Iterable[Row] = reading.snapshot.rows(kind.table, tuple(layout), *where)
        else:
            (key,) = kind.key
            alive = rows_of_kind(reading.snapshot, kind)
            rows = reading.snapshot.of(kind.table, tuple(layout), key, wanted, *alive, order=(key,))
        for row in _read(reading, kind, rows, layout, problems):
            record = _record(reading, kind, row)
            yield record
            for child in within(name):
                yield from _children(reading, child, record, row.get("experiment_id"), problems)
        yield from problems

    return read


def _named(
    reading: Reading, table: str, columns: Sequence[str], values: Sequence[Any], workspace: Any
) -> list[Condition]:
    column = reading.snapshot.column
    where = [column(table, name) == value for name, value in zip(columns, values, strict=True)]
    if reading.snapshot.has(table, "workspace"):
        where.append(column(table, "workspace") == workspace)
    return where


def _whole_layout(kind: Kind) -> dict[str, str]:
    """All columns of its table that are read; the first says which row is meant where one is no good."""
    found = kind.layout
    for lookup in kind.lookups:
        theirs = _layout(lookup.columns)
        found |= {ours: theirs[their] for their, ours in lookup.by if their in theirs}
    return found if kind.of_experiment else found | {"workspace": "t"}


def _children(
    reading: Reading, kind: Kind, parent: Record, experiment: int | None, problems: list[Problem]
) -> Iterator[Item]:
    """In pages, since a queue may have any number of items."""
    layout = _layout(kind.columns)
    snapshot = reading.snapshot
    if not snapshot.has(kind.table):
        return
    of_parent = snapshot.column(kind.table, kind.parent) == parent.id
    where = (of_parent, *rows_of_kind(snapshot, kind))
    order = tuple(name for name in kind.key if name != kind.parent)
    for page in snapshot.pages(kind.table, tuple(layout), *where, order=order, size=_CHILDREN_AT_ONCE):
        for row in checked(page, layout, kind.table, kind.name, problems):
            if kind.of_experiment:
                row["experiment_id"] = experiment
            yield _record(reading, kind, row)


def _read(
    reading: Reading, kind: Kind, rows: Iterable[Row], layout: Layout, problems: list[Problem]
) -> Iterator[Body]:
    """Rows by column, with what other tables say of them."""
    found = list(checked(rows, layout, kind.table, kind.name, problems))
    parts = [(rows, _parts(reading, kind, rows, found, problems)) for rows in kind.rows]
    for row in found:
        for rows_of, by_owner in parts:
            own = by_owner.get(_key_of(kind, row), [])
            if rows_of.of_items is None:
                row[rows_of.field] = _shaped(kind, rows_of, _key_of(kind, row), own, problems)
            else:
                _put_into_items(rows_of, row, own)
        if all(_look_up(reading, kind, lookup, row, problems) for lookup in kind.lookups):
            yield row


def _key_of(kind: Kind, row: Body) -> Any:
    return row[kind.key[0]] if len(kind.key) == 1 else tuple(row[name] for name in kind.key)


def _parts(
    reading: Reading, kind: Kind, rows: Rows, things: Sequence[Body], problems: list[Problem]
) -> dict[Any, list[Body]]:
    layout = dict.fromkeys(rows.owner, "T") | _layout(rows.columns)
    if rows.of_items is not None:
        layout[rows.of_items[1]] = _letter_in(kind, *rows.of_items)
    snapshot = reading.snapshot
    if not snapshot.has(rows.table):
        return {}
    conditions = conditions_of(snapshot, rows)
    if kind.named:
        parts = {}
        for thing in things:
            names = [thing[name] for name in kind.key]
            where = _named(reading, rows.table, rows.owner, names, thing["workspace"])
            found = snapshot.rows(rows.table, tuple(layout), *where, *conditions, order=rows.sorted_by)
            parts[_key_of(kind, thing)] = list(checked(found, layout, rows.table, kind.name, problems))
        return parts
    (owner,) = rows.owner
    ids = [thing[kind.key[0]] for thing in things]
    order = (owner, *rows.sorted_by)
    of_ids = snapshot.of(rows.table, tuple(layout), owner, ids, *conditions, order=order)
    return grouped(checked(of_ids, layout, rows.table, kind.name, problems), owner)


def _letter_in(kind: Kind, field: str, column: str) -> str:
    items = next(rows for rows in kind.rows if rows.field == field)
    return _layout(items.columns)[column]


def _shaped(kind: Kind, rows: Rows, of: Any, found: list[Body], problems: list[Problem]) -> Any:
    if rows.shape == "map":
        return _map(rows, found)
    documents = [
        {column.field: row[column.name] for column in rows.columns if row[column.name] is not None}
        | dict(rows.constants)
        for row in found
    ]
    if rows.shape == "values":
        return sorted(".".join(document.values()) for document in documents)
    if rows.shape == "list":
        return documents
    for more in documents[1:]:
        first = rows.columns[0].name
        where = f"table {rows.table}, {rows.owner[0]}={of}, {first}={found[documents.index(more)]}"
        reason = f"its {kind.name} has another one, and the target keeps one of each"
        problems.append(Problem(kind.name, where, reason, 1))
    return documents[0] if documents else None


def _map(rows: Rows, found: list[Body]) -> dict[str, Any]:
    key, value = (column.name for column in rows.columns)
    return {escape(row[key]): row[value] for row in found}


def _put_into_items(rows: Rows, row: Body, found: list[Body]) -> None:
    """Into each of the items that are read by then what belongs to it."""
    assert rows.of_items is not None
    field, column = rows.of_items
    by_item = grouped(found, column)
    for item in row[field]:
        item[rows.field] = _map(rows, by_item.get(item[column], []))


def _look_up(reading: Reading, kind: Kind, lookup: Lookup, row: Body, problems: list[Problem]) -> bool:
    """Whether there is the row that this one names, which joins the document of its field."""
    snapshot, layout = reading.snapshot, _layout(lookup.columns)
    found: list[Body] = []
    if snapshot.has(lookup.table):
        where = [snapshot.column(lookup.table, theirs) == row[ours] for theirs, ours in lookup.by]
        rows = snapshot.rows(lookup.table, tuple(layout), *where)
        found = list(checked(rows, layout, lookup.table, kind.name, problems))
    if not found:
        where_told = f"table {kind.table}, {kind.key[0]}={row[kind.key[0]]}"
        problems.append(Problem(kind.name, where_told, f"its row of {lookup.table} is missing", 1))
        return False
    said = {column.field: found[0][column.name] for column in lookup.columns}
    row[lookup.field] = {**row.get(lookup.field, {}), **said}
    return True


def _record(reading: Reading, kind: Kind, row: Body) -> Record:
    identifier = SEPARATOR.join(str(row[name]) for name in kind.key)
    body: Body = {"id": identifier}
    if kind.of_experiment:
        body["experiment_id"] = str(row["experiment_id"])
        workspace = reading.workspace_of(row["experiment_id"])
    else:
        workspace = row.get("workspace")
    body |= {column.field: row[column.name] for column in kind.columns}
    body |= {name: row[name] for name in kind.body if name not in body}
    return Record(kind.name, identifier, body, workspace)


def _layout(columns: Iterable[Column]) -> dict[str, str]:
    return {column.name: column.letter for column in columns}
