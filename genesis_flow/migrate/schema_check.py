"""Compare what the documents declare with what the server has."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.portable import portable_indexes
from genesis_flow.migrate.ledger import BOOKKEEPING, TOOL_METASTORE

# Options that change which documents an index holds or how it compares them.
_OPTIONS = (
    "unique",
    "sparse",
    "expireAfterSeconds",
    "partialFilterExpression",
    "collation",
    "wildcardProjection",
)
_DEFAULTS: Mapping[str, Any] = {"unique": False, "sparse": False}
VIEWS = ("params", "tags")
# Indexes that the operator may give an age after which the server removes documents.
OPERATORS_RETENTION = ("by_record_time",)


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference; ``kind`` is missing, extra, different or unusable, or note for what is no drift."""

    kind: str
    what: str
    detail: str = ""


def compare(
    db: Database[dict[str, Any]],
    prefix: str,
    declared: Iterable[type[Declared]],
    *,
    portable: bool = False,
) -> list[Finding]:
    """Every difference, collection by collection; reads only."""
    present = {
        collection["name"]: collection.get("type", "collection") for collection in db.list_collections()
    }
    findings: list[Finding] = []
    names = set()
    for document in declared:
        settings = document.Settings
        name = prefix + settings.name
        names.add(name)
        if name not in present:
            findings.append(Finding("missing", name, "the collection does not exist"))
            continue
        indexes = portable_indexes(settings.name, settings.indexes) if portable else settings.indexes
        findings.extend(_compare_indexes(db, name, [index.document for index in indexes]))
    for view in () if portable else VIEWS:
        name = prefix + view
        names.add(name)
        if present.get(name) != "view":
            findings.append(Finding("missing", name, "the view does not exist"))
    return findings + _others(prefix, present, names)


def _compare_indexes(
    db: Database[dict[str, Any]], collection: str, declared: list[dict[str, Any]]
) -> list[Finding]:
    existing, building = _existing(db, collection)
    wanted = {index["name"]: index for index in declared}
    findings = []
    for name, index in wanted.items():
        what = f"{collection}.{name}"
        if name not in existing:
            findings.append(Finding("missing", what, f"the index {_keys(index)} does not exist"))
        elif name in OPERATORS_RETENTION and _is_ttl_of(index, existing[name]):
            seconds = existing[name]["expireAfterSeconds"]
            findings.append(Finding("note", what, f"the server removes documents after {seconds} seconds"))
        elif difference := _difference(index, existing[name]):
            findings.append(Finding("different", what, difference))
        elif existing[name].get("hidden"):
            findings.append(Finding("unusable", what, "the index is hidden from queries"))
        elif name in building:
            findings.append(Finding("unusable", what, "the index is still being built"))
    findings.extend(
        Finding("extra", f"{collection}.{name}", f"the index {_keys(index)} is not declared")
        for name, index in existing.items()
        if name not in wanted and name != "_id_"
    )
    return findings


def _existing(db: Database[dict[str, Any]], collection: str) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The indexes by name, and the names of those being built, where the server tells them apart."""
    try:
        listed: list[Any] = list(db.cursor_command({"listIndexes": collection, "includeBuildUUIDs": True}))
    except OperationFailure:
        listed = list(db[collection].list_indexes())
    building = {index["spec"]["name"] for index in listed if "buildUUID" in index}
    return {spec["name"]: spec for index in listed if (spec := index.get("spec", index))}, building


def _difference(declared: Mapping[str, Any], existing: Mapping[str, Any]) -> str:
    if _key_list(declared) != _key_list(existing):
        return f"declared {_keys(declared)}, the server has {_keys(existing)}"
    for option in _OPTIONS:
        wanted = declared.get(option, _DEFAULTS.get(option))
        has = existing.get(option, _DEFAULTS.get(option))
        if option == "collation" and wanted and has:
            has = {key: has.get(key) for key in wanted}  # the server fills in the defaults
        if wanted != has:
            return f"declared {option}={wanted}, the server has {has}"
    return ""


def _is_ttl_of(declared: Mapping[str, Any], existing: Mapping[str, Any]) -> bool:
    """Whether the server's index is the declared one, and removes old documents besides."""
    plain = {option: value for option, value in existing.items() if option != "expireAfterSeconds"}
    return "expireAfterSeconds" in existing and not _difference(declared, plain)


def _key_list(index: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(field, int(kind) if isinstance(kind, float) else kind) for field, kind in index["key"].items()]


def _keys(index: Mapping[str, Any]) -> str:
    return "(" + ", ".join(f"{field} {kind}" for field, kind in _key_list(index)) + ")"


def _others(prefix: str, present: Mapping[str, str], known: set[str]) -> list[Finding]:
    """Collections that no document declares: another version's, or of another application."""
    bookkeeping = {prefix + name for name in (*BOOKKEEPING, TOOL_METASTORE)}
    return [
        Finding("note", name, "no document declares this collection")
        for name in sorted(present)
        if name.startswith(prefix) and name not in known | bookkeeping and not name.startswith("system.")
    ]
