"""What `mlflow gc` uses: nothing of a run or experiment that is deleted for good stays anywhere."""

from typing import Any

import pytest
from bson import json_util
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from pymongo.database import Database

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, Clock, new_run


def fill(pair: Pair, run_id: str) -> None:
    """Points in a tail and in blocks, params, tags, an input."""
    many = [Metric("many", float(step), 1, step) for step in range(300)]
    pair.log_batch(run_id, [*many, Metric("one", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t", "v")])
    pair.log_inputs(run_id, [DatasetInput(Dataset("data", "1", "local", "here"), [])])


def mentions(database: Database[dict[str, Any]], text: str) -> list[str]:
    """The collections with a document in which ``text`` occurs anywhere."""
    names = [found["name"] for found in database.list_collections(filter={"type": "collection"})]
    return [name for name in names if any(text in json_util.dumps(found) for found in database[name].find())]


def test_a_run_deleted_for_good_is_mentioned_nowhere(
    pair: Pair, contract_database: Database[dict[str, Any]]
) -> None:
    gone, kept = new_run(pair), new_run(pair)
    fill(pair, gone)
    fill(pair, kept)
    assert mentions(contract_database, gone) == mentions(contract_database, kept) != []
    pair.delete_run(gone)
    pair._hard_delete_run(gone)
    assert mentions(contract_database, gone) == []
    assert pair.refused("get_run", gone).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("_hard_delete_run", gone).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.get_metric_history(gone, "many") == []
    assert len(pair.get_metric_history(kept, "many")) == 300
    pair.get_run(kept)
    pair._search_datasets(["0"])


def test_an_experiment_deleted_for_good_takes_everything_with_it(
    pair: Pair, contract_database: Database[dict[str, Any]]
) -> None:
    experiment_id = pair.create_experiment("gone")
    runs = [new_run(pair, experiment_id) for _ in range(3)]
    for run_id in runs:
        fill(pair, run_id)
    kept = new_run(pair)
    fill(pair, kept)
    refusal = pair.refused("_hard_delete_experiment", experiment_id)
    assert refusal.error_code == "RESOURCE_DOES_NOT_EXIST", "it is not deleted yet"
    pair.delete_experiment(experiment_id)
    pair._hard_delete_experiment(experiment_id)
    for run_id in runs:
        assert mentions(contract_database, run_id) == []
        pair.refused("get_run", run_id)
    for collection in contract_database.list_collection_names(filter={"type": "collection"}):
        assert contract_database[collection].count_documents({"experiment_id": int(experiment_id)}) == 0
    assert pair.refused("get_experiment", experiment_id).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair._search_datasets([experiment_id]) == []
    assert len(pair._search_datasets(["0"])) == 1
    pair.get_run(kept)
    assert pair.get_experiment_by_name("gone") is None
    pair.ours.create_experiment("gone")


@pytest.mark.parametrize("bad", ["abc", "99"])
def test_unknown_experiments_cannot_be_deleted_for_good(pair: Pair, bad: str) -> None:
    pair.refused("_hard_delete_experiment", bad)


CLOCKS = (
    "genesis_flow.areas.experiments.methods",
    "genesis_flow.areas.runs.garbage",
    "genesis_flow.areas.runs.methods",
    "mlflow.store.tracking.sqlalchemy_store",
)


def test_deleted_runs_are_found_by_their_age(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in CLOCKS:
        monkeypatch.setattr(f"{module}.get_current_time_millis", clock.read)
    active, first, second = (new_run(pair) for _ in range(3))
    assert pair._get_deleted_runs() == []
    pair.delete_run(first)
    clock.now += 600
    pair.delete_run(second)
    assert sorted(pair._get_deleted_runs()) == sorted([first, second])
    assert pair._get_deleted_runs(300) == [first]
    assert pair._get_deleted_runs(older_than=60_000) == []
    pair.restore_run(first)
    assert pair._get_deleted_runs() == [second]
    pair.delete_experiment("0")
    assert active in pair._get_deleted_runs()


def test_an_unknown_run_cannot_be_deleted_for_good(pair: Pair) -> None:
    assert pair.refused("_hard_delete_run", UNKNOWN_RUN).error_code == "RESOURCE_DOES_NOT_EXIST"
