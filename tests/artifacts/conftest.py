"""Azurite for the session, a fresh container and a clean environment for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from genesis_flow.artifacts.azure_blob import AzureArtifactRepository
from tests.artifacts.azurite import Azurite, Network, running_azurite

BLOCK = 256 * 1024


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with running_azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without anything of Azure, and with small blocks so that small files are large."""
    import os

    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(BLOCK))
    monkeypatch.setenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE", str(BLOCK))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return monkeypatch


@pytest.fixture
def container(azurite: Azurite) -> ContainerClient:
    """Seen without genesis_flow."""
    service = BlobServiceClient.from_connection_string(azurite.connection_string())
    return service.create_container(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def root(azurite: Azurite, container: ContainerClient, environment: pytest.MonkeyPatch) -> str:
    """The URI of a folder in a fresh container, reachable by a connection string."""
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    return f"azure://{container.container_name}/base/of artifacts"


@pytest.fixture
def repository(root: str) -> AzureArtifactRepository:
    return opened(root)


@pytest.fixture
def network(azurite: Azurite, root: str, environment: pytest.MonkeyPatch) -> Iterator[Network]:
    """The way to Azurite leads through it."""
    relay = Network(azurite.port)
    environment.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(relay.port))
    yield relay
    relay.close()


def opened(uri: str) -> AzureArtifactRepository:
    """What MLflow makes of the URI: the entry point is part of the test."""
    repository = get_artifact_repository(uri)
    assert isinstance(repository, AzureArtifactRepository)
    return repository


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
