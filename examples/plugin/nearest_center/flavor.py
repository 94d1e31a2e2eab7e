"""Models of nearest_center in MLflow's format: a file of JSON, which mlflow.pyfunc can load too."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow import pyfunc
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.utils.autologging_utils import autologging_integration, safe_patch

from nearest_center import NearestCenter, __version__

FLAVOR_NAME = "nearest_center"
_FILE = "model.json"


def save_model(model: NearestCenter, path: str, mlflow_model: Model | None = None, **_: Any) -> None:
    folder = Path(path)
    folder.mkdir(parents=True)
    model.save(folder / _FILE)
    mlflow_model = mlflow_model or Model()
    mlflow_model.add_flavor(FLAVOR_NAME, nearest_center_version=__version__, data=_FILE)
    # Who loads the model with pyfunc needs this package, and neither the plugin nor genesis_flow.
    pyfunc.add_to_model(mlflow_model, loader_module=__name__, data=_FILE)
    mlflow_model.save(str(folder / MLMODEL_FILE_NAME))


def log_model(model: NearestCenter, name: str, **kwargs: Any) -> Any:
    import nearest_center.flavor

    return Model.log(name=name, artifact_path=None, flavor=nearest_center.flavor, model=model, **kwargs)


def load_model(model_uri: str) -> NearestCenter:
    folder = Path(mlflow.artifacts.download_artifacts(model_uri))
    return NearestCenter.load(folder / Model.load(str(folder)).flavors[FLAVOR_NAME]["data"])


class _Pyfunc:
    def __init__(self, model: NearestCenter) -> None:
        self._model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> list[str]:
        return self._model.predict(data.to_numpy() if hasattr(data, "to_numpy") else data)


def _load_pyfunc(path: str) -> _Pyfunc:
    """Called by mlflow.pyfunc, with the file that ``data`` named."""
    return _Pyfunc(NearestCenter.load(Path(path)))


@autologging_integration(FLAVOR_NAME)
def autolog(log_models: bool = True, disable: bool = False, silent: bool = False) -> None:
    """Each fit logs its parameters, its accuracy and the model."""

    def fit(original: Any, self: NearestCenter, points: Any, classes: Any) -> NearestCenter:
        fitted = original(self, points, classes)
        mlflow.log_params({"power": self.power, "classes": len(self.centers)})
        mlflow.log_metric("training_accuracy", self.score(points, classes))
        if log_models:
            log_model(self, name="model")
        return fitted

    safe_patch(FLAVOR_NAME, NearestCenter, "fit", fit, manage_run=True)
