"""The registry through MLflow's own interface, on one URI for runs and models."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from genesis_flow.areas.webhooks import secrets


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context: object, model_input: list[int]) -> list[int]:
        return [2 * number for number in model_input]


@pytest.fixture
def client(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.setenv("GENESIS_FLOW_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    monkeypatch.delenv(secrets.VARIABLE, raising=False)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(store_uri)
    mlflow.set_registry_uri(store_uri)
    yield MlflowClient()
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def saved_model(client: MlflowClient, tmp_path: Path) -> str:
    path = tmp_path / "model"
    mlflow.pyfunc.save_model(path, python_model=Doubler(), pip_requirements=[])
    return path.as_uri()


def test_models_load_by_version_stage_and_alias(client: MlflowClient, saved_model: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_param("depth", 3)
    client.create_registered_model("doubler")
    version = client.create_model_version("doubler", saved_model, run.info.run_id)
    assert version.run_id == run.info.run_id
    client.set_registered_model_alias("doubler", "champion", version.version)
    client.transition_model_version_stage("doubler", version.version, "Production")
    for uri in (
        "models:/doubler/1",
        "models:/doubler@champion",
        "models:/doubler/Production",
        "models:/doubler/latest",
    ):
        assert mlflow.pyfunc.load_model(uri).predict([1, 2]) == [2, 4]
    copy = client.copy_model_version("models:/doubler@champion", "released")
    assert mlflow.pyfunc.load_model(f"models:/released/{copy.version}").predict([3]) == [6]
    with pytest.raises(MlflowException, match="not found"):
        mlflow.pyfunc.load_model("models:/doubler@missing")


def test_register_model_by_uri(client: MlflowClient, saved_model: str) -> None:
    for number in ("1", "2"):
        version = mlflow.register_model(saved_model, "registered", tags={"n": number})
        assert (str(version.version), version.tags) == (number, {"n": number})
    client.set_model_version_tag("registered", "2", "checked", "yes")
    client.update_model_version("registered", "2", "better")
    found = client.search_model_versions("name = 'registered' AND tags.checked = 'yes'")
    assert [(v.version, v.description) for v in found] == [(2, "better")]
    assert [model.name for model in client.search_registered_models()] == ["registered"]


def test_prompts(client: MlflowClient) -> None:
    first = mlflow.genai.register_prompt(
        "greeting", "Hello {{name}}", commit_message="first", tags={"by": "me"}
    )
    second = mlflow.genai.register_prompt("greeting", [{"role": "user", "content": "Hi {{name}}"}])
    assert (first.version, second.version) == (1, 2)
    mlflow.genai.set_prompt_alias("greeting", "production", 1)
    assert mlflow.genai.load_prompt("prompts:/greeting/1").format(name="you") == "Hello you"
    assert mlflow.genai.load_prompt("prompts:/greeting@production", cache_ttl_seconds=0).version == 1
    assert mlflow.genai.load_prompt("greeting", cache_ttl_seconds=0).version == 2
    assert [prompt.name for prompt in mlflow.genai.search_prompts("name = 'greeting'")] == ["greeting"]
    assert client.search_registered_models() == []
    assert [version.version for version in client.search_prompt_versions("greeting")] == [2, 1]
    with pytest.raises(MlflowException, match="prompt"):
        client.create_registered_model("greeting")
    mlflow.genai.delete_prompt_alias("greeting", "production")
    for version in ("1", "2"):
        client.delete_prompt_version("greeting", version)
    client.delete_prompt("greeting")
    assert list(mlflow.genai.search_prompts()) == []


def test_prompts_link_to_runs(client: MlflowClient) -> None:
    prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}")
    with mlflow.start_run() as run:
        client.link_prompt_version_to_run(run.info.run_id, prompt)
        client.link_prompt_version_to_run(run.info.run_id, "prompts:/greeting/1")
    linked = client.get_run(run.info.run_id).data.tags["mlflow.linkedPrompts"]
    assert linked == '[{"name": "greeting", "version": "1"}]'
