"""The examples, each run as its reader runs it, and what it leaves in the store."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tests.examples.conftest import EXAMPLES, FOLDER, PROGRAMS, assert_is_a_picture, output_of, runs_of

# A program may take what `run_command` allows it, and one test runs two.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(360)]


def test_there_are_twelve_and_all_are_listed() -> None:
    assert sorted(PROGRAMS) == [f"{number:02}" for number in range(1, 13)]
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\(mongodb_integration/([^)]+)\)", page)
    assert listed == sorted(path.name for path in PROGRAMS.values())


def test_plots_name_the_data_and_leave_empty_bars_out(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, target = load_breast_cancer(as_frame=True, return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(frame, target)
    program = module("02", monkeypatch)
    legend = program.roc_curve(model, frame.assign(benign=target)).axes[0].get_legend()
    said = [text.get_text() for text in legend.get_texts()]
    assert said[0].startswith("test data (AUC")
    assert not any("Pipeline" in text for text in said)

    tree = DecisionTreeClassifier(max_depth=1, random_state=7).fit(frame, target)
    bars = module("01", monkeypatch).importance("tree", tree, frame.assign(cultivar=target)).axes[0].patches
    assert [bar.get_width() > 0 for bar in bars] == [True]


def module(number: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return import_module(PROGRAMS[number].stem)


def test_model_logging(place: Path, client: MlflowClient) -> None:
    output = output_of("01", place)
    assert re.search(r"not sure +0\.70", output)
    *classifiers, expert = runs_of(client, 1)
    assert len(classifiers) == 3
    experiment = expert.info.experiment_id
    models = {model.name: model for model in client.search_logged_models([experiment])}
    assert set(models) == {"logistic-regression", "one-small-tree", "random-forest", "wine-expert"}
    for run in classifiers:
        (dataset,) = (
            given.dataset for given in run.inputs.dataset_inputs if given.dataset.name == "wine-train"
        )
        assert dataset.digest
        assert_is_a_picture(client, run, "confusion")
        assert_is_a_picture(client, run, "importance")
    for name in set(models) - {"wine-expert"}:
        assert {metric.key for metric in models[name].metrics or []} == {"accuracy", "log_loss"}
        assert {metric.dataset_name for metric in models[name].metrics or []} == {"wine-test"}


def test_model_registry_twice(place: Path, client: MlflowClient) -> None:
    assert "Version 3 is the new champion" in output_of("02", place)
    assert "Version 6 is the new champion" in output_of("02", place)
    champion = client.get_model_version_by_alias("tumour-classifier", "champion")
    assert (str(champion.version), champion.current_stage) == ("6", "Production")
    versions = client.search_model_versions("name = 'tumour-classifier'")
    stages = {str(version.version): version.current_stage for version in versions}
    assert stages == {
        "1": "None",
        "2": "Archived",
        "3": "Archived",
        "4": "None",
        "5": "Archived",
        "6": "Production",
    }
    for run in runs_of(client, 2):
        assert_is_a_picture(client, run, "roc")


def test_artifacts_and_datasets_on_a_server(place: Path, store_uri: str, tmp_path: Path) -> None:
    root = tmp_path / "files of the example"
    output = output_of("03", place, MLFLOW_TRACKING_URI=store_uri, GENESIS_FLOW_ARTIFACT_ROOT=str(root))
    assert "120 days of Lima" in output
    assert "Runs that were trained on weather-training: 1" in output
    client = MlflowClient(store_uri)
    (run,) = runs_of(client, 3)
    assert {given.dataset.name for given in run.inputs.dataset_inputs} == {
        "weather-training",
        "weather-validation",
    }
    assert_is_a_picture(client, run, "temperature")
    assert_is_a_picture(client, run, "rain")
    assert len(list(root.rglob("*.csv"))) == 3


def test_complete_workflow(place: Path, client: MlflowClient) -> None:
    output = output_of("04", place)
    assert re.findall(r"\d\.\d\d (ok|drift)", output) == ["ok", "ok", "drift", "drift"]
    runs = {run.info.run_name: run for run in runs_of(client, 4)}
    search = runs.pop("grid search")
    nested = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == search.info.run_id]
    assert len(nested) == 9
    assert search.data.metrics["best_auc"] == max(run.data.metrics["auc"] for run in nested)
    best = max(nested, key=lambda run: run.data.metrics["auc"])
    assert runs["chosen"].data.params == best.data.params
    version = client.get_model_version_by_alias("customer-churn", "candidate")
    assert version.run_id == runs["chosen"].info.run_id
    assert {version.tags[f"week-{week}"] for week in (3, 4)} == {"drift"}
    history = client.get_metric_history(runs["monitoring"].info.run_id, "drift")
    assert [point.step for point in history] == [1, 2, 3, 4]
    for run, name in ((search, "grid"), (runs["chosen"], "quality"), (runs["monitoring"], "drift")):
        assert_is_a_picture(client, run, name)


def test_chat_model(place: Path, client: MlflowClient) -> None:
    output = output_of("05", place)
    assert "3 of them cost 237.00 euros." in output
    assert "[3 ] [of ] [them ] [cost ] [237.00 ] [euros.] [end]" in output
    (run,) = runs_of(client, 5)
    traces = [
        trace
        for trace in client.search_traces(locations=[run.info.experiment_id], order_by=["timestamp_ms ASC"])
        if trace.info.trace_metadata.get("mlflow.trace.session")
    ]
    assert len(traces) == 5
    kinds = [[span.span_type for span in trace.data.spans].count("TOOL") for trace in traces]
    assert kinds == [1, 2, 1, 0, 2]
    usage = traces[1].info.token_usage
    assert usage is not None
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    answer = traces[-1].data.response
    assert answer is not None
    assert "237.00 euros." in answer
    mlflow.set_tracking_uri(client.tracking_uri)
    (model,) = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    assert [version.value for version in traces[3].info.assessments] == [False]
    assert model.name == "assistant"
