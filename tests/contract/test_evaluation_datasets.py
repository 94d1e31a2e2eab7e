"""Evaluation datasets: their life, records, experiments and search."""

import copy
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from mlflow.entities import DatasetRecordSource
from mlflow.entities.entity_type import EntityAssociationType
from mlflow.store.tracking.dbmodels.models import SqlEvaluationDatasetRecord

from genesis_flow.areas.evaluation.documents import DatasetRecordFields
from tests.contract.pair import Pair
from tests.contract.scenes import Clock

UNKNOWN = "d-" + "0" * 32
DATASET, EXPERIMENT = EntityAssociationType.EVALUATION_DATASET, EntityAssociationType.EXPERIMENT


@pytest.fixture(autouse=True)
def same_record_ids(pair: Pair, contract_database: Any) -> Iterator[None]:
    """The oracle gives a record the id that the store under test has given it."""
    records = contract_database[DatasetRecordFields.Settings.name]
    original = SqlEvaluationDatasetRecord.from_mlflow_entity.__func__

    def told(cls: Any, record: Any, input_hash: str) -> Any:
        known = records.find_one({"_id": f"{record.dataset_id}|{input_hash}"}, {"record_id": 1})
        if known is not None:
            record.dataset_record_id = known["record_id"]
        return original(cls, record, input_hash)

    with mock.patch.object(SqlEvaluationDatasetRecord, "from_mlflow_entity", classmethod(told)):
        yield


@pytest.fixture
def dataset_id(pair: Pair, clock: Clock) -> str:
    clock.tick()
    made: str = pair.create_dataset("data", {"mlflow.user": "ann", "k": "v"}).dataset_id
    return made


def upsert(pair: Pair, clock: Clock, dataset_id: str, records: list[dict[str, Any]]) -> dict[str, int]:
    """Put records into both stores, and compare what these then hold."""
    clock.tick()
    ours, theirs = pair.both("upsert_dataset_records", dataset_id, copy.deepcopy(records))
    assert (ours.error, theirs.error) == (None, None)
    assert ours.result == theirs.result
    pair.get_dataset(dataset_id)
    pair._load_dataset_records(dataset_id)
    return dict(ours.result)


@pytest.mark.parametrize(
    "tags", [None, {}, {"a.b": "1", "$c": "", "d%": "ü"}, {"mlflow.user": "ann", "team": "x"}]
)
def test_a_new_dataset(pair: Pair, clock: Clock, tags: dict[str, str] | None) -> None:
    clock.tick()
    made = pair.create_dataset("data", tags)
    assert pair.get_dataset(made.dataset_id).tags == (tags or {})
    assert made.experiment_ids == []
    assert pair.ours.create_dataset("twice", tags, ["0", "0"]).experiment_ids == ["0"]
    again = pair.create_dataset("data", tags)
    assert again.dataset_id != made.dataset_id


def test_unknown_datasets(pair: Pair, clock: Clock) -> None:
    assert pair.refused("get_dataset", UNKNOWN).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("set_dataset_tags", UNKNOWN, {"a": "b"}).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("set_dataset_tags", UNKNOWN, {}).error_code == "RESOURCE_DOES_NOT_EXIST"
    for method in ("add_dataset_to_experiments", "remove_dataset_from_experiments"):
        assert pair.refused(method, UNKNOWN, ["0"]).error_code == "RESOURCE_DOES_NOT_EXIST"
    pair.delete_dataset(UNKNOWN)
    pair.delete_dataset_tag(UNKNOWN, "a")
    assert pair.get_dataset_experiment_ids(UNKNOWN) == []
    assert pair._load_dataset_records(UNKNOWN) == ([], None)
    assert pair.delete_dataset_records(UNKNOWN, ["dr-1"]) == 0
    # SQL fails on its foreign key, with the statement in the message.
    ours, theirs = pair.both("upsert_dataset_records", UNKNOWN, [{"inputs": {"q": 1}}])
    assert ours.code == "RESOURCE_DOES_NOT_EXIST"
    assert theirs.error is not None


def test_tags(pair: Pair, dataset_id: str) -> None:
    pair.set_dataset_tags(dataset_id, {"k": "new", "n": 5, "a.b": "c", "none": None, "list": [1]})
    assert pair.get_dataset(dataset_id).tags["n"] == "5"
    pair.delete_dataset_tag(dataset_id, "a.b")
    pair.delete_dataset_tag(dataset_id, "never")
    pair.set_dataset_tags(dataset_id, {})
    pair.get_dataset(dataset_id)


