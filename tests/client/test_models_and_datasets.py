"""Logged models and evaluation datasets through MLflow's public functions, and what others see of them."""

import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.client.conftest import Run, run_command


@pytest.fixture(scope="module")
def logged(run_program: Run, genesis_uri: str) -> dict[str, Any]:
    answer: dict[str, Any] = run_program("models_and_datasets", genesis_uri, "models and datasets").answer
    return answer


def test_another_process_reads_the_models(logged: dict[str, Any], genesis_uri: str) -> None:
    model = MlflowClient(genesis_uri).get_logged_model(logged["models"][2])
    assert (model.name, str(model.status)) == ("model-2", "READY")
    assert model.params == {"depth": "2"}
    assert model.tags["n"] == "2"
    assert model.source_run_id == logged["run"]
    points = {(metric.value, metric.step, metric.dataset_name) for metric in model.metrics or []}
    assert points == {(2.0, 0, "holdout"), (2.1, 1, "holdout")}


def test_models_are_found_by_their_metrics_on_a_dataset(logged: dict[str, Any]) -> None:
    assert logged["best"] == [logged["models"][2]]


def test_records_are_merged_and_read_in_their_order(logged: dict[str, Any]) -> None:
    assert logged["questions"] == [{"question": "0"}, {"question": "1"}, {"question": "2"}]
    assert logged["expectations"] == [{"answer": 0, "tone": "kind"}, {"answer": 1}, {"answer": 2}]


def test_a_dataset_belongs_to_its_experiment(logged: dict[str, Any]) -> None:
    assert logged["experiments"] == [logged["experiment"]]
    assert logged["found"] == ["questions of models and datasets"]


def test_gc_removes_deleted_models_and_only_those(
    logged: dict[str, Any], genesis_uri: str, tmp_path: Path
) -> None:
    removed, kept, _ = logged["models"]
    client = MlflowClient(genesis_uri)
    client.delete_logged_model(removed)
    collected = run_command(
        *(sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", genesis_uri),
        *("--logged-model-ids", removed),
        cwd=tmp_path,
        MLFLOW_TRACKING_URI=genesis_uri,
    )
    assert collected.code == 0, collected.stderr
    with pytest.raises(MlflowException, match=f"Logged model with ID '{removed}' not found"):
        client._tracking_client.store.get_logged_model(removed, allow_deleted=True)
    assert client.get_logged_model(kept).model_id == kept
