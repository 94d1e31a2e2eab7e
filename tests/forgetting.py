"""What MLflow is told of URIs and experiments stays in its variables and in the environment: put it back."""

import contextlib
import os
from collections.abc import Iterator

import mlflow
from mlflow.tracking import fluent

_URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """For a test, and for what a fixture of a module makes: calls of later tests would go to its database."""
    uris = {name: os.environ.get(name) for name in _URIS}
    _forget_experiment()
    try:
        yield
    finally:
        _forget_experiment()
        if {name: os.environ.get(name) for name in _URIS} != uris:
            mlflow.set_tracking_uri(uris["MLFLOW_TRACKING_URI"])
            mlflow.set_registry_uri(uris["MLFLOW_REGISTRY_URI"])
            for name, value in uris.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _forget_experiment() -> None:
    fluent._active_experiment_id = None
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
