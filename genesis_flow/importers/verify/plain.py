"""Both sides of the kinds that the table of kinds describes: rows of a database, and documents.

What is derived is said here a second time.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from genesis_flow.importers.kind import Column, Kind, Lookup, Rows
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.verify import registries
from genesis_flow.importers.verify.entities import (
    Entity,
    Fields,
    Value,
    canonical_object,
    hidden,
)
from genesis_flow.importers.verify.sql_values import is_true
from genesis_flow.importers.verify.stored import MISSING, Stored, json_text, unescaped
from genesis_flow.importers.verify.wanted import Wanted

Row = dict[str, Any]
_SEVERITIES = ("not_an_issue", "low", "medium", "high")


class Tables(Protocol):
    wanted: Wanted

    def rows(self, name: str, /, *order: str, **where: Any) -> list[Row]: ...

    def pages(self, name: str, key: str, /, **where: Any) -> Iterator[Row]: ...

    def trouble(self, kind: str, where: str, reason: str) -> None: ...


def plain_entities(kind: Kind, tables: Tables, experiment: Row | None = None) -> Iterator[Entity]:
    """What an experiment of the source has of a kind; without one, all of a kind that belongs to none."""
    number = experiment["experiment_id"] if experiment else None
    of_experiment = {"experiment_id": number} if experiment else {}
    if kind.within:
        owner = KIND[kind.within]
        for parent in tables.pages(owner.table, owner.key[0], **of_experiment):
            name = parent[owner.key[0]]
            for row in tables.pages(kind.table, kind.key[-1], **{kind.parent: name}):
                if kind.but is None or not _is_of(kind.but, row):
                    yield from _entity(kind, tables, number, row)
        return
    others = set(_of_other_workspaces(kind, tables)) if experiment is None else set()
    for row in tables.pages(kind.table, *kind.key, **of_experiment):
        if (row.get("workspace"), _id_of(kind, row)) in others:
            tables.trouble(kind.name, _id_of(kind, row), "another workspace has one of this name")
        elif row.get(kind.gone) is None and (not kind.times or tables.wanted.since(row[kind.times[0]])):
            yield from _entity(kind, tables, number, row)


def _of_other_workspaces(kind: Kind, tables: Tables) -> Iterator[tuple[Any, str]]:
    """The workspaces and ids of those whose name the workspace before has given, too."""
    named = [column.name for column in kind.columns if column.field == kind.unique]
    first: dict[Any, tuple[Any, str]] = {}
    for row in tables.pages(kind.table, *kind.key) if named or kind.named else ():
        name = tuple(row[part] for part in named or kind.key)
        mine = row.get("workspace"), _id_of(kind, row)
        if None in (*name, mine[0]):
            continue
        known = first.setdefault(name, mine)
        if mine != known:
            first[name] = min(mine, known)
            yield max(mine, known)


def _id_of(kind: Kind, row: Row) -> str:
    return "|".join(str(row[name]) for name in kind.key)


def _entity(kind: Kind, tables: Tables, experiment: int | None, row: Row) -> Iterator[Entity]:
    identifier = _id_of(kind, row)
    try:
        fields: Fields = {column.field: _said(column, row.get(column.name)) for column in kind.columns}
        written = {column.field for column in kind.columns if column.letter.lower() in "jms"}
        for part in kind.rows:
            if part.of_items is None:
                fields[part.field] = _part(kind, part, tables, row)
        for lookup in kind.lookups:
            fields[lookup.field] = {**fields.get(lookup.field, {}), **_looked_up(lookup, tables, row)}
        fields |= _DERIVED.get(kind.name, _nothing)(fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        tables.trouble(kind.name, identifier, str(error))
        return
    fields = {
        name: value if name not in written and _is_plain(value) else _json(value)
        for name, value in fields.items()
    }
    if experiment is not None:
        fields["experiment_id"] = experiment
    if fields.get("experiment_id") is not None:
        fields["experiment_id"] = str(fields["experiment_id"])
    yield Entity(kind.name, identifier, fields)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _said(column: Column, value: Any) -> Any:
    letter = column.letter
    match letter.lower():
        case "b":
            return is_true(value)
        case "m":
            return _map_said(column.name, value)
        case "j" | "s":
            return _json_said(column.name, value)
        case "y" if value is not None:
            return hidden(bytes(value))
        case "x":
            return hidden(value)
        case "i" if isinstance(value, float) and value == int(value):
            return int(value)
        case "r" if value is not None:
            return float(value)
    if letter.isupper() and value is None:
        raise ValueError("a column that must say something says nothing")
    if value is not None and letter.lower() == "i" and not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _map_said(column: str, value: Any) -> Any:
    said = _json_said(column, value)
    if not isinstance(said, dict | None):
        raise ValueError(f"its {column} is no map in JSON")
    return said


def _json_said(column: str, value: Any) -> Any:
    """What JSON says; some databases have read theirs already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except ValueError as error:
        raise ValueError(f"its {column} is no JSON: {value[:40]!r}") from error


