"""MLflow's own commands with our URI."""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.client.conftest import Outcome, Run, read, run_command


@pytest.fixture
def mlflow(genesis_uri: str, tmp_path: Path):
    def run(*arguments: str) -> Outcome:
        outcome = run_command(
            sys.executable, "-m", "mlflow", *arguments, cwd=tmp_path, MLFLOW_TRACKING_URI=genesis_uri
        )
        assert outcome.code == 0, outcome.stderr
        return outcome

    return run


def test_experiments_create_and_search(mlflow, unique_name: str) -> None:
    created = mlflow("experiments", "create", "--experiment-name", unique_name)
    assert unique_name in created.stdout
    assert unique_name in mlflow("experiments", "search").stdout


def test_runs_list(mlflow, run_program: Run, genesis_uri: str, unique_name: str) -> None:
    trained = run_program("train", genesis_uri, unique_name).answer
    listed = mlflow("runs", "list", "--experiment-id", trained["experiment"]).stdout
    assert all(run_id in listed for run_id in (trained["parent"], *trained["children"]))


def test_gc_removes_deleted_runs_and_only_those(
    mlflow, run_program: Run, genesis_uri: str, unique_name: str, data_directory: Path
) -> None:
    trained = run_program("train", genesis_uri, unique_name).answer
    removed, kept = trained["children"]
    MlflowClient(genesis_uri).delete_run(removed)
    told = mlflow("gc", "--backend-store-uri", genesis_uri, "--run-ids", removed).stdout
    assert told.splitlines()[-1] == "Deleted for good: 1 run, 0 logged models, 0 experiments."
    with pytest.raises(MlflowException, match=f"Run with id={removed} not found"):
        read(genesis_uri, removed)
    assert not list(data_directory.glob(f"artifacts/**/{removed}/**/notes.txt"))
    assert read(genesis_uri, kept)["params"]["learning.rate"] == "0.2"


def test_gc_that_finds_nothing_says_so(mlflow) -> None:
    told = mlflow("gc", "--older-than", "1000d").stdout
    assert told == "Deleted for good: 0 runs, 0 logged models, 0 experiments.\n"


def test_gc_that_fails_says_what_it_had_deleted(
    genesis_uri: str, tmp_path: Path, run_program: Run, unique_name: str
) -> None:
    trained = run_program("train", genesis_uri, unique_name).answer
    removed, kept = trained["children"]
    client = MlflowClient(genesis_uri)
    model = client.create_logged_model(trained["experiment"])
    client.delete_logged_model(model.model_id)
    client.delete_run(removed)
    chosen = ("--run-ids", removed, "--logged-model-ids", f"{model.model_id},m-unknown")
    command = (sys.executable, "-m", "mlflow", "gc", *chosen)
    outcome = run_command(*command, cwd=tmp_path, MLFLOW_TRACKING_URI=genesis_uri)
    assert outcome.code == 1
    *_, last = outcome.stdout.splitlines()
    models = outcome.stdout.count("Logged model with ID")
    assert last == f"Deleted for good: 1 run, {models} logged model{'s' * (models != 1)}, 0 experiments."
    assert client.get_run(kept).info.lifecycle_stage == "active"


def test_other_commands_count_nothing(mlflow) -> None:
    assert "Deleted for good" not in mlflow("experiments", "search").stdout