RECORDS: list[dict[str, Any]] = [
    {"inputs": {"q": "one", "n": 1}, "expectations": {"a": 1.5}, "tags": {"t": "v"}},
    {"inputs": {"q": "two"}, "outputs": {"answer": "x"}},
    {"inputs": {"q": "three"}, "outputs": "text", "tags": {"mlflow.user": "bob"}},
    {"inputs": {"q": "four"}, "outputs": None, "expectations": None, "tags": None},
    {"inputs": {"q": "five"}, "outputs": [1, {"a": None}], "expectations": {}, "tags": {}},
    {"inputs": {}},
    {"inputs": {"a.b": {"$c": [1, 2.5, True, None, 2**70]}, "": "empty", "ü\u0000": 1e308}},
    {"inputs": {"q": "six"}, "expectations": {"a.b": 1, "$c": {"d": []}, "": None}, "tags": {"x.y": "1"}},
    {"inputs": {"q": "seven"}, "source": {"source_type": "TRACE", "source_data": {"trace_id": "tr-1"}}},
    {"inputs": {"q": "eight"}, "source": {"source_type": "human", "source_data": {"source_id": "s"}}},
    {"inputs": {"q": "nine"}, "source": DatasetRecordSource("CODE", {"x": 1})},
    {"inputs": {"q": "ten"}, "source": {"source_type": "DOCUMENT"}},
]


def test_records(pair: Pair, clock: Clock, dataset_id: str) -> None:
    assert upsert(pair, clock, dataset_id, RECORDS) == {"inserted": len(RECORDS), "updated": 0}
    records, _ = pair._load_dataset_records(dataset_id)
    assert [record.inputs for record in records] == [record["inputs"] for record in RECORDS]
    assert upsert(pair, clock, dataset_id, RECORDS) == {"inserted": 0, "updated": len(RECORDS)}
    assert upsert(pair, clock, dataset_id, []) == {"inserted": 0, "updated": 0}
    assert json.loads(pair.get_dataset(dataset_id).profile) == {"num_records": len(RECORDS)}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["inputs"])[:20])
def test_each_record_alone(pair: Pair, clock: Clock, dataset_id: str, record: dict[str, Any]) -> None:
    upsert(pair, clock, dataset_id, [record])


