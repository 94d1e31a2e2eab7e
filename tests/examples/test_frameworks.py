"""The examples for what people have already: frameworks, processes, services, agents."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.examples.conftest import assert_is_a_picture, output_of, runs_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def needs(package: str, *, in_dev: bool) -> pytest.MarkDecorator:
    """What the extra `dev` brings may be missing on somebody's machine, but not where CI is set.

    It does not bring PyTorch: with the libraries for graphics cards that is 5.5 GB and minutes.
    """
    missing = find_spec(package) is None and not (in_dev and os.environ.get("CI"))
    return pytest.mark.skipif(missing, reason=f"pip install {package}")


@needs("torch", in_dev=False)
def test_pytorch(place: Path, client: MlflowClient) -> None:
    output = output_of("06", place)
    (run,) = runs_of(client, 6)
    reached = run.data.metrics["best_accuracy"]
    assert reached > 0.9
    assert f"The best weights, loaded again: accuracy {reached:.3f}" in output
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
    assert steps == list(range(400))
    assert len(client.get_metric_history(run.info.run_id, "accuracy")) == 40
    assert_is_a_picture(client, run, "regions")


@needs("lightning", in_dev=False)
def test_lightning(place: Path, client: MlflowClient) -> None:
    output = output_of("07", place)
    assert "40 points of train_loss" in output
    (run,) = runs_of(client, 7)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "sine")
    assert run.data.params == {"hidden": "24", "rate": "0.01"}
    assert {"train_loss", "validation_loss", "gradient"} <= run.data.metrics.keys()
    assert run.data.metrics["validation_loss"] < 0.05
    (checkpoint,) = (file for file in client.list_artifacts(run.info.run_id) if file.path != "plots")
    assert checkpoint.path.startswith("epoch=")
    assert_is_a_picture(client, run, "curve")


@needs("xgboost", in_dev=True)
def test_xgboost(place: Path, client: MlflowClient) -> None:
    output = output_of("08", place)
    runs = {run.info.run_name: run for run in runs_of(client, 8)}
    assert {name: run.data.params["max_depth"] for name, run in runs.items()} == {
        "depth 1": "1",
        "depth 4": "4",
    }
    for run in runs.values():
        # A round after the other, as autologging saw them, and once more the best at the end.
        points = client.get_metric_history(run.info.run_id, "test-logloss")
        assert {point.step for point in points} >= set(range(int(run.data.metrics["best_iteration"])))
        assert_is_a_picture(client, run, "importance")
    better = min(runs.values(), key=lambda run: run.data.metrics["test-logloss"])
    (model,) = client.search_logged_models([better.info.experiment_id])
    assert model.source_run_id == better.info.run_id
    assert f"loaded from models:/{model.model_id}: 0.9" in output


@needs("optuna", in_dev=True)
def test_optuna(place: Path, client: MlflowClient) -> None:
    output = output_of("09", place)
    runs = runs_of(client, 9)
    (study,) = (run for run in runs if run.info.run_name == "study")
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert len(trials) == len(runs) - 1 == 25
    pruned = [run for run in trials if run.info.status == "KILLED"]
    assert 0 < len(pruned) < 20
    assert f"{len(pruned)} of 25 trials were stopped early" in output
    assert all(run.data.tags["pruned"] for run in pruned)
    finished = [run for run in trials if run.info.status == "FINISHED"]
    assert len(finished) == 25 - len(pruned)
    best = max(finished, key=lambda run: run.data.metrics["accuracy"])
    assert study.data.metrics["best_accuracy"] == best.data.metrics["accuracy"]
    assert {f"best_{name}": value for name, value in best.data.params.items()} == study.data.params
    assert len(client.get_metric_history(best.info.run_id, "accuracy")) == 12
    assert_is_a_picture(client, study, "importances")
    assert_is_a_picture(client, study, "course")


def test_several_processes(place: Path, client: MlflowClient) -> None:
    output = output_of("10", place)
    assert "3 processes logged 150 points under names of their own\nand 150 under the name" in output
    (run,) = runs_of(client, 10)
    assert run.info.status == "FINISHED"
    for rank in range(3):
        points = client.get_metric_history(run.info.run_id, f"worker_{rank}/accuracy")
        assert [point.step for point in points] == list(range(50))
    seen = {point.value for point in client.get_metric_history(run.info.run_id, "examples_seen")}
    assert seen == {float(rank * 1000 + step * 20) for rank in range(3) for step in range(50)}
    processes = {run.data.tags[f"worker_{rank}"] for rank in range(3)}
    assert len(processes) == 3
    assert_is_a_picture(client, run, "workers")


def test_fastapi(place: Path, client: MlflowClient) -> None:
    output = output_of("11", place)
    right = re.search(r"80 answers were judged, (\d+)% of them were right", output)
    assert right is not None
    (run,) = runs_of(client, 11)
    assert (run.info.run_name, run.info.status) == ("service", "FINISHED")
    judged = client.get_metric_history(run.info.run_id, "right")
    assert sorted(point.step for point in judged) == list(range(80))
    assert round(100 * sum(point.value for point in judged) / 80) == int(right[1])
    assert len(client.get_metric_history(run.info.run_id, "confidence")) == 80


def test_opentelemetry(place: Path, client: MlflowClient) -> None:
    output = output_of("12", place)
    # Sorted: two traces may begin in one millisecond.
    rows = re.findall(r"^ +(\d+) +(\d+) +(\d+)  AGENT, CHAT_MODEL, TOOL$", output, re.MULTILINE)
    assert sorted(rows) == [
        ("4", "0", "10"),
        ("4", "0", "10"),
        ("4", "1", "15"),
    ]
    (experiment,) = (found for found in client.search_experiments() if found.name.startswith("example 12:"))
    traces = client.search_traces(locations=[experiment.experiment_id], order_by=["timestamp_ms DESC"])
    spans = (span for trace in traces for span in trace.data.spans)
    (failed,) = (span for span in spans if span.status.status_code == "ERROR")
    assert failed.span_type == "TOOL"
    assert failed.events[0].attributes["exception.message"] == "there is no thermometer in Atlantis"
    sessions = {trace.info.trace_metadata.get("mlflow.trace.session") for trace in traces}
    assert sessions == {"a day in spring"}
