"""What a kind of thing that can be imported is described with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.documents.plain import Document


class Column(NamedTuple):
    """A column of the source, and the field that keeps it.

    The letter says what its values are: t text, i whole number, r number, b truth, y bytes, j what JSON text
    says, m a map in JSON text whose keys a user chose, s JSON that is kept as text, x text that is not shown;
    capitals must be there.
    """

    name: str
    letter: str
    field: str


class Rows(NamedTuple):
    """Rows of another table that one field keeps."""

    field: str
    table: str
    # The columns that name whose they are, as many as the key has.
    owner: tuple[str, ...]
    columns: tuple[Column, ...]
    # "values" of the columns, joined by dots and sorted; a "list" of documents in the order of the first
    # column or of those of ``order``; a "map" from the first column to the second; or "one" document.
    shape: str
    # Only rows with these values, and with any value in these columns.
    where: tuple[tuple[str, str], ...] = ()
    filled: tuple[str, ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()
    order: tuple[str, ...] = ()
    # The list whose items they belong to, and the column by which: they are in its items then.
    of_items: tuple[str, str] | None = None

    @property
    def sorted_by(self) -> tuple[str, ...]:
        return self.order or (self.columns[0].name,)


class Lookup(NamedTuple):
    """A row of another table that columns of a row name, joined into the document of one field."""

    field: str
    table: str
    # Its columns, and those of the row.
    by: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]


class Child(NamedTuple):
    """A collection with what belongs to roots: where ``field`` names the root, or an id begins with it."""

    collection: str
    field: str | None = None
    where: tuple[tuple[str, str], ...] = ()

    def query(self, roots: list[Any]) -> dict[str, Any]:
        if self.field is None:
            return {"$or": [{"_id": children_of(root)} for root in roots]}
        return {self.field: {"$in": roots}, **dict(self.where)}


def _nothing(document: Document) -> None:
    """Nothing is derived, and the stores read whatever the columns hold."""


def _undivided(document: Document) -> list[tuple[type[Declared], Document]]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    declared: type[Declared]
    # In MLflow's SQL schema: the table, and the columns of the id.
    table: str
    key: tuple[str, ...]
    # The kind in whose unit it is read, and what names that in its body.
    within: str = ""
    parent: str = ""
    # Whether a rollback must know each of them, though it is read within another.
    is_root: bool = False
    # Whether readers and writers of its own take it; the others are plain.
    own: bool = False
    # What these find for its body in other ways.
    more: tuple[str, ...] = ()
    children: tuple[Child, ...] = ()
    # What else refers to it, which keeps it from being rolled back: collections and their fields.
    used_by: tuple[tuple[str, str], ...] = ()

    columns: tuple[Column, ...] = ()
    rows: tuple[Rows, ...] = ()
    # Whether it names an experiment; else it has the columns of its workspace, where there are any.
    of_experiment: bool = True

    # Of plain kinds alone:
    lookups: tuple[Lookup, ...] = ()
    # Whether its key is a name, which each workspace may give: its id begins with the workspace.
    named: bool = False
    # The column that says of a row that it is deleted.
    gone: str = ""
    # The rows of its table that another kind keeps.
    but: Rows | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    # Numbers that using it changes.
    counters: tuple[str, ...] = ()
    # The field that no two of an experiment, or of a workspace, have in common.
    unique: str = ""
    # The times that say whether one is young enough for --since; none: all are.
    times: tuple[str, ...] = ()
    # Adds what is derived.
    derive: Callable[[Document], None] = _nothing
    # Takes what is kept in documents of its own out of a document that all is derived of.
    divide: Callable[[Document], list[tuple[type[Declared], Document]]] = _undivided
    # Joins it with that of an earlier import.
    merge: Callable[[Document, Document], Document] | None = None
    # Reads a document as the stores will, so that none is written that they cannot read.
    check: Callable[[Document], Any] = _nothing

    @property
    def collection(self) -> str:
        name: str = self.declared.Settings.name
        return name

    @property
    def body(self) -> tuple[str, ...]:
        """The fields of a record."""
        fields = [] if self.own else ["id"]
        fields += ["experiment_id"] if self.of_experiment else []
        fields += [column.field for column in self.columns]
        fields += [rows.field for rows in self.rows if rows.of_items is None]
        fields += [lookup.field for lookup in self.lookups]
        return tuple(dict.fromkeys((*fields, *self.more)))

    @property
    def told(self) -> tuple[str, ...]:
        """The fields of columns, but for those that name it and its experiment."""
        naming = (*self.key, "experiment_id")
        return tuple(column.field for column in self.columns if column.name not in naming)

    @property
    def layout(self) -> dict[str, str]:
        """The letters of the columns of its table; the first says which row is meant."""
        named = dict.fromkeys(self.key, "T") | ({"experiment_id": "I"} if self.of_experiment else {})
        return named | {column.name: column.letter for column in self.columns}

    def id_in(self, workspace: str, identifier: str) -> str:
        """The id of the document that the target has of it."""
        return f"{workspace}{SEPARATOR}{identifier}" if self.named else identifier


def columns(*texts: str) -> tuple[Column, ...]:
    """From ``"column letter, …"``, with the field's name behind the letter where that is another."""
    parts = (column.split() for text in texts for column in text.split(","))
    return tuple(Column(name, letter, *(renamed or [name])) for name, letter, *renamed in parts)
