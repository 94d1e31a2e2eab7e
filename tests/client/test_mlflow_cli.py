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
    mlflow("gc", "--backend-store-uri", genesis_uri, "--run-ids", removed)
    with pytest.raises(MlflowException, match=f"Run with id={removed} not found"):
        read(genesis_uri, removed)
    assert not list(data_directory.glob(f"artifacts/**/{removed}/**/notes.txt"))
    assert read(genesis_uri, kept)["params"]["learning.rate"] == "0.2"
