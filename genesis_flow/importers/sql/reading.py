"""What the readers of all kinds share: rows as checked values, maps by owner, workspaces of experiments."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from genesis_flow.importers.kind import Kind, Rows
from genesis_flow.importers.records import Body, Problem
from genesis_flow.importers.sql.snapshot import Condition, Row, Snapshot, not_all
from genesis_flow.importers.sql.values import (
    Unreadable,
    binary,
    checked_truth,
    json_as_text,
    json_map,
    json_text,
    needed_binary,
    needed_json,
    needed_real,
    needed_text,
    needed_whole,
    real,
    text,
    whole,
)

# How the columns of a row are read, by the letter in a layout.
_CHECKS = {
    "t": text,
    "T": needed_text,
    "i": whole,
    "I": needed_whole,
    "r": real,
    "R": needed_real,
    "j": json_text,
    "J": needed_json,
    "m": json_map,
    "s": json_as_text,
    "x": text,
    "y": binary,
    "Y": needed_binary,
    "b": checked_truth,
}

# Column -> letter; the order is that of the select.
Layout = Mapping[str, str]
Maps = dict[Any, dict[str, str | None]]
_NOTHING: Layout = {}


class Reading:
    """A snapshot with what several units need of it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._workspaces: dict[str, str | None] | None = None

    def workspace_of(self, experiment_id: Any) -> str | None:
        """The workspace of an experiment, which is that of all it holds."""
        if self._workspaces is None:
            rows = (
                self.snapshot.rows("experiments", ("experiment_id", "workspace"))
                if self.snapshot.has("experiments", "workspace")
                else ()
            )
            self._workspaces = {str(number): text(name, "workspace") for number, name in rows}
        return self._workspaces.get(str(experiment_id))

    def things(
        self,
        kind: Kind,
        ids: Sequence[Any],
        problems: list[Problem],
        *where: Condition,
        more: Layout = _NOTHING,
        order: tuple[str, ...] = (),
    ) -> Iterator[Body]:
        """The bodies of these ids, as far as the table of kinds says what is in them; and ``more``."""
        layout, key = {**kind.layout, **more}, kind.key[0]
        rows = self.snapshot.of(kind.table, tuple(layout), key, ids, *where, order=order or (key,))
        maps = {part.field: self.maps(kind, part, ids, problems) for part in kind.rows if part.shape == "map"}
        for row in checked(rows, layout, kind.table, kind.name, problems):
            yield {
                **body_of(kind, row),
                **{name: row[name] for name in more},
                **{field: of.get(row[key], {}) for field, of in maps.items()},
            }

    def maps(self, kind: Kind, part: Rows, ids: Sequence[Any], problems: list[Problem]) -> Maps:
        """Keys and values by owner; what cannot be read of them is told, not lost."""
        found: Maps = defaultdict(dict)
        (owner,), (key, value) = part.owner, (column.name for column in part.columns)
        rows = self.snapshot.of(part.table, (owner, key, value), owner, ids, order=(owner, key))
        for of, name, content in rows:
            try:
                found[of][needed_text(name, key)] = text(content, value)
            except Unreadable as error:
                where = f"table {part.table}, {owner}={of}, {key}={name!r}"
                problems.append(Problem(kind.name, where, str(error), 1))
        return found


def body_of(kind: Kind, row: Body) -> Body:
    """What the columns of its table say; experiments are named by text."""
    body = {column.field: row[column.name] for column in kind.columns}
    return body | {"experiment_id": str(row["experiment_id"])} if kind.of_experiment else body


def checked(
    rows: Iterable[Row], layout: Layout, table: str, kind: str, problems: list[Problem]
) -> Iterator[dict[str, Any]]:
    """Rows by column; a row that is not as it should be becomes a problem."""
    names = tuple(layout)
    first = names[0]
    checks = [(name, _CHECKS[letter]) for name, letter in layout.items()]
    for row in rows:
        try:
            yield {name: check(value, name) for (name, check), value in zip(checks, row, strict=True)}
        except Unreadable as error:
            problems.append(Problem(kind, f"table {table}, {first}={row[0]}", str(error), 1))


def grouped(rows: Iterable[dict[str, Any]], owner: str) -> dict[Any, list[dict[str, Any]]]:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[owner]].append(row)
    return groups


def conditions_of(snapshot: Snapshot, rows: Rows) -> list[Condition]:
    """What holds for the rows of a table that a part of a kind is made of."""
    conditions = [snapshot.column(rows.table, name) == value for name, value in rows.where]
    return conditions + [snapshot.column(rows.table, name).is_not(None) for name in rows.filled]


def rows_of_kind(snapshot: Snapshot, kind: Kind) -> list[Condition]:
    """What holds for the rows of its table that are of a kind, and not deleted."""
    conditions = [] if kind.but is None else [not_all(conditions_of(snapshot, kind.but))]
    if snapshot.has(kind.table, kind.gone):
        conditions.append(snapshot.column(kind.table, kind.gone).is_(None))
    return conditions
