"""Both sides of the kinds that the table of kinds describes: rows of a database, and documents.

What is derived is said here a second time.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from genesis_flow.importers.kinds import KIND, Kind, Rows
from genesis_flow.importers.verify.entities import Entity, Fields, Value, canonical_object, json_value
from genesis_flow.importers.verify.stored import MISSING, Stored, entries
from genesis_flow.importers.verify.wanted import Wanted

Row = dict[str, Any]
_SEVERITIES = ("not_an_issue", "low", "medium", "high")


class Tables(Protocol):
    wanted: Wanted

    def rows(self, name: str, /, *order: str, **where: Any) -> list[Row]: ...

    def pages(self, name: str, key: str, /, **where: Any) -> Iterator[Row]: ...

    def trouble(self, kind: str, where: str, reason: str) -> None: ...


def plain_entities(kind: Kind, tables: Tables, experiment: Row) -> Iterator[Entity]:
    """What an experiment of the source has of a kind."""
    number = experiment["experiment_id"]
    if kind.within:
        owner = KIND[kind.within]
        for parent in tables.pages(owner.table, owner.key[0], experiment_id=number):
            name = parent[owner.key[0]]
            for row in tables.pages(kind.table, kind.key[-1], **{kind.parent: name}):
                yield from _entity(kind, tables, number, f"{name}|{row[kind.key[-1]]}", row)
        return
    for row in tables.pages(kind.table, kind.key[0], experiment_id=number):
        if not kind.times or tables.wanted.since(row[kind.times[0]]):
            yield from _entity(kind, tables, number, row[kind.key[0]], row)


def _entity(kind: Kind, tables: Tables, experiment: int, identifier: str, row: Row) -> Iterator[Entity]:
    try:
        fields = {column.field: _said(column.letter, row.get(column.name)) for column in kind.columns}
        fields |= {part.field: _part(part, tables, identifier) for part in kind.rows}
    except ValueError as error:
        tables.trouble(kind.name, identifier, str(error))
        return
    fields["experiment_id"] = str(experiment)
    yield Entity(kind.name, identifier, fields | _DERIVED.get(kind.name, _nothing)(row))


def _said(letter: str, value: Any) -> Value:
    match letter.lower():
        case "b":
            return bool(value)
        case "j" | "m":
            return canonical_object(json_value(value)) if value and value != "null" else None
        case "i" if isinstance(value, float) and value == int(value):
            return int(value)
        case "r" if value is not None:
            return float(value)
    if letter.isupper() and value is None:
        raise ValueError("a column that must say something says nothing")
    if value is not None and letter.lower() == "i" and not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _part(part: Rows, tables: Tables, owner: str) -> Value:
    first = part.columns[0].name
    rows = tables.rows(part.table, first, **{part.owner: owner}, **dict(part.where))
    rows = [row for row in rows if all(row[name] is not None for name in part.filled)]
    said = [{column.field: _said(column.letter, row[column.name]) for column in part.columns} for row in rows]
    if part.shape == "values":
        return canonical_object(sorted(value for each in said for value in each.values()))
    documents = [
        {name: value for name, value in each.items() if value is not None} | dict(part.constants)
        for each in said
    ]
    if part.shape == "list":
        return canonical_object(documents)
    for more in rows[1:]:
        where = f"table {part.table}, {part.owner}={owner}, {first}={more[first]}"
        tables.trouble(part.table, where, "there is another one, and the target keeps one of each")
    return canonical_object(documents[0]) if documents else None


def _issue(row: Row) -> Fields:
    severity, categories = row.get("severity"), json_value(row.get("categories") or "null") or []
    keys = [text.strip().lower() for text in categories]
    last_seen = row.get("last_seen_timestamp")
    return {
        "name_lower": row["name"].lower(),
        "rank": _SEVERITIES.index(severity) if severity in _SEVERITIES else -1,
        "category_keys": canonical_object(sorted(set(keys), key=keys.index)),
        "last_seen": row["created_timestamp"] if last_seen is None else last_seen,
    }


def _nothing(row: Row) -> Fields:
    return {}


_DERIVED: dict[str, Callable[[Row], Fields]] = {"issue": _issue}


def plain_fields(kind: Kind, stored: Stored) -> Fields:
    """What a document of the target says."""
    fields = {column.field: _kept(column.letter, stored, column.field) for column in kind.columns}
    fields |= {part.field: _json(stored.take(part.field)) for part in kind.rows}
    for field in kind.declared.Settings.derived:
        stored.take(field)  # readers keep it for each other
    if kind.name == "issue":
        fields |= stored.fields("name_lower", "rank")
        fields["category_keys"] = _json(stored.take("category_keys"))
    if kind.name == "review_queue":
        # It counts additions of items, which may have been taken out again.
        additions = stored.take("additions")
        if not isinstance(additions, int) or isinstance(additions, bool):
            fields["additions"] = MISSING if additions is None else additions
    return fields


def _kept(letter: str, stored: Stored, field: str) -> Value:
    value = stored.take(field)
    if letter == "m" and isinstance(value, dict):
        return canonical_object({name.partition(".")[2]: each for name, each in entries("", value).items()})
    return _json(value) if letter.lower() in "jm" else value


def _json(value: Any) -> Value:
    return None if value is None else canonical_object(value)
