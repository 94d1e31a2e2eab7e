"""One database and a few saved models for a file of tests; each test logs its own, in milliseconds."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pymongo
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel

from tests.forgetting import forgotten
from tests.mongod import Mongod

SECURE = "MLFLOW_ENABLE_SECURE_MODEL_LOADING"


@dataclass
class Place:
    """A database, and what is logged to it from folders that MLflow saved."""

    uri: str
    experiment_id: str
    saved: dict[str, Path]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)

    def log(self, kind: str, scratch: Path, **more: Any) -> LoggedModel:
        """As ``log_model`` does it, without its look at what the model requires."""
        model = self.client.create_logged_model(self.experiment_id, name="model", **more)
        folder = scratch / f"saved-{model.model_id}"
        shutil.copytree(self.saved[kind], folder)
        described = yaml.safe_load((folder / "MLmodel").read_text())
        (folder / "MLmodel").write_text(yaml.safe_dump(described | {"model_id": model.model_id}))
        self.client.log_model_artifacts(model.model_id, str(folder))
        return self.client.get_logged_model(model.model_id)


def folder_of(model: LoggedModel) -> Path:
    """Where its files are in the store: an attacker's view."""
    return Path(model.artifact_location.removeprefix("file://"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    xgboost = pytest.importorskip("xgboost")
    from sklearn.linear_model import LinearRegression

    root = tmp_path_factory.mktemp("saved")
    points, values = [[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0]
    line = LinearRegression().fit(points, values)
    trees = xgboost.XGBRegressor(n_estimators=1, max_depth=1).fit(points, values)
    plain: dict[str, Any] = {"pip_requirements": []}
    mlflow.sklearn.save_model(line, root / "skops", serialization_format="skops", **plain)
    mlflow.sklearn.save_model(line, root / "pickle", serialization_format="cloudpickle", **plain)
    mlflow.xgboost.save_model(trees, root / "xgboost", **plain)
    return {name: root / name for name in ("skops", "pickle", "xgboost")}


@pytest.fixture(scope="module")
def shared_place(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Path]
) -> Iterator[Place]:
    name = f"models_{uuid.uuid4().hex[:12]}"
    uri = mongod.database_uri(name)
    with forgotten():
        client = MlflowClient(uri, uri)
        experiment = client.create_experiment("models", tmp_path_factory.mktemp("artifacts").as_uri())
    yield Place(uri, experiment, saved)
    with pymongo.MongoClient(mongod.uri) as connection:
        connection.drop_database(name)


@pytest.fixture
def place(shared_place: Place, mlflow_forgets: None, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv(SECURE, raising=False)
    mlflow.set_tracking_uri(shared_place.uri)
    mlflow.set_registry_uri(shared_place.uri)
    return shared_place


@pytest.fixture
def secure(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """With the switch on."""
    monkeypatch.setenv(SECURE, "true")
    return place


@pytest.fixture
def logged(place: Place, tmp_path: Path) -> Callable[..., LoggedModel]:
    return lambda kind="skops", **more: place.log(kind, tmp_path, **more)
