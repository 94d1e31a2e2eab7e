"""What a run read and made: datasets, models, the list of its models in a tag."""

import json
from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput
from mlflow.models import Model

from tests.contract.pair import Pair
from tests.contract.scenes import new_run

CONTEXT = "mlflow.data.context"


def dataset(name: str = "data", digest: str = "1", **fields: Any) -> Dataset:
    return Dataset(name, digest, **{"source_type": "local", "source": "here", **fields})


def used(
    name: str = "data", digest: str = "1", tags: dict[str, str] | None = None, **fields: Any
) -> DatasetInput:
    entries = [InputTag(key, value) for key, value in (tags or {}).items()]
    return DatasetInput(dataset(name, digest, **fields), entries)


@pytest.fixture
def run_id(pair: Pair) -> str:
    return new_run(pair)


def test_datasets_come_back_with_the_run(pair: Pair, run_id: str) -> None:
    pair.log_inputs(run_id, [used(schema="{}", profile="p"), used("two", tags={CONTEXT: "train", "k": ""})])
    pair.log_inputs(run_id, [used("three", "d" * 36)])
    assert len(pair.get_run(run_id).inputs.dataset_inputs) == 3
    found, _ = pair._search_runs(["0"], None, 1, 10, None, None)
    assert len(found[0].inputs.dataset_inputs) == 3


def test_a_dataset_is_one_within_an_experiment(pair: Pair, run_id: str) -> None:
    pair.log_inputs(run_id, [used(schema="first")])
    second = new_run(pair)
    pair.log_inputs(second, [used(schema="second", source="elsewhere")])
    assert pair.get_run(second).inputs.dataset_inputs[0].dataset.schema == "first"
    elsewhere = new_run(pair, pair.create_experiment("other"))
    pair.log_inputs(elsewhere, [used(schema="other")])
    assert pair.get_run(elsewhere).inputs.dataset_inputs[0].dataset.schema == "other"


def test_an_input_keeps_its_first_tags(pair: Pair, run_id: str) -> None:
    pair.log_inputs(run_id, [used(tags={CONTEXT: "train"}), used(tags={CONTEXT: "test"})])
    pair.log_inputs(run_id, [used(tags={CONTEXT: "again"}), used("new", tags={CONTEXT: "again"})])
    inputs = pair.get_run(run_id).inputs.dataset_inputs
    assert sorted(tag.value for each in inputs for tag in each.tags) == ["again", "train"]
    contexts = {(summary.name, summary.context) for summary in pair._search_datasets(["0"])}
    assert contexts == {("data", "train"), ("new", "again")}


def test_models(pair: Pair, run_id: str) -> None:
    pair.log_inputs(run_id, models=[LoggedModelInput("m-1"), LoggedModelInput("m-2")])
    pair.log_inputs(run_id, [used()], [LoggedModelInput("m-2"), LoggedModelInput("m-3")])
    pair.log_outputs(run_id, [LoggedModelOutput("m-4", 0), LoggedModelOutput("m-5", 2**40)])
    pair.log_outputs(run_id, [])
    run = pair.get_run(run_id)
    assert len(run.inputs.model_inputs) == 3
    assert len(run.outputs.model_outputs) == 2
    pair._search_runs(["0"], None, 1, 10, None, None)


def test_nothing_to_log(pair: Pair, run_id: str) -> None:
    pair.log_inputs(run_id)
    pair.log_inputs(run_id, [], [])
    pair.get_run(run_id)


@pytest.mark.parametrize(
    "broken",
    [
        DatasetInput(None, []),
        used(None),
        used("data", None),
        used(source_type=None),
        used(source=None),
        used("n" * 501),
        used("data", "d" * 37),
        used(source="s" * 65_536),
        used(schema="s" * 1_048_576),
        used(tags={"k" * 256: "v"}),
        used(tags={"k": "v" * 501}),
        DatasetInput(dataset(), [InputTag(None, "v")]),
        DatasetInput(dataset(), [InputTag("k", None)]),
    ],
)
def test_bad_datasets_are_refused(pair: Pair, run_id: str, broken: DatasetInput) -> None:
    refusal = pair.refused("log_inputs", run_id, [used("good"), broken])
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert pair.get_run(run_id).inputs.dataset_inputs == []
    assert pair._search_datasets(["0"]) == []


def test_datasets_must_be_a_list(pair: Pair, run_id: str) -> None:
    ours, theirs = pair.both("log_inputs", run_id, used())
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "TypeError")
    assert str(ours.error) == str(theirs.error)


def test_dataset_summaries(pair: Pair) -> None:
    first, second = (pair.create_experiment(name) for name in ("first", "second"))
    for experiment_id, context in ((first, "train"), (first, "test"), (second, "train"), (first, None)):
        tags = {CONTEXT: context, "other": "x"} if context else {"other": "x"}
        pair.log_inputs(new_run(pair, experiment_id), [used(tags=tags), used(f"of {context}", tags=tags)])
    assert len(pair._search_datasets([first])) == 6
    assert len(pair._search_datasets([first, second])) == 8
    assert pair._search_datasets(["0"]) == []
    assert pair._search_datasets([]) == []
    assert pair._search_datasets(["99"]) == []
    assert pair.refused("_search_datasets", ["x"]).error_code == "INVALID_PARAMETER_VALUE"


def test_the_models_of_a_run_are_listed_in_its_tag(pair: Pair, run_id: str) -> None:
    for path in ("one", "two"):
        model = Model(artifact_path=path, run_id=run_id, utc_time_created="now", model_uuid=path)
        pair.record_logged_model(run_id, model)
    listed = json.loads(pair.get_run(run_id).data.tags["mlflow.log-model.history"])
    assert [model["artifact_path"] for model in listed] == ["one", "two"]


def test_only_models_are_listed(pair: Pair, run_id: str) -> None:
    ours, theirs = pair.both("record_logged_model", run_id, {"artifact_path": "one"})
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "TypeError")
    assert str(ours.error) == str(theirs.error)
    pair.delete_run(run_id)
    model = Model(artifact_path="one", run_id=run_id)
    assert pair.refused("record_logged_model", run_id, model).error_code == "INVALID_PARAMETER_VALUE"
