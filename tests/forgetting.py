"""What MLflow is told of URIs and experiments stays in its variables and in the environment: put it back."""

import contextlib
import os
from collections.abc import Iterator

import mlflow
from mlflow.tracking import fluent

_URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """For a test, and for what a fixture of a module makes: calls of later tests would go to its database.

    An experiment that a fixture of a module chose belongs to the database of that module alone.
    """
    uris = [os.environ.get(name) for name in _URIS]
    _restore(uris)
    try:
        yield
    finally:
        _restore(uris)


def _restore(uris: list[str | None]) -> None:
    """A URI that MLflow was told of outlives the variable of the environment which it set by itself."""
    mlflow.set_tracking_uri(uris[0])
    mlflow.set_registry_uri(uris[1])
    fluent._active_experiment_id = None
    for name, value in [
        *zip(_URIS, uris, strict=True),
        ("MLFLOW_EXPERIMENT_ID", None),
        ("MLFLOW_EXPERIMENT_NAME", None),
    ]:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
