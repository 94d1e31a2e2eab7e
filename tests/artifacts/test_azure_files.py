"""Files and directories on Azure, through MLflow's interface, on a real Azurite."""

import random
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import mlflow.cli
import pytest
import requests
from azure.storage.blob import ContainerClient
from click.testing import CliRunner
from mlflow.entities import FileInfo
from mlflow.entities.multipart_upload import MultipartUploadPart
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from genesis_flow.artifacts.azure_blob import AzureArtifactRepository
from tests.artifacts.azurite import ACCOUNT
from tests.artifacts.conftest import BLOCK, contents, opened

FILES = {
    "notes.txt": b"hello",
    "empty": b"",
    "plots/loss.png": b"\x89PNG",
    "plots/más/损失 ☃ 100%.txt": "ünïcode".encode(),
    "plots/más/b#c?d&e=f.bin": b"\x00",
    "large.bin": random.Random(1).randbytes(3 * BLOCK + 17),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


def names(listing: list[FileInfo]) -> list[tuple[str, bool, int | None]]:
    return [(file.path, file.is_dir, file.file_size) for file in listing]


def error_of(caught: "pytest.ExceptionInfo[MlflowException]") -> tuple[str, str]:
    return caught.value.error_code, caught.value.message


def test_a_directory_goes_there_and_comes_back(
    repository: AzureArtifactRepository, container: ContainerClient, folder: Path, tmp_path: Path
) -> None:
    repository.log_artifacts(str(folder), "run")
    assert {blob.name for blob in container.list_blobs()} == {
        f"base/of artifacts/run/{name}" for name in FILES
    }
    target = tmp_path / "target"
    target.mkdir()
    assert repository.download_artifacts("run", str(target)) == str(target / "run")
    assert contents(target / "run") == FILES


def test_a_listing_shows_one_level(repository: AzureArtifactRepository, folder: Path) -> None:
    repository.log_artifacts(str(folder))
    assert names(repository.list_artifacts()) == [
        ("empty", False, 0),
        ("large.bin", False, 3 * BLOCK + 17),
        ("notes.txt", False, 5),
        ("plots", True, None),
    ]
    assert names(repository.list_artifacts("plots/")) == [
        ("plots/loss.png", False, 4),
        ("plots/más", True, None),
    ]
    assert repository.list_artifacts("notes.txt") == []
    assert repository.list_artifacts("no such") == []


def test_a_file_replaces_its_older_self(repository: AzureArtifactRepository, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    for content in (b"1" * 2 * BLOCK, b"small", b"2" * 3 * BLOCK, b""):
        path.write_bytes(content)
        repository.log_artifact(str(path), "models")
        assert Path(repository.download_artifacts("models/model.bin")).read_bytes() == content


def test_deleting_keeps_neighbours_of_similar_name(
    repository: AzureArtifactRepository, container: ContainerClient, folder: Path
) -> None:
    for directory in ("run", "run2"):
        repository.log_artifacts(str(folder), directory)
    container.upload_blob("base/of artifacts2/other", b"")
    repository.delete_artifacts("run/plots/más")
    assert [file.path for file in repository.list_artifacts("run/plots")] == ["run/plots/loss.png"]
    repository.delete_artifacts("run/notes.txt")
    repository.delete_artifacts("run")
    assert [file.path for file in repository.list_artifacts()] == ["run2"]
    with pytest.raises(MlflowException) as caught:
        repository.delete_artifacts("run")
    assert error_of(caught)[0] == "RESOURCE_DOES_NOT_EXIST"
    repository.delete_artifacts()
    repository.delete_artifacts()  # as `mlflow gc` does for a run that has no artifacts
    assert [blob.name for blob in container.list_blobs()] == ["base/of artifacts2/other"]


def test_what_is_not_there_is_named(repository: AzureArtifactRepository, root: str) -> None:
    with pytest.raises(MlflowException, match="there is no such blob") as caught:
        repository.download_artifacts("missing.txt")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert f"{root}/missing.txt" in caught.value.message
    with pytest.raises(MlflowException, match="the container does not exist") as caught:
        opened("azure://no-such-container/base").list_artifacts()
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize(
    "path", ["../secret", "a/../../secret", "%2e%2e/secret", "%252e%252e/s", "/etc", "a\\b"]
)
def test_no_path_leads_out_of_the_root(
    repository: AzureArtifactRepository, container: ContainerClient, tmp_path: Path, path: str
) -> None:
    container.upload_blob("base/secret", b"secret")
    file = tmp_path / "file"
    file.write_bytes(b"")
    target = tmp_path / "inside"
    target.mkdir()
    for call in (
        lambda: repository.list_artifacts(path),
        lambda: repository.download_artifacts(path, str(target)),
        lambda: repository.delete_artifacts(path),
        lambda: repository.log_artifact(str(file), path),
        lambda: repository.log_artifacts(str(tmp_path), path),
        lambda: repository.create_multipart_upload(str(file), 1, path),
        lambda: repository.get_download_presigned_url(path),
    ):
        with pytest.raises(MlflowException) as caught:
            call()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert [blob.name for blob in container.list_blobs()] == ["base/secret"]
    assert list(target.iterdir()) == []


def test_a_blob_whose_name_leads_out_is_not_written(
    repository: AzureArtifactRepository, container: ContainerClient, tmp_path: Path
) -> None:
    container.upload_blob("base/of artifacts/run/%2e%2e/%2e%2e/evil.txt", b"evil")
    target = tmp_path / "inside"
    target.mkdir()
    with pytest.raises(MlflowException, match=r"must not contain '\.\.'"):
        repository.download_artifacts("run", str(target))
    assert not list(tmp_path.rglob("evil.txt"))


def test_runs_and_models_under_the_default_root(
    root: str, container: ContainerClient, store_uri: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("GENESIS_FLOW_ARTIFACT_ROOT", root)
    mlflow.set_tracking_uri(store_uri)
    mlflow.set_experiment("on Azure")
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "config.json")
        model = mlflow.pyfunc.log_model(name="model", python_model=echo, pip_requirements=[])
    experiment = mlflow.get_experiment(run.info.experiment_id)
    assert experiment.artifact_location == f"{root}/{run.info.experiment_id}"
    assert run.info.artifact_uri == f"{root}/{run.info.experiment_id}/{run.info.run_id}/artifacts"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/hello.txt") == "hello"
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/config.json") == {"a": 1}
    assert mlflow.pyfunc.load_model(model.model_uri).predict(["x"]) == ["x"]

    with mlflow.start_run() as without_artifacts:
        mlflow.log_metric("loss", 1.0)
    for deleted in (run, without_artifacts):
        mlflow.delete_run(deleted.info.run_id)
    mlflow.MlflowClient().delete_logged_model(model.model_id)
    purged = CliRunner().invoke(mlflow.cli.cli, ["gc", "--backend-store-uri", store_uri])
    assert purged.exit_code == 0, purged.output
    assert list(container.list_blobs()) == []


def echo(model_input: list[str]) -> list[str]:
    return model_input


def test_wasbs_of_mlflow_reads_what_we_wrote(
    repository: AzureArtifactRepository, container: ContainerClient, folder: Path
) -> None:
    repository.log_artifacts(str(folder), "run")
    place = f"wasbs://{container.container_name}@{ACCOUNT}.blob.core.windows.net/base/of artifacts/run"
    theirs = get_artifact_repository(place)
    assert not isinstance(theirs, AzureArtifactRepository)
    assert names(theirs.list_artifacts()) == [
        (path.removeprefix("run/"), is_dir, size)
        for path, is_dir, size in names(repository.list_artifacts("run"))
    ]
    assert contents(Path(theirs.download_artifacts(""))) == FILES
    theirs.log_artifact(str(folder / "large.bin"), "theirs")
    assert Path(repository.download_artifacts("run/theirs/large.bin")).read_bytes() == FILES["large.bin"]


def test_a_browser_is_told_the_type(
    repository: AzureArtifactRepository, container: ContainerClient, folder: Path
) -> None:
    repository.log_artifacts(str(folder))
    properties = container.get_blob_client("base/of artifacts/plots/loss.png").get_blob_properties()
    assert properties.content_settings.content_type == "image/png"


def test_clients_of_a_proxying_server_transfer_parts_by_signed_urls(
    repository: AzureArtifactRepository,
) -> None:
    pieces = [b"a" * BLOCK, b"b" * BLOCK, *[b"c"] * 9]
    created = repository.create_multipart_upload("/somewhere/large.bin", len(pieces), "dir")
    parts = []
    for credential, piece in zip(created.credentials, pieces, strict=True):
        answer = requests.put(credential.url, data=piece, headers=credential.headers, timeout=30)
        assert answer.status_code == 201, answer.text
        parts.append(MultipartUploadPart(credential.part_number, answer.headers.get("ETag"), credential.url))
    with pytest.raises(MlflowException, match="not complete"):
        repository.complete_multipart_upload("large.bin", created.upload_id, parts[1:], "dir")
    repository.complete_multipart_upload("large.bin", created.upload_id, list(reversed(parts)), "dir")
    signed = repository.get_download_presigned_url("dir/large.bin", 60)
    assert signed.file_size == sum(map(len, pieces))
    answer = requests.get(signed.url, headers=signed.headers, timeout=30)
    assert answer.content == b"".join(pieces)
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''large.bin"
    # The signature is for this blob and for reading alone.
    elsewhere: Any = urlsplit(signed.url)._replace(path=urlsplit(signed.url).path.replace("large", "other"))
    assert requests.get(elsewhere.geturl(), timeout=30).status_code == 403
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert requests.put(signed.url, data=b"", headers=headers, timeout=30).status_code == 403
