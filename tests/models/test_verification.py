"""What MLflow's own calls load and download is what was logged, or is refused by the name of what differs."""

import ast
import inspect
import json
import logging
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest
import yaml
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from genesis_flow import models
from genesis_flow.models import downloads, manifest
from genesis_flow.models.owners import TAG
from tests.models.conftest import Place, folder_of
from tests.models.folders import malicious
from tests.versions import SINCE_3_18

Log = Callable[..., LoggedModel]


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(MlflowException) as refused:
        call()
    assert refused.value.error_code == "PERMISSION_DENIED", refused.value
    return str(refused.value.message)


def test_a_logged_model_brings_its_manifest_and_the_database_keeps_its_sum(logged: Log) -> None:
    model = logged()
    content = (folder_of(model) / manifest.NAME).read_bytes()
    assert model.tags[TAG] == sha256(content).hexdigest()
    files = json.loads(content)["files"]
    assert {"MLmodel", "model.skops", "requirements.txt"} <= files.keys()
    for name, said in files.items():
        stored = (folder_of(model) / name).read_bytes()
        assert said == {"sha256": sha256(stored).hexdigest(), "size": len(stored)}


def test_log_model_itself_writes_one(secure: Place) -> None:
    from sklearn.linear_model import LinearRegression

    line = LinearRegression().fit([[0.0], [1.0]], [0.0, 3.0])
    mlflow.set_experiment(experiment_id=secure.experiment_id)
    made = mlflow.sklearn.log_model(
        line, name="own", serialization_format="skops", pip_requirements=[], registered_model_name="own"
    )
    assert TAG in secure.client.get_logged_model(made.model_id).tags
    for uri in (made.model_uri, "models:/own/1"):
        assert mlflow.pyfunc.load_model(uri).predict([[2.0]]).tolist() == pytest.approx([6.0])


