"""Where MLflow finds stores. Loads most of a client, so import it in the function that needs it."""

import os
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import (
    _artifact_repository_registry as artifact_repository_registry,
)
from mlflow.store.artifact.utils.models import _parse_model_uri as parse_model_uri
from mlflow.tracking import _get_store as get_store
from mlflow.tracking._model_registry.utils import _get_store_registry as get_store_registry
from mlflow.tracking._tracking_service.utils import _tracking_store_registry as tracking_store_registry

__all__ = [
    "artifact_repository_registry",
    "get_store",
    "get_store_registry",
    "parse_model_uri",
    "scorer_store_registry",
    "server_tracking_store",
    "tracking_store_registry",
]


def scorer_store_registry() -> Any:
    """Where MLflow finds what keeps scorers; none with mlflow-skinny, which has no scorers."""
    try:
        from mlflow.genai.scorers.registry import _scorer_store_registry
    except ImportError:
        return None
    return _scorer_store_registry


def server_tracking_store() -> Any:
    """The tracking store of this process of a server; none if it passes on artifacts only."""
    from mlflow.server import ARTIFACTS_ONLY_ENV_VAR
    from mlflow.server.handlers import _get_tracking_store

    return None if os.environ.get(ARTIFACTS_ONLY_ENV_VAR) else _get_tracking_store()
