"""The repositories through which MLflow reads models' files, and what they know of the model."""

from typing import Any

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.tracking.artifact_utils import _get_root_uri_and_artifact_path

__all__ = [
    "LocalArtifactRepository",
    "ModelsArtifactRepository",
    "RunsArtifactRepository",
    "client_of",
    "get_artifact_repository",
    "logged_model_id",
    "repository_of",
    "store_of",
]


def client_of(repository: Any) -> MlflowClient:
    """One that asks the stores that the repository belongs to."""
    return MlflowClient(tracking_uri=repository.tracking_uri, registry_uri=repository.registry_uri)


def logged_model_id(repository: ModelsArtifactRepository) -> str | None:
    """The id in ``models:/m-...``; None for a version of a registered model."""
    if not repository.is_logged_model_uri:
        return None
    model_id: str | None = _parse_model_uri(repository.artifact_uri).model_id
    return model_id


def repository_of(uri: str) -> tuple[Any, str]:
    """The repository of a model's URI or folder, and the path in it, as MLflow finds them."""
    root, path = _get_root_uri_and_artifact_path(uri)
    return get_artifact_repository(root), path


def store_of(client: MlflowClient) -> Any:
    """The tracking store that a client asks."""
    return client._tracking_client.store
