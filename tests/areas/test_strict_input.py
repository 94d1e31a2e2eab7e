"""Strict input on a database: nothing that is refused gets there, and MLflow's own calls are not refused."""

from typing import Any

import mlflow
import numpy
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore, aio


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_STRICT_INPUT_VALIDATION", "true")


def refused(call: Any, *args: Any) -> str:
    with pytest.raises(MlflowException, match="MLFLOW_STRICT_INPUT_VALIDATION") as caught:
        call(*args)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return str(caught.value.message)


def test_what_is_refused_is_not_stored(store_uri: str, tmp_path: Any) -> None:
    store, registry = MongoDBStore(store_uri, str(tmp_path)), MongoDBModelRegistryStore(store_uri)
    assert "leads out of its folder" in refused(store.create_experiment, "../../etc")
    assert "scheme 'ftp'" in refused(store.create_experiment, "a", "ftp://host/a")
    run_id = store.create_run("0", "ann", 1, [], "a").info.run_id
    store.log_metric(run_id, Metric("loss", 1.0, 1, 0))
    # The second call is one that the caller's thread sends itself, without the loop.
    assert "max_name_length" in refused(store.log_metric, run_id, Metric("m" * 257, 1.0, 1, 0))
    refused(store.set_tag, run_id, RunTag("note", "a\x1b[2J"))
    refused(store.log_batch, run_id, [], [], [RunTag("fine", "a"), RunTag("note", "a" * 5001)])
    refused(registry.create_registered_model, "report\u202efdp")
    refused(registry.get_registered_model, "../a")
    run = store.get_run(run_id)
    assert set(run.data.metrics) == {"loss"}
    assert set(run.data.tags) == {"mlflow.runName"}
    assert [each.name for each in store.search_experiments()] == ["Default"]
    assert registry.search_registered_models() == []
    store.close()
    registry.close()


async def test_asynchronous_stores_refuse_it_too(store_uri: str) -> None:
    async with aio.MongoDBStore(store_uri) as store:
        with pytest.raises(MlflowException, match="leads out of its folder"):
            await store.create_experiment("a/../b")


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return model_input


@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_passes(store_uri: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_ARTIFACT_ROOT", tmp_path.as_uri())
    mlflow.set_tracking_uri(store_uri)
    mlflow.set_experiment("training of today")
    with mlflow.start_run(description="two\nlines") as run:
        mlflow.log_params({"rate": 0.1, "layers": "[1, 2]"})
        mlflow.log_dict({"a": 1}, "conf/a.json")
        mlflow.log_input(mlflow.data.from_numpy(numpy.arange(3), name="numbers"), "training")
        info = mlflow.pyfunc.log_model(
            name="echo", python_model=Echo(), registered_model_name="echo", pip_requirements=[]
        )
        with mlflow.start_span("outer") as span:
            span.set_inputs({"question": "why?\n\x1b[1m"})
            span.set_outputs("because\t")
    mlflow.genai.register_prompt("greeting", "Hello {{name}}\n" + "x" * 6000, commit_message="first")
    client = MlflowClient()
    client.set_registered_model_alias("echo", "best", "1")
    assert client.get_model_version_by_alias("echo", "best").source.startswith(("models:", "file:"))
    assert mlflow.pyfunc.load_model(info.model_uri).predict(["a"]) == ["a"]
    mlflow.flush_trace_async_logging()
    assert len(client.search_traces([run.info.experiment_id])) == 1
    assert mlflow.genai.load_prompt("greeting", version=1).template.startswith("Hello")
