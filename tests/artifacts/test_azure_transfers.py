"""Large files on a network that stalls and breaks, and with other programs at the same blobs."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobClient, ContainerClient
from mlflow.exceptions import MlflowException

from genesis_flow.artifacts import azure_download, azure_upload
from genesis_flow.artifacts.azure_blob import AzureArtifactRepository
from tests.artifacts.azurite import Network
from tests.artifacts.conftest import BLOCK, opened
from tests.client.conftest import Outcome, run_command

PROGRAM = str(Path(__file__).parent / "programs" / "transfer.py")
BLOCKS = 24
CONTENT = random.Random(2).randbytes(BLOCKS * BLOCK - 100)
LARGE = 192 * 1024**2


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def blob(container: ContainerClient) -> BlobClient:
    return container.get_blob_client("base/of artifacts/large.bin")


@contextmanager
def killed_when_stalled(network: Network, *command: str) -> Iterator[None]:
    """The program is killed, as by a power cut, when the network has stalled it."""
    # `run_command` would wait for its end.
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen([sys.executable, PROGRAM, *command], env=environment)
    try:
        assert network.stalled.wait(60), "the transfer never came so far"
    finally:
        process.kill()
        process.wait()
    network.stall_after = None
    network.sent = network.received = 0
    yield


def test_an_upload_that_was_killed_goes_on_with_the_blocks_that_arrived(
    network: Network, root: str, large: Path, blob: BlobClient
) -> None:
    blob.upload_blob(b"the older content")
    network.stall_after = len(CONTENT) // 2
    with killed_when_stalled(network, "upload", root, large.name, str(large.parent)):
        assert blob.download_blob().readall() == b"the older content"
        there = blob.get_block_list("uncommitted")[1]
        assert len(there) >= BLOCKS // 4
        opened(root).log_artifact(str(large))
    assert blob.download_blob().readall() == CONTENT
    missing = len(CONTENT) - len(there) * BLOCK
    assert missing - BLOCK <= network.sent <= missing + 2 * BLOCK


def test_a_download_that_was_killed_continues(
    network: Network, root: str, large: Path, blob: BlobClient, tmp_path: Path
) -> None:
    blob.upload_blob(CONTENT)
    target = tmp_path / "target"
    target.mkdir()
    network.stall_after = len(CONTENT) // 2
    with killed_when_stalled(network, "download", root, "large.bin", str(target)):
        (part,) = target.iterdir()
        assert part.name != "large.bin"
        there = part.stat().st_size
        assert there >= len(CONTENT) // 4
        assert part.read_bytes() == CONTENT[:there]
        opened(root).download_artifacts("large.bin", str(target))
    assert [path.name for path in target.iterdir()] == ["large.bin"]
    assert (target / "large.bin").read_bytes() == CONTENT
    assert network.received <= len(CONTENT) - there + 2 * BLOCK


def test_connections_that_break_are_made_anew(network: Network, root: str, large: Path) -> None:
    network.cuts, network.cut_after = 1, BLOCK // 2
    opened(root).log_artifact(str(large))
    assert network.cuts == 0
    network.cuts = 1
    assert Path(opened(root).download_artifacts("large.bin")).read_bytes() == CONTENT
    assert network.cuts == 0


def test_a_file_that_is_there_already_is_not_sent_again(network: Network, root: str, large: Path) -> None:
    opened(root).log_artifact(str(large))
    network.sent = 0
    opened(root).log_artifact(str(large))
    assert network.sent < BLOCK
    with large.open("r+b") as file:
        file.seek(5 * BLOCK)
        file.write(b"changed")
    opened(root).log_artifact(str(large))
    assert network.sent < 2 * BLOCK
    assert Path(opened(root).download_artifacts("large.bin")).read_bytes() == large.read_bytes()


def test_blocks_that_another_program_left_are_no_obstacle(
    repository: AzureArtifactRepository, large: Path, blob: BlobClient
) -> None:
    blob.stage_block("short", b"of another program")
    repository.log_artifact(str(large))
    assert blob.download_blob().readall() == CONTENT
    blob.stage_block("other", b"of another program")
    repository.log_artifact(str(large))
    assert blob.download_blob().readall() == CONTENT


def test_of_uploads_at_once_one_wins_whole(root: str, tmp_path: Path, blob: BlobClient) -> None:
    contents = [random.Random(seed).randbytes(4 * BLOCK) for seed in range(4)]
    errors: list[Exception] = []

    def upload(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "large.bin").write_bytes(contents[number])
        try:
            opened(root).log_artifact(str(folder / "large.bin"))
        except (MlflowException, AzureError) as error:
            errors.append(error)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert blob.download_blob().readall() in contents


def test_an_upload_that_always_loses_is_an_error_and_not_a_loop(
    repository: AzureArtifactRepository, large: Path, blob: BlobClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = azure_upload._send

    def send_while_another_commits(*arguments: object) -> list[str]:
        names = send(*arguments)  # type: ignore[arg-type]
        blob.commit_block_list([])
        return names

    monkeypatch.setattr(azure_upload, "_send", send_while_another_commits)
    with pytest.raises(MlflowException, match="others replaced it 10 times while it was sent") as caught:
        repository.log_artifact(str(large))
    assert caught.value.error_code == "ABORTED"


def test_downloads_at_once_to_one_place(
    repository: AzureArtifactRepository, blob: BlobClient, tmp_path: Path
) -> None:
    blob.upload_blob(CONTENT)
    threads = [
        threading.Thread(
            target=opened(repository.artifact_uri).download_artifacts, args=("large.bin", str(tmp_path))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["large.bin"]
    assert (tmp_path / "large.bin").read_bytes() == CONTENT


def test_a_download_never_mixes_two_versions(
    repository: AzureArtifactRepository, blob: BlobClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = bytes(reversed(CONTENT))
    blob.upload_blob(CONTENT)
    target = tmp_path / "target"
    target.mkdir()
    fill = azure_download._fill

    def fill_while_another_uploads(*arguments: object) -> None:
        if blob.download_blob(0, 8).readall() != newer[:8]:
            blob.upload_blob(newer, overwrite=True)
        fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(azure_download, "_fill", fill_while_another_uploads)
    repository.download_artifacts("large.bin", str(target))
    assert (target / "large.bin").read_bytes() == newer
    assert len(list(target.iterdir())) == 1


def test_a_blob_that_never_rests_is_an_error_and_not_a_loop(
    repository: AzureArtifactRepository, blob: BlobClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob.upload_blob(CONTENT)
    fill = azure_download._fill

    def fill_while_another_uploads(*arguments: object) -> None:
        blob.upload_blob(CONTENT, overwrite=True)
        fill(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(azure_download, "_fill", fill_while_another_uploads)
    with pytest.raises(MlflowException, match="replaced 3 times while it was read"):
        repository._download_file("large.bin", tmp_path / "large.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_an_older_version_is_removed(
    repository: AzureArtifactRepository, blob: BlobClient, tmp_path: Path
) -> None:
    with azure_download._part_of(tmp_path / "large.bin", "older") as part:
        part.file.write(b"older content")
    assert len(list(tmp_path.iterdir())) == 1
    blob.upload_blob(CONTENT)
    repository.download_artifacts("large.bin", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["large.bin"]


def test_a_file_that_shrinks_while_it_is_sent_is_refused(
    repository: AzureArtifactRepository, large: Path, blob: BlobClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = azure_upload._present_blocks

    def shrink(*arguments: object) -> dict[str, int]:
        large.write_bytes(b"")
        return present(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(azure_upload, "_present_blocks", shrink)
    with pytest.raises(MlflowException, match="became shorter"):
        repository.log_artifact(str(large))
    assert not blob.exists()


def test_a_large_file_needs_little_memory(
    root: str, tmp_path: Path, environment: pytest.MonkeyPatch, blob: BlobClient
) -> None:
    environment.delenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE")
    environment.delenv("MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE")
    for folder in (tmp_path / "from", tmp_path / "to"):
        folder.mkdir()
    with (tmp_path / "from" / "large.bin").open("wb") as file:
        file.truncate(LARGE)

    def transfer(direction: str, folder: str) -> Outcome:
        variables = {name: os.environ[name] for name in ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",)}
        return run_command(
            sys.executable, PROGRAM, direction, root, "large.bin", str(tmp_path / folder), **variables
        )

    assert transfer("upload", "from").answer["grown_by"] < LARGE // 2
    assert blob.get_blob_properties().size == LARGE
    assert transfer("download", "to").answer["grown_by"] < LARGE // 2
    assert (tmp_path / "to" / "large.bin").stat().st_size == LARGE


def test_a_program_shows_the_progress_of_a_large_file(root: str, tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(8 * BLOCK)
    # MLflow shows its bar from 500 MB on; the number is its own constant.
    code = f"""
import mlflow.utils.file_utils as utils
utils._PROGRESS_BAR_DISPLAY_THRESHOLD = 1
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
repository = get_artifact_repository({root!r})
repository.log_artifact({str(tmp_path / "large.bin")!r})
repository.download_artifacts("large.bin")
"""
    sizes = ("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE")
    outcome = run_command(sys.executable, "-c", code, **dict.fromkeys(sizes, str(BLOCK)))
    assert outcome.code == 0, outcome.stderr
    assert "Uploading large.bin" in outcome.stderr
    assert "Downloading large.bin" in outcome.stderr
    assert "100%" in outcome.stderr