def _part(kind: Kind, part: Rows, tables: Tables, thing: Row) -> Any:
    first = part.columns[0].name
    rows = _rows_of(kind, part, tables, thing)
    if part.shape == "map":
        return {row[first]: row[part.columns[1].name] for row in rows}
    readable = []
    said = []
    for row in rows:
        try:
            said.append({column.field: _said(column, row[column.name]) for column in part.columns})
            readable.append(row)
        except ValueError as error:
            where = f"table {part.table}, {part.owner[0]}={_id_of(kind, thing)}, {first}={row[first]}"
            tables.trouble(kind.name, where, str(error))
    rows = readable
    if part.shape == "values":
        return sorted(".".join(each.values()) for each in said)
    documents = [
        {name: value for name, value in each.items() if value is not None} | dict(part.constants)
        for each in said
    ]
    if part.shape == "list":
        for more in kind.rows:
            if more.of_items is not None and more.of_items[0] == part.field:
                _put_into(documents, rows, more, _rows_of(kind, more, tables, thing))
        return documents
    for row in rows[1:]:
        where = f"table {part.table}, {part.owner[0]}={_id_of(kind, thing)}, {first}={row[first]}"
        tables.trouble(part.table, where, "there is another one, and the target keeps one of each")
    return documents[0] if documents else None


def _rows_of(kind: Kind, part: Rows, tables: Tables, thing: Row) -> list[Row]:
    of_thing = dict(zip(part.owner, (thing[name] for name in kind.key), strict=True))
    rows = tables.rows(part.table, *part.sorted_by, **of_thing, **dict(part.where))
    if kind.named:
        rows = [row for row in rows if row.get("workspace") == thing.get("workspace")]
    return [row for row in rows if all(row[name] is not None for name in part.filled)]


def _is_of(part: Rows, row: Row) -> bool:
    return all(row[name] == value for name, value in part.where) and all(
        row[name] is not None for name in part.filled
    )


def _put_into(documents: list[Any], rows: list[Row], part: Rows, belonging: list[Row]) -> None:
    assert part.of_items is not None
    key, value = (column.name for column in part.columns)
    column = part.of_items[1]
    for document, row in zip(documents, rows, strict=True):
        document[part.field] = {each[key]: each[value] for each in belonging if each[column] == row[column]}


def _looked_up(lookup: Lookup, tables: Tables, row: Row) -> Row:
    found = tables.rows(lookup.table, **{theirs: row[ours] for theirs, ours in lookup.by})
    if not found:
        raise ValueError(f"its row of {lookup.table} is missing")
    said = {column.field: _said(column, found[0][column.name]) for column in lookup.columns}
    return said | {name: str(said[name]) for name in said if name == "experiment_id"}


def _issue(fields: Fields) -> Fields:
    severity, categories = fields["severity"], fields["categories"] or []
    keys = [text.strip().lower() for text in categories]
    last_seen = fields["last_seen"]
    return {
        "name_lower": fields["name"].lower(),
        "rank": _SEVERITIES.index(severity) if severity in _SEVERITIES else -1,
        "category_keys": sorted(set(keys), key=keys.index),
        "last_seen": fields["created_time"] if last_seen is None else last_seen,
    }


def _endpoint(fields: Fields) -> Fields:
    """MLflow's table says of the models, too, which of them are fallbacks."""
    told = fields["fallback"]
    if told is None:
        return {}
    return {
        "fallback": {name: told[name] for name in ("strategy", "max_attempts") if told.get(name) is not None}
    }


def _webhook(fields: Fields) -> Fields:
    updated = fields["last_updated_time"]
    return {"last_updated_time": fields["creation_time"] if updated is None else updated}


def _nothing(fields: Fields) -> Fields:
    return {}


_DERIVED: dict[str, Callable[[Fields], Fields]] = {
    "issue": _issue,
    "gateway_endpoint": _endpoint,
    "mcp_server": registries.server,
    "skill": registries.skill,
    "webhook": _webhook,
}


def plain_fields(kind: Kind, stored: Stored) -> Fields:
    """What a document of the target says."""
    fields = {
        column.field: _kept(column.letter.lower(), stored, column.field)
        for column in kind.columns
        if column.field != "experiment_id"  # told in the source's numbers
    }
    for part in kind.rows:
        if part.of_items is None:
            value = stored.take(part.field)
            fields[part.field] = _json(unescaped(value) if part.shape == "map" else value)
    joined = {lookup.field for lookup in kind.lookups}
    fields |= {name: _json(stored.take(name)) for name in joined}
    stored.settle(**kind.constants)
    for field in kind.declared.Settings.derived:
        stored.take(field)  # readers keep it for each other
    if kind.name == "issue":
        fields |= stored.fields("name_lower", "rank")
        fields["category_keys"] = _json(stored.take("category_keys"))
    if kind.named:
        fields["latest"] = _json(stored.take("latest"))
        fields["search_text"] = stored.take("search_text")
    for name in kind.counters:
        # Use changes it, even if all is as it was in the end.
        count = stored.take(name)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            fields[name] = MISSING if count is None else count
    return fields


def _kept(letter: str, stored: Stored, field: str) -> Value:
    value = stored.take(field)
    match letter:
        case "m":
            return _json(unescaped(value))
        case "j":
            return _json(value)
        case "s":
            return json_text(value)
        case "x" | "y":
            return hidden(value)
    return value


def _json(value: Any) -> Value:
    return None if value is None else canonical_object(value)