@pytest.mark.parametrize(
    "first", [{}, {"outputs": {"z": 1}}, {"expectations": {"a": 1, "b": 2}, "tags": {"t": "1"}}]
)
@pytest.mark.parametrize(
    "second",
    [
        {},
        {"outputs": None},
        {"outputs": {"y": 1}},
        {"expectations": {"b": {"deep": 1}, "c": 3}},
        {"expectations": None, "tags": None},
        {"tags": {"t": "2", "mlflow.user": "bob"}},
        {"source": {"source_type": "HUMAN", "source_data": {}}},
    ],
    ids=str,
)
def test_merging(
    pair: Pair, clock: Clock, dataset_id: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    inputs = {"inputs": {"b": 1, "a": {"y": 1, "x": 2}}}
    upsert(pair, clock, dataset_id, [inputs | first])
    turned = {"inputs": {"a": {"x": 2, "y": 1}, "b": 1}}
    assert upsert(pair, clock, dataset_id, [turned | second]) == {"inserted": 0, "updated": 1}
    assert upsert(pair, clock, dataset_id, [turned | second, turned | first])["updated"] == 2


def test_the_same_inputs_twice_in_a_call(pair: Pair, clock: Clock, dataset_id: str) -> None:
    records = [
        {"inputs": {"q": 1}, "expectations": {"a": 1}},
        {"inputs": {"q": 1}, "expectations": {"a": 2, "b": 3}, "tags": {"t": "v"}},
    ]
    assert upsert(pair, clock, dataset_id, records) == {"inserted": 1, "updated": 1}


def test_the_schema_grows(pair: Pair, clock: Clock, dataset_id: str) -> None:
    for record in (
        {"inputs": {"a": 1, "b": None}},
        {"inputs": {"a": "text", "c": True, "d": [], "e": {}, "f": 1.5}},
        {"inputs": {"g": 1}, "outputs": {"x": 1}, "expectations": {"y": "z"}},
        {"inputs": {"h": 1}, "outputs": "plain"},
    ):
        upsert(pair, clock, dataset_id, [record])
    schema = json.loads(pair.get_dataset(dataset_id).schema)
    assert schema["inputs"]["a"] == "integer"
    assert schema["inputs"]["c"] == "boolean"


def test_outputs_that_were_no_dictionary_and_then_are(pair: Pair, dataset_id: str) -> None:
    """MLflow's store fails on the second record; ours keeps the type that it saw first."""
    pair.upsert_dataset_records(dataset_id, [{"inputs": {"a": 1}, "outputs": "plain"}])
    ours, theirs = pair.both(
        "upsert_dataset_records", dataset_id, [{"inputs": {"a": 2}, "outputs": {"z": 1}}]
    )
    assert ours.error is None
    assert theirs.error is not None
    assert json.loads(pair.ours.get_dataset(dataset_id).schema)["outputs"] == "string"


@pytest.mark.parametrize(
    "record",
    [
        {"inputs": None},
        {"inputs": "text"},
        {"inputs": ["list"]},
        {"inputs": {"a": object()}},
        {"inputs": {"a": {1, 2}}},
        {"inputs": {"a": 1}, "outputs": object()},
        {"inputs": {"a": 1}, "expectations": "text"},
        {"inputs": {"a": 1}, "tags": ["x"]},
        {"inputs": {"a": 1}, "source": {"source_type": "NOTHING"}},
        {"inputs": {"a": 1}, "source": {"nothing": 1}},
        {"inputs": {"a": 1}, "source": "text"},
        {"inputs": {"a": "x" * 16 * 2**20}},
        "no record",
    ],
    # Not the address of an object: all workers must name the tests alike.
    ids=lambda record: str(record).split(" object at")[0][:40],
)
def test_bad_records_are_refused_and_nothing_is_written(pair: Pair, dataset_id: str, record: Any) -> None:
    """MLflow's store raises Python's own errors, or takes what it cannot give back."""
    store = pair.ours
    ours, _ = pair.both("upsert_dataset_records", dataset_id, [{"inputs": {"good": 1}}, record])
    assert ours.code == "INVALID_PARAMETER_VALUE"
    assert store._load_dataset_records(dataset_id) == ([], None)


def test_pages_of_records(pair: Pair, clock: Clock, dataset_id: str) -> None:
    for call in range(3):
        upsert(pair, clock, dataset_id, [{"inputs": {"call": call, "n": n}} for n in range(10)])
    whole, token = pair._load_dataset_records(dataset_id)
    assert (len(whole), token) == (30, None)
    for size in (1, 7, 10, 30, 31):
        assert pair.pages("_load_dataset_records", dataset_id, max_results=size) == whole
    assert pair._load_dataset_records(dataset_id, max_results=0)[0] == whole
    for garbage in ("garbage", "e30="):
        ours, _ = pair.both("_load_dataset_records", dataset_id, 5, garbage)
        assert ours.code == "INVALID_PARAMETER_VALUE"


def test_deleting_records(pair: Pair, clock: Clock, dataset_id: str) -> None:
    other = pair.create_dataset("other").dataset_id
    upsert(pair, clock, dataset_id, [{"inputs": {"n": n}} for n in range(4)])
    upsert(pair, clock, other, [{"inputs": {"n": 0}}])
    ids = [record.dataset_record_id for record in pair._load_dataset_records(dataset_id)[0]]
    assert pair.delete_dataset_records(other, ids) == 0
    assert pair.delete_dataset_records(dataset_id, []) == 0
    assert pair.delete_dataset_records(dataset_id, [ids[1], ids[1], "dr-none"]) == 1
    assert pair.get_dataset(dataset_id).profile == '{"num_records": 3}'
    upsert(pair, clock, dataset_id, [{"inputs": {"n": 1}}])
    ids = [record.dataset_record_id for record in pair._load_dataset_records(dataset_id)[0]]
    assert pair.delete_dataset_records(dataset_id, ids) == 4
    pair.get_dataset(dataset_id)
    assert len(pair._load_dataset_records(other)[0]) == 1


def test_deletion_takes_everything_along(
    pair: Pair, clock: Clock, dataset_id: str, contract_database: Any
) -> None:
    kept = pair.create_dataset("kept", {"k": "v"}, ["0"]).dataset_id
    pair.add_dataset_to_experiments(dataset_id, ["0"])
    for each in (dataset_id, kept):
        upsert(pair, clock, each, RECORDS[:3])
    pair.delete_dataset(dataset_id)
    pair.refused("get_dataset", dataset_id)
    assert pair._load_dataset_records(dataset_id) == ([], None)
    assert pair.get_dataset_experiment_ids(dataset_id) == []
    assert len(pair._load_dataset_records(kept)[0]) == 3
    for name in contract_database.list_collection_names(filter={"type": "collection"}):
        assert not [found for found in contract_database[name].find() if dataset_id in repr(found)]


def test_experiments(pair: Pair, clock: Clock, dataset_id: str) -> None:
    first, second = pair.create_experiment("first"), pair.create_experiment("second")
    clock.tick()
    tied = pair.create_dataset("tied", None, [second, first, "777"])
    assert pair.get_dataset_experiment_ids(tied.dataset_id) == sorted([second, first, "777"])
    pair.add_dataset_to_experiments(dataset_id, [first])
    clock.tick()
    pair.add_dataset_to_experiments(dataset_id, [first, second])
    for unknown in ("99", "abc", "-1"):
        refusal = pair.refused("add_dataset_to_experiments", dataset_id, [first, unknown])
        assert refusal.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert set(pair.ours.get_dataset_experiment_ids(dataset_id)) == {first, second}
    clock.tick()
    pair.remove_dataset_from_experiments(dataset_id, [first, "99"])
    clock.tick()
    pair.remove_dataset_from_experiments(dataset_id, [first])
    assert pair.get_dataset_experiment_ids(dataset_id) == [second]
    pair.delete_experiment(second)
    pair.add_dataset_to_experiments(dataset_id, [second])
    pair.get_dataset(dataset_id)


def test_entities_in_pages(pair: Pair, clock: Clock) -> None:
    datasets = []
    for number in range(6):
        clock.tick()
        datasets.append(pair.create_dataset(f"d{number}", None, ["0", str(number % 2 + 1), "5"]).dataset_id)
    for experiments in ("0", ["0"], ["0", "1"], ["5", "0"], [], "99"):
        arguments = (experiments, EXPERIMENT, DATASET)
        pair.search_entities_by_destination(*arguments)
        for size in (1, 2, 3, 50):
            pair.pages("search_entities_by_destination", *arguments, max_results=size)
    for sources in (datasets[0], datasets, datasets[::2], UNKNOWN):
        pair.search_entities_by_source(sources, DATASET, EXPERIMENT)
        pair.pages("search_entities_by_source", sources, DATASET, EXPERIMENT, max_results=2)
    assert pair.search_entities_by_source(datasets, EntityAssociationType.TRACE, EXPERIMENT) == []
    ours, _ = pair.both("search_entities_by_source", datasets, DATASET, EXPERIMENT, 2, "garbage")
    assert ours.code == "INVALID_PARAMETER_VALUE"


@pytest.fixture
def many(pair: Pair, clock: Clock) -> Pair:
    for number in range(12):
        clock.now += number % 2  # some are of the same time
        tags = {"mlflow.user": "ann" if number % 3 else "bob", "n.o": str(number % 4)}
        made = pair.create_dataset(f"name {number % 5}", tags if number % 6 else None, [str(number % 3)])
        if number % 4 == 0:
            clock.tick()
            pair.upsert_dataset_records(made.dataset_id, [{"inputs": {"n": number}}])
    return pair


SEARCHES: list[dict[str, Any]] = [
    {},
    {"experiment_ids": ["0"]},
    {"experiment_ids": ["1", "2"]},
    {"experiment_ids": ["99"]},
    {"filter_string": "name = 'name 1'"},
    {"filter_string": "name != 'name 1'"},
    {"filter_string": "name LIKE 'name%' AND name ILIKE '%E 2'"},
    {"filter_string": "name IN ('name 1', 'name 2')"},
    {"filter_string": "name > 'name 2' AND name <= 'name 4'"},
    {"filter_string": "created_time > 0"},
    {"filter_string": "last_update_time <= 1700000000000"},
    {"filter_string": "created_by = 'ann'"},
    {"filter_string": "created_by != 'ann'"},
    {"filter_string": "last_updated_by LIKE 'a%'"},
    {"filter_string": "tags.`n.o` = '2'"},
    {"filter_string": "tags.n.o != '2' AND tags.mlflow.user = 'bob'", "experiment_ids": ["0", "1"]},
    {"order_by": ["name"]},
    {"order_by": ["name DESC", "created_time ASC"]},
    {"order_by": ["last_update_time"]},
    {"order_by": ["created_time ASC"]},
]


def test_search(many: Pair) -> None:
    for question in SEARCHES:
        whole = many.search_datasets(**question)
        for size in (5, 12):
            paged = many.pages("search_datasets", **question, max_results=size)
            assert [each.dataset_id for each in paged] == [each.dataset_id for each in whole]


@pytest.mark.parametrize(
    "question",
    [
        {"filter_string": "nothing = 'x'"},
        {"filter_string": "created_time = 'x'"},
        {"filter_string": "created_time LIKE '1'"},
        {"filter_string": "created_time = 1.5"},
        {"filter_string": "tags.x > '1'"},
        {"filter_string": "metrics.x = 1"},
        {"filter_string": "name = 'a' OR name = 'b'"},
        {"filter_string": "name NOT IN ('a')"},
        {"filter_string": "created_by IN ('a')"},
        {"order_by": ["nothing"]},
        {"order_by": ["tags.x"]},
        {"order_by": ["created_by"]},
        {"max_results": 0},
        {"max_results": 60_000},
        {"page_token": "garbage"},
    ],
    ids=str,
)
def test_searches_that_are_refused(pair: Pair, question: dict[str, Any]) -> None:
    ours, theirs = pair.both("search_datasets", **question)
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE")
