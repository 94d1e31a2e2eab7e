"""Imported GenAI documents are those that the store makes itself of the same things."""

import json
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Assessment, Span, TraceInfo
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.documents.plain import Document
from genesis_flow.importers.engine import Options, run_import
from genesis_flow.migrate.config import load_config
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.sql_databases import ARTIFACT_ROOT, oracle, unpacked
from tests.mongod import Mongod, unique

Documents = dict[str, Document]
SPANS_ONLY, STATED = f"tr-{8192:032x}", f"tr-{4096:032x}"


class Both:
    """The databases: one imported, one filled by calls, with what the calls were given."""

    def __init__(self, imported: Any, made: Any, ours: MongoDBStore, theirs: SqlAlchemyStore) -> None:
        self.imported, self.made, self.ours, self.theirs = imported, made, ours, theirs

    def documents(self, collection: str, query: Document) -> tuple[Documents, Documents]:
        both = [
            {each["_id"]: each for each in database[collection].find(query)}
            for database in (self.imported, self.made)
        ]
        return both[0], both[1]


@pytest.fixture(scope="module")
def both(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("documents")
    names = (unique("imported"), unique("made"))
    imported, made = (mongod.database_uri(name) for name in names)
    run_import(load_config(imported, environ={}), f"sqlite:///{unpacked('3.17.2', folder)}", Options())
    ours = MongoDBStore(made, ARTIFACT_ROOT)
    with (
        oracle(unpacked("3.17.2", folder, "theirs.db")) as (theirs, _),
        pymongo.MongoClient[Document](mongod.uri) as client,
    ):
        for number in ("1", "2", "3"):
            experiment = theirs.get_experiment(number)
            assert ours.create_experiment(experiment.name, experiment.artifact_location) == number
        yield Both(client[names[0]], client[names[1]], ours, theirs)
        for name in names:
            client.drop_database(name)


def spans_of(store: Any, trace_id: str) -> list[Span]:
    (trace,) = store.batch_get_traces([trace_id])
    return list(trace.data.spans)


def compared(documents: tuple[Documents, Documents], *left_out: str) -> None:
    ours, theirs = documents
    assert ours
    assert sorted(ours) == sorted(theirs)
    for identifier, document in ours.items():
        for each in (document, theirs[identifier]):
            # When a trace was written is its mark's, and told by the server's clock.
            for field in (*left_out, "touched"):
                each.pop(field, None)
            if "content" in each:
                each["content"] = json.loads(each["content"])
        assert document == theirs[identifier]


def test_a_trace_that_spans_made(both: Both) -> None:
    both.ours.log_spans("1", spans_of(both.theirs, SPANS_ONLY))
    # A long content is named after its text, and the text of an entity that was read is written anew.
    spans = both.documents("spans", {"trace_id": SPANS_ONLY})
    lengths = [sorted(each.get("chunks", 0) for each in side.values()) for side in spans]
    assert lengths == [[0, 0, 0, 1]] * 2
    compared(spans, "payload")
    # What the spans told of the process that made them is not in the spans that were read.
    compared(both.documents("traces", {"_id": SPANS_ONLY}), "tags")


def test_a_trace_that_was_stated(both: Both) -> None:
    info: TraceInfo = both.theirs.get_trace_info(STATED)
    assessments: list[Assessment] = info.assessments
    both.ours.start_trace(info)
    assert len(assessments) == 6
    # The calls between the fixture's, which are counted, are not repeated; links are a call of their own.
    compared(both.documents("traces", {"_id": STATED}), "generation", "linked_runs", "linked_prompts")
    compared(both.documents("assessments", {"trace_id": STATED}), "valid")


def test_links_of_a_trace(both: Both) -> None:
    (imported,) = both.imported["traces"].find({"_id": STATED})
    child = both.imported["runs"].find_one({"name": "child"})["_id"]
    assert (imported["linked_runs"], imported["linked_prompts"]) == ([child], ["greeting/1"])


def test_an_evaluation_dataset(both: Both) -> None:
    (imported,) = both.imported["evaluation_datasets"].find({"name": "questions ü"})
    dataset_id = imported["_id"]
    theirs, _ = both.theirs._load_dataset_records(dataset_id)
    created = both.ours.create_dataset("questions ü", {"mlflow.user": "ada", "a.b": "c"}, ["1", "2"])
    both.ours.upsert_dataset_records(
        created.dataset_id,
        [
            {
                "inputs": record.inputs,
                "outputs": record.outputs,
                "expectations": record.expectations,
                "tags": record.tags,
                "source": record.source.to_dict() if record.source else None,
            }
            for record in theirs
        ],
    )
    imported_records = _by_inputs(both.imported, dataset_id)
    made_records = _by_inputs(both.made, created.dataset_id)
    assert len(imported_records) == 3
    assert imported_records == made_records
    (made,) = both.made["evaluation_datasets"].find({"_id": created.dataset_id})
    assert imported["tags"] == made["tags"]
    assert json.loads(imported["profile"]) == json.loads(made["profile"])
    assert json.loads(imported["schema"]) == json.loads(made["schema"])
    ties = [
        {
            (each["source_type"], each["destination_type"], each["destination_id"])
            for each in database["entity_associations"].find({"source_id": identifier})
        }
        for database, identifier in ((both.imported, dataset_id), (both.made, created.dataset_id))
    ]
    assert ties[0] == ties[1]


def _by_inputs(database: Any, dataset_id: str) -> Documents:
    drawn = ("_id", "record_id", "dataset_id", "created_time", "last_update_time")
    records = {}
    for record in database["evaluation_dataset_records"].find({"dataset_id": dataset_id}):
        assert record["_id"].startswith(f"{dataset_id}|")
        digest = record["_id"].partition("|")[2]
        records[digest] = {field: value for field, value in record.items() if field not in drawn}
    return records
