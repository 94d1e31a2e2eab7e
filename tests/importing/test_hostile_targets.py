"""A hostile editor of a target finds no blind spot: ``--verify`` names a difference wherever one is made.

Every field of every collection that an import fills is changed in every way, many documents at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
import pytest
from bson.decimal128 import Decimal128
from pymongo import ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify import compare
from genesis_flow.importers.verify.compare import Comparer, Outcome
from genesis_flow.importers.verify.entities import canonical
from genesis_flow.importers.verify.opening import open_source
from genesis_flow.importers.verify.target import Names, Target
from genesis_flow.importers.verify.wanted import Wanted
from tests.importing.many_of_each import copy_all
from tests.importing.people import fill
from tests.importing.registries import fill_gateway, fill_registries
from tests.importing.sql_databases import oracle
from tests.importing.verifying import ReadOnce, bring, changed, check, unpack_sql, with_change
from tests.mongod import Mongod, unique
from tests.versions import SINCE_3_18

Way = tuple[Any, ...]

# What an import writes for itself, and what readers make anew; params and tags are views.
NO_DATA = ("import_", "schema_", "system.", "trace_sums", "params", "tags")
# The numbers given out: another test.
APART = ("counters",)


class Change(NamedTuple):
    collection: str
    key: Any
    # What a difference of the document may be named after.
    names: frozenset[str]
    path: Way
    how: str
    document: Document

    def __str__(self) -> str:
        return f"{self.collection} {self.key}: {'.'.join(map(str, self.path))} {self.how}"


def _is_allowed(change: Change, before: Document) -> bool:
    """The fields that may say something else, as long as it is a number like theirs."""
    if len(change.path) != 1:
        return False
    (field,) = change.path
    new = change.document.get(field)
    is_count = isinstance(new, int) and not isinstance(new, bool) and new >= 0
    match change.collection, field:
        # Counts changes of stages and aliases, which may have been taken back.
        case "registered_models", "revision":
            return is_count
        # Counts additions of items, which may have been taken out again.
        case "review_queues", "additions":
            return is_count
        # Counts changes, which may have been taken back.
        case "mcp_servers" | "skills", "revision":
            return is_count
        # Counts how often points went to blocks; a reader asks whether there are any.
        case "latest_metrics", "packed":
            return is_count and bool(new) == bool(before[field])
    return False


@dataclass(frozen=True, slots=True)
class Imported:
    """A database that has several things of all kinds, imported: the URIs, and what the source says."""

    uri: str
    source_uri: str
    source: ReadOnce


@pytest.fixture(scope="module")
def imported(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    source_uri = unpack_sql("3.17.2", tmp_path_factory.mktemp("hostile"))
    path = Path(source_uri.removeprefix("sqlite:///"))
    with oracle(path) as (store, _):
        fill(store)
        fill_gateway(store)
        fill_registries(store)
    copy_all(str(path))
    uri = mongod.database_uri(name := unique("hostile"))
    bring(uri, source_uri)
    reader = open_source(source_uri, Wanted())
    source = ReadOnce(reader)
    reader.close()
    yield Imported(uri, source_uri, source)
    with pymongo.MongoClient[Document](mongod.uri) as client:
        client.drop_database(name)


@pytest.fixture
def database(imported: Imported) -> Iterator[Database[Document]]:
    with pymongo.MongoClient[Document](imported.uri) as client:
        yield client.get_default_database()


@pytest.fixture(autouse=True)
def _all_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "SHOWN", 1_000_000)


def _compared(database: Database[Document], source: ReadOnce) -> Outcome:
    target = Target(database, "", "default", Names())
    try:
        return Comparer(source, target).run()
    finally:
        target.close()


def _named(outcome: Outcome) -> set[str]:
    return {each.id for each in outcome.differences} | {
        each.where for troubles in (outcome.damaged, outcome.added) for each in troubles
    }


def _places(value: Any, path: Way = ()) -> Iterator[tuple[Way, Any]]:
    """Every value in a document, maps and lists included, but its id."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, each in value.items():
            if path or key != "_id":
                yield from _places(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(each, (*path, number))


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    """What may stand in the place of a value: of each type of BSON, and what is nearly the same."""
    yield from (
        ("bytes", b"\xff\x00"),
        ("a number", 7),
        ("a fraction", 0.5),
        ("a list", [1]),
        ("a map", {"a": 1}),
        ("a text", "7"),
        ("a time", datetime(2020, 1, 1, tzinfo=UTC)),
        ("a decimal", Decimal128("1.5")),
    )
    if value is None:
        return
    yield "null", None
    if isinstance(value, list):
        yield "a surplus item", [*value, "surplus"]
        if value:
            yield "an item twice", [value[0], *value]
    elif isinstance(value, dict):
        yield "a surplus entry", {**value, "surplus": "text"}
    elif isinstance(value, bool):
        yield from (("the contrary", not value), ("its number", int(value)))
    else:
        if value not in ("", b""):
            yield "nearly the same", changed(value)
        yield "in a list", [value]
        if isinstance(value, int):
            yield from (("half more", value + 0.5), ("no whole number", float(value)), ("digits", str(value)))
            yield "the same as a decimal", Decimal128(str(value))


def _without(document: Any, path: Way) -> Any:
    *above, last = path
    copy = with_change(document, path, None)
    inner = copy
    for step in above:
        inner = inner[step]
    del inner[last]
    return copy


def _changes_of(document: Document) -> Iterator[tuple[Way, str, Document]]:
    yield (), "has a surplus field", {**document, "surplus": 1}
    for path, value in _places(document):
        for how, other in _others(value):
            if canonical(other) != canonical(value):
                yield path, f"is {how}", with_change(document, path, other)
        if value is not None:
            yield path, "is deleted", _without(document, path)


def _kind(path: Way) -> tuple[Any, ...]:
    """Items of a list and entries of a map of the user are many of a kind."""
    maps = ("params", "tags", "texts", "metadata", "expectations", "aliases", "stages")
    # A copy of a version.
    copies = ("resolved",)
    return tuple(
        "*"
        if isinstance(step, int) or (number and path[0] in maps) or set(path[:number]) & {*copies, "tags"}
        else step
        for number, step in enumerate(path)
    )


def _changes(database: Database[Document]) -> Iterator[Change]:
    """Each change of each kind of field once, spread evenly over the documents that have such a field."""
    for name in sorted(database.list_collection_names()):
        if name.startswith(NO_DATA) or name in APART:
            continue
        candidates: dict[tuple[Way, str], list[Change]] = {}
        for document in database[name].find():
            for path, how, new in _changes_of(document):
                change = Change(name, document["_id"], NAMES[name](document), path, how, new)
                if not _is_allowed(change, document):
                    candidates.setdefault((_kind(path), how), []).append(change)
        made: Counter[frozenset[str]] = Counter()
        for some in sorted(candidates.values(), key=len):
            chosen = min(some, key=lambda change: made[change.names])
            made[chosen.names] += 1
            yield chosen


def _by_id(document: Document) -> frozenset[str]:
    return frozenset({str(document["_id"])})


def _by(*fields: str, between: str = "/") -> Callable[[Document], frozenset[str]]:
    return lambda document: frozenset({between.join(str(document[field]) for field in fields)})


def _of_metric(document: Document) -> frozenset[str]:
    run, key, *_ = document["_id"].split("|")
    return frozenset({f"{run} {key}", document["_id"]})


# The name that a comparison has for a document.
NAMES: dict[str, Callable[[Document], frozenset[str]]] = {
    "experiments": _by_id,
    "runs": _by_id,
    "latest_metrics": _of_metric,
    "metrics": _of_metric,
    "datasets": _by("experiment_id", "name", "digest"),
    "logged_models": _by_id,
    "logged_model_metrics": _by("model_id"),
    "traces": _by_id,
    "spans": _by_id,
    "span_payloads": lambda document: frozenset({document["_id"].rsplit("|", 2)[0]}),
    "assessments": _by_id,
    "evaluation_datasets": _by_id,
    "evaluation_dataset_records": _by("record_id"),
    "entity_associations": _by("source_id", "destination_id", between=" "),
    "registered_models": _by("name"),
    "model_versions": _by("name", "version"),
    "webhooks": _by_id,
    **dict.fromkeys(("label_schemas", "review_queues", "review_queue_items", "issues", "scorers"), _by_id),
    **dict.fromkeys(
        (
            *("gateway_secrets", "gateway_models", "gateway_endpoints", "gateway_bindings"),
            *("gateway_budgets", "gateway_guardrails"),
        ),
        _by_id,
    ),
    "mcp_servers": _by("name"),
    "mcp_contents": lambda content: frozenset({content["_id"].split("|")[1]}),
    **({"skills": _by("organization", "name", between="|")} if SINCE_3_18 else {}),
}


def _rounds(changes: list[Change]) -> Iterator[list[Change]]:
    """Changes that can be made at once, since each has a name of its own."""
    left = changes
    while left:
        taken: set[str] = set()
        now, later = [], []
        for change in left:
            if change.names & taken:
                later.append(change)
            else:
                taken |= change.names
                now.append(change)
        yield now
        left = later


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_change_of_a_document_stays_unnoticed(imported: Imported, database: Database[Document]) -> None:
    source = imported.source
    originals = {name: {each["_id"]: each for each in database[name].find()} for name in NAMES}
    changes = list(_changes(database))
    missed = []
    for now in _rounds(changes):
        made = _make(database, now)
        named = _all_named(database, source)
        missed += [str(change) for change in made if not change.names & named]
        _undo(database, made, originals)
    assert not missed, "\n".join(missed)
    assert len(changes) > 1_000
    assert {change.collection for change in changes} == set(NAMES)
    assert _compared(database, source).equal


def _make(database: Database[Document], changes: list[Change]) -> list[Change]:
    """Those that are made; the others an index refuses."""
    refused: set[int] = set()
    for name, some in _by_collection(changes).items():
        operations = [ReplaceOne({"_id": change.key}, change.document) for change in some]
        try:
            database[name].bulk_write(operations, ordered=False)
        except BulkWriteError as error:
            refused |= {id(some[each["index"]]) for each in error.details["writeErrors"]}
    return [change for change in changes if id(change) not in refused]


def _undo(
    database: Database[Document], made: list[Change], originals: dict[str, dict[Any, Document]]
) -> None:
    """The last first: one may hold what the one before it had to give up for it, such as a unique name."""
    for name, some in _by_collection(made[::-1]).items():
        database[name].bulk_write(
            [ReplaceOne({"_id": change.key}, originals[name][change.key]) for change in some]
        )


def _by_collection(changes: list[Change]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.collection, []).append(change)
    return found


def _all_named(database: Database[Document], source: ReadOnce) -> set[str]:
    """What a comparison names; associations, whose ids are drawn, by what belongs together."""
    named = _named(_compared(database, source))
    for each in source.entities("entity_association"):
        if each.id in named:
            named.add(f"{each.fields['source_id']} {each.fields['destination_id']}")
    return named


# A document more of each kind, which belongs to something that was imported. Not asked about: other
# experiments, models, webhooks, evaluation datasets, MCP servers, skills and things of the gateway, which
# belong to nothing of the source.
SURPLUS: dict[str, Callable[[Document], Document]] = {
    "runs": lambda run: {**run, "_id": "surplus"},
    "latest_metrics": lambda head: {**head, "_id": f"{head['run_uuid']}|surplus", "key": "surplus"},
    "metrics": lambda block: {**block, "_id": f"{block['_id']}0"},
    "datasets": lambda dataset: {**dataset, "_id": "surplus", "name": "surplus"},
    "logged_models": lambda model: {**model, "_id": "surplus"},
    "logged_model_metrics": lambda point: {**point, "_id": f"{point['_id']}0"},
    "traces": lambda trace: {**trace, "_id": "surplus"},
    "spans": lambda span: {**span, "_id": f"{span['trace_id']}|surplus"},
    "span_payloads": lambda piece: {**piece, "_id": f"{piece['_id']}0"},
    "assessments": lambda assessment: {**assessment, "_id": "surplus"},
    "evaluation_dataset_records": lambda record: {**record, "_id": f"{record['_id']}0"},
    "entity_associations": lambda tie: {**tie, "_id": "surplus"},
    "model_versions": lambda version: {**version, "_id": f"{version['model']}|surplus", "version": 99},
    "label_schemas": lambda question: {**question, "_id": "surplus", "name": "surplus"},
    "review_queues": lambda queue: {**queue, "_id": "surplus", "name_key": "surplus"},
    "review_queue_items": lambda item: {**item, "_id": f"{item['queue_id']}|surplus"},
    "issues": lambda issue: {**issue, "_id": "surplus"},
    "scorers": lambda scorer: {**scorer, "_id": "surplus", "name": "surplus"},
    "gateway_bindings": lambda binding: {**binding, "_id": f"{binding['_id']}0", "resource_id": "surplus"},
    "mcp_contents": lambda content: {**content, "_id": f"{content['_id']}0"},
}
# What people make in a target while they use it does not contradict the source: it is named.
NEW_THINGS = {
    *("runs", "datasets", "logged_models", "traces", "model_versions"),
    *("label_schemas", "review_queues", "issues", "scorers"),
}


@pytest.mark.slow
def test_surplus_documents_are_named(imported: Imported, database: Database[Document]) -> None:
    source = imported.source
    surplus = {name: make(database[name].find_one(sort=[("_id", -1)])) for name, make in SURPLUS.items()}
    for name in NEW_THINGS:
        database[name].insert_one(surplus[name])
    outcome = _compared(database, source)
    for name in NEW_THINGS:
        database[name].delete_one({"_id": surplus[name]["_id"]})
    assert sorted(each.where for each in outcome.added) == sorted(
        f'"{surplus[name]["_id"]}"' for name in NEW_THINGS
    )
    assert outcome.equal
    for name in SURPLUS.keys() - NEW_THINGS:
        database[name].insert_one(surplus[name])
        outcome = _compared(database, source)
        database[name].delete_one({"_id": surplus[name]["_id"]})
        assert not outcome.equal, name
        assert not outcome.added, name
    assert _compared(database, source).equal


def test_missing_documents_are_named(imported: Imported, database: Database[Document]) -> None:
    source = imported.source
    gone: dict[str, Document] = {}
    taken: set[str] = set()
    for name in NAMES:
        gone[name] = next(each for each in database[name].find() if not NAMES[name](each) & taken)
        taken |= NAMES[name](gone[name])
        database[name].delete_one({"_id": gone[name]["_id"]})
    named = _all_named(database, source)
    for name, document in gone.items():
        database[name].insert_one(document)
    assert [name for name, document in gone.items() if not NAMES[name](document) & named] == []
    assert _compared(database, source).equal


def test_missing_and_changed_indexes_are_named(imported: Imported, database: Database[Document]) -> None:
    uri, source = imported.uri, imported.source_uri
    database["runs"].drop_index("by_start_time")
    database["datasets"].drop_index("name_digest_unique")
    database["datasets"].create_index(
        [("experiment_id", 1), ("name", 1), ("digest", 1)], name="name_digest_unique"
    )
    found = check(uri, source)
    indexes = {index.document["name"]: index for index in RunFields.Settings.indexes}
    database["runs"].create_indexes([indexes["by_start_time"]])
    database["datasets"].drop_index("name_digest_unique")
    database["datasets"].create_indexes(DatasetFields.Settings.indexes)
    damaged = [(each.kind, each.where) for each in found.outcome.damaged]
    assert sorted(damaged) == [("index", "datasets.name_digest_unique"), ("index", "runs.by_start_time")]
    assert found.exit_code == 1
    assert check(uri, source).equal


def test_the_number_of_the_next_experiment_is_free(imported: Imported, database: Database[Document]) -> None:
    for last in (2, "9", 9.5, None):
        before = database["counters"].find_one_and_update({"_id": "experiments"}, {"$set": {"last": last}})
        outcome = _compared(database, imported.source)
        database["counters"].replace_one({"_id": "experiments"}, before)
        assert [each.kind for each in outcome.damaged] == ["counter"], last
    database["counters"].update_one({"_id": "experiments"}, {"$inc": {"last": 5}})
    assert _compared(database, imported.source).equal
