"""MLflow's own commands with our URI."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from genesis_flow.sync.jobs import MongoDBJobStore
from tests.client.conftest import Outcome, read, run_command


@pytest.fixture
def mlflow(genesis_uri: str, tmp_path: Path):
    def run(*arguments: str) -> Outcome:
        outcome = run_command(
            sys.executable, "-m", "mlflow", *arguments, cwd=tmp_path, MLFLOW_TRACKING_URI=genesis_uri
        )
        assert outcome.code == 0, outcome.stderr
        return outcome

    return run


def trained(uri: str, name: str) -> tuple[str, list[str]]:
    """An experiment with two runs, each with a param and an artifact."""
    client = MlflowClient(uri)
    experiment = client.create_experiment(name)
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    for run_id, rate in zip(runs, ("0.1", "0.2"), strict=True):
        client.log_param(run_id, "learning.rate", rate)
        client.log_text(run_id, f"rate {rate}", "texts/notes.txt")
    return experiment, runs


@pytest.fixture
def told(genesis_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints that is run in this process."""
    from mlflow.cli import cli  # takes seconds

    monkeypatch.setenv("MLFLOW_TRACKING_URI", genesis_uri)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_experiments_create_and_search(told: Callable[..., str], unique_name: str) -> None:
    assert unique_name in told("experiments", "create", "--experiment-name", unique_name)
    assert unique_name in told("experiments", "search")


def test_runs_list(told: Callable[..., str], genesis_uri: str, unique_name: str) -> None:
    experiment, runs = trained(genesis_uri, unique_name)
    listed = told("runs", "list", "--experiment-id", experiment)
    assert all(run_id in listed for run_id in runs)


def test_gc_removes_deleted_runs_and_only_those(
    mlflow, genesis_uri: str, unique_name: str, data_directory: Path
) -> None:
    _, (removed, kept) = trained(genesis_uri, unique_name)
    assert list(data_directory.glob(f"artifacts/**/{removed}/**/notes.txt"))
    MlflowClient(genesis_uri).delete_run(removed)
    with closing(MongoDBJobStore(genesis_uri)) as jobs:
        ended, running = (jobs.create_job("kind", "{}").job_id for _ in range(2))
        jobs.finish_job(ended, "1")
        both = ("--jobs", "--job-ids", f"{ended},{running}")
        told = mlflow("gc", "--backend-store-uri", genesis_uri, "--run-ids", removed, *both).stdout
        assert f"Job with ID {ended} has been permanently deleted." in told
        assert {job.job_id for job in jobs.list_jobs()} & {ended, running} == {running}
    assert told.splitlines()[-1] == "Deleted for good: 1 run, 0 logged models, 0 experiments."
    with pytest.raises(MlflowException, match=f"Run with id={removed} not found"):
        read(genesis_uri, removed)
    assert not list(data_directory.glob(f"artifacts/**/{removed}/**/notes.txt"))
    assert read(genesis_uri, kept)["params"]["learning.rate"] == "0.2"


def test_gc_that_finds_nothing_says_so(mlflow) -> None:
    told = mlflow("gc", "--older-than", "1000d").stdout
    assert told == "Deleted for good: 0 runs, 0 logged models, 0 experiments.\n"


def test_gc_that_fails_says_what_it_had_deleted(genesis_uri: str, tmp_path: Path, unique_name: str) -> None:
    experiment, (removed, kept) = trained(genesis_uri, unique_name)
    client = MlflowClient(genesis_uri)
    model = client.create_logged_model(experiment)
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