def test_manifests_can_be_switched_off(logged: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_MODEL_MANIFESTS", "false")
    model = logged()
    assert TAG not in model.tags
    assert not (folder_of(model) / manifest.NAME).exists()


def changed(folder: Path) -> str:
    with (folder / "model.skops").open("ab") as file:
        file.write(b"\0")
    return "'model.skops' was changed"


def missing(folder: Path) -> str:
    (folder / "requirements.txt").unlink()
    return "'requirements.txt' is missing"


def added(folder: Path) -> str:
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text("raise SystemExit")
    return "'code/evil.py' was added"


def renamed(folder: Path) -> str:
    (folder / "model.skops").rename(folder / "other.skops")
    return "'model.skops' was renamed to 'other.skops'"


def another_flavor(folder: Path) -> str:
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["flavors"]["python_function"]["loader_module"] = "os"
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return "'MLmodel' was changed"


def with_its_manifest(folder: Path) -> str:
    """By one who can write to the store of artifacts, and not to the database."""
    changed(folder)
    manifest.write(folder)
    return f"{manifest.NAME} of models:/"


def without_its_manifest(folder: Path) -> str:
    (folder / manifest.NAME).unlink()
    return f"'{manifest.NAME}' of models:/"


TAMPERINGS = [changed, missing, added, renamed, another_flavor, with_its_manifest, without_its_manifest]


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_is_not_as_logged_is_refused_by_every_call(
    tampering: Callable[[Path], str], secure: Place, logged: Log, tmp_path: Path
) -> None:
    run = secure.client.create_run(secure.experiment_id)
    model = logged(source_run_id=run.info.run_id)
    name = f"name-{model.model_id}"
    secure.client.create_registered_model(name)
    uri = f"models:/{model.model_id}"
    version = secure.client.create_model_version(name, uri, model_id=model.model_id).version
    secure.client.set_registered_model_alias(name, "best", version)
    of_run = f"runs:/{run.info.run_id}/model"
    uris = [uri, f"models:/{name}/{version}", f"models:/{name}@best", of_run]
    for each in [*uris, model.artifact_location, str(folder_of(model))]:
        mlflow.artifacts.download_artifacts(each)

    said = tampering(folder_of(model))
    target = tmp_path / "target"
    target.mkdir()
    calls: list[Callable[[], Any]] = [
        lambda: mlflow.pyfunc.load_model(uri),
        lambda: mlflow.pyfunc.load_model(uri, dst_path=str(target)),
        lambda: mlflow.sklearn.load_model(uri),
        lambda: mlflow.xgboost.load_model(uri),
        lambda: mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model"),
        lambda: secure.client.download_artifacts(run.info.run_id, "model", str(target)),
        lambda: mlflow.pyfunc.load_model(str(folder_of(model))),
        lambda: mlflow.pyfunc.load_model(model.artifact_location),
        lambda: models.verify(uri),
        lambda: models.load(uri),
    ]
    calls += [lambda each=each: mlflow.artifacts.download_artifacts(each) for each in uris]
    for call in calls:
        assert said in refusal(call)
    assert list(target.iterdir()) == [], "something of a refused model was left"


def flavors_of_mlflow() -> list[Path]:
    """All modules of MLflow that load models of their own."""
    root = Path(inspect.getfile(mlflow)).parent
    found = [*root.glob("*/__init__.py"), *root.glob("*/load.py"), *root.glob("*/model.py")]
    return [path for path in found if "\ndef load_model(" in path.read_text(encoding="utf-8")]


def test_every_flavor_loads_through_what_verifies() -> None:
    """Those that are not installed, too: each loads what _download_artifact_from_uri gave it."""
    flavors = flavors_of_mlflow()
    assert len(flavors) > 15
    for path in flavors:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {
            getattr(node.func, "id", getattr(node.func, "attr", ""))
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name == "load_model"
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        }
        through = {"_download_artifact_from_uri", "get_model_info", "_load_model"}
        assert called & through, f"{path} loads by {sorted(called)}"


def test_off_by_default(place: Place, logged: Log) -> None:
    model = logged()
    added(folder_of(model))
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.predict([[3.0]]).tolist() == pytest.approx([6.0])


@pytest.mark.parametrize("kind", ["skops", "xgboost"])
def test_formats_without_code_load_by_mlflows_own_calls(kind: str, secure: Place, logged: Log) -> None:
    uri = f"models:/{logged(kind).model_id}"
    flavor: ModuleType = mlflow.xgboost if kind == "xgboost" else mlflow.sklearn
    values = [
        mlflow.pyfunc.load_model(uri).predict([[2.0]])[0],
        flavor.load_model(uri).predict([[2.0]])[0],
        models.load(uri, flavor.load_model).predict([[2.0]])[0],
    ]
    assert values == pytest.approx([values[0]] * 3)


def test_a_pickle_is_refused_and_does_not_run(secure: Place, logged: Log, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (secure.saved["pickle"] / "model.pkl").rename(tmp_path / "kept")
    try:
        (secure.saved["pickle"] / "model.pkl").write_bytes(malicious(mark))
        uri = f"models:/{logged('pickle').model_id}"
    finally:
        (tmp_path / "kept").replace(secure.saved["pickle"] / "model.pkl")
    for call in (mlflow.pyfunc.load_model, mlflow.sklearn.load_model, models.load):
        assert "'model.pkl'" in refusal(lambda call=call: call(uri))
    assert not mark.exists()


def test_who_trusts_those_who_log_lets_code_run_and_keeps_the_sums(
    secure: Place, logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "true")
    model = logged("pickle")
    loaded = mlflow.pyfunc.load_model(f"models:/{model.model_id}")
    assert loaded.predict([[3.0]]).tolist() == pytest.approx([6.0])
    missing(folder_of(model))
    assert "is missing" in refusal(lambda: mlflow.pyfunc.load_model(f"models:/{model.model_id}"))


def test_mlflows_own_switch_is_left_to_mlflow(
    secure: Place, logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "false")
    uri = f"models:/{logged('xgboost').model_id}"
    assert mlflow.xgboost.load_model(uri) is not None
    if SINCE_3_18:
        with pytest.raises(MlflowException, match="Loading PyFunc models is disallowed"):
            mlflow.pyfunc.load_model(uri)
    else:
        assert mlflow.pyfunc.load_model(uri) is not None


def test_what_is_loaded_is_what_was_checked(
    secure: Place, logged: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's folder is changed as soon as it was checked, before MLflow reads it."""
    model, swapped = logged(), []
    check = downloads.check_model

    def checked(*arguments: Any) -> None:
        check(*arguments)
        for path in folder_of(model).iterdir():
            path.unlink()
        (folder_of(model) / "MLmodel").write_text("flavors: {python_function: {loader_module: evil}}")
        swapped.append(True)

    monkeypatch.setattr(downloads, "check_model", checked)
    loaded = mlflow.pyfunc.load_model(str(folder_of(model)))
    assert loaded.predict([[3.0]]).tolist() == pytest.approx([6.0])
    assert swapped == [True]


def test_a_second_look_at_the_description_is_verified_too(secure: Place, logged: Log) -> None:
    """Some flavors download MLmodel once more, from where the model was."""
    from mlflow.utils.model_utils import _get_flavor_configuration_from_uri

    model = logged()
    uris = (str(folder_of(model)), model.artifact_location, f"models:/{model.model_id}")
    for uri in uris:
        mlflow.artifacts.download_artifacts(uri)
        conf = _get_flavor_configuration_from_uri(uri, "python_function", logging.getLogger())
        assert conf["loader_module"] == "mlflow.sklearn"
    another_flavor(folder_of(model))
    for uri in uris:
        with pytest.raises(MlflowException, match="Failed to download") as failed:
            _get_flavor_configuration_from_uri(uri, "python_function", logging.getLogger())
        assert "'MLmodel' was changed" in str(failed.value.__cause__)


def test_a_part_of_a_model_is_verified_too(secure: Place, logged: Log, tmp_path: Path) -> None:
    run_id = secure.client.create_run(secure.experiment_id).info.run_id
    model = logged(source_run_id=run_id)
    secure.client.create_registered_model(f"name-{model.model_id}")
    secure.client.create_model_version(
        f"name-{model.model_id}", f"models:/{model.model_id}", model_id=model.model_id
    )
    uris = (f"runs:/{run_id}/model", f"models:/name-{model.model_id}/1")
    download = mlflow.artifacts.download_artifacts
    for number, uri in enumerate(uris):
        target = tmp_path / str(number)
        got = Path(download(f"{uri}/requirements.txt", dst_path=str(target)))
        assert got.read_text() == (folder_of(model) / "requirements.txt").read_text()
        assert [path.name for path in target.rglob("*") if path.is_file()] == ["requirements.txt"]
    changed(folder_of(model))
    added(folder_of(model))
    for uri in uris:
        assert "'model.skops' was changed" in refusal(lambda uri=uri: download(f"{uri}/model.skops"))
        assert "'code/evil.py' was added" in refusal(lambda uri=uri: download(f"{uri}/code"))


def test_the_files_of_another_model_do_not_pass_for_it(secure: Place, logged: Log) -> None:
    """A whole sealed model in the place of another: its manifest is right, and not the one that was kept."""
    model, other = logged(), logged("xgboost")
    shutil.rmtree(folder_of(model))
    shutil.copytree(folder_of(other), folder_of(model))
    assert "was changed" in refusal(lambda: mlflow.pyfunc.load_model(f"models:/{model.model_id}"))


def test_a_folder_that_holds_more_is_refused(secure: Place, logged: Log, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("")
    uri = f"models:/{logged().model_id}"
    with pytest.raises(MlflowException, match=r"holds 'evil.py' already"):
        mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))


def test_artifacts_that_are_no_models_are_downloaded_as_ever(secure: Place, tmp_path: Path) -> None:
    run_id = secure.client.create_run(secure.experiment_id).info.run_id
    secure.client.log_text(run_id, "hello", "notes/a.txt")
    secure.client.log_text(run_id, "there", "notes/more/b.txt")
    for uri in (f"runs:/{run_id}/notes", secure.client.get_run(run_id).info.artifact_uri + "/notes"):
        got = Path(mlflow.artifacts.download_artifacts(uri))
        assert {path.name: path.read_text() for path in got.rglob("*.txt")} == {
            "a.txt": "hello",
            "b.txt": "there",
        }
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/a.txt") == "hello"
    got = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(tmp_path / "all")))
    assert (got / "notes" / "more" / "b.txt").read_text() == "there"
