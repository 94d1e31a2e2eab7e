"""MLflow's artifact repository for ``azure://`` URIs."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import FileInfo
from mlflow.environment_variables import (
    MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT,
    MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE,
    MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.utils.file_utils import ArtifactProgressBar

from genesis_flow.artifacts.azure_account import LARGEST_BLOCK, Account, require_library
from genesis_flow.artifacts.azure_download import Window, download
from genesis_flow.artifacts.azure_errors import storage_errors
from genesis_flow.artifacts.azure_presigned import PresignedUrls
from genesis_flow.artifacts.azure_upload import upload
from genesis_flow.artifacts.azure_uri import AzureUri, checked_path

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

DEFAULT_TIMEOUT_SECONDS = 600
# MLflow's default of 100 MiB would hold a gigabyte in memory with ten ranges on their way.
DEFAULT_RANGE_SIZE = 8 * 1024**2
SMALLEST_BLOCK = 64 * 1024


class AzureArtifactRepository(PresignedUrls, ArtifactRepository):
    """Blobs below ``azure://[account.blob.core.windows.net/]container/path``."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        self.place = AzureUri.parse(artifact_uri)
        require_library()
        super().__init__(artifact_uri.rstrip("/"), tracking_uri, registry_uri)
        # Blocks have threads of their own: files that wait for their blocks would take all of the others.
        self._block_pool = self._create_thread_pool()
        self._window = Window(self._block_pool, self.max_workers + 2)
        self.timeout = MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT.get() or DEFAULT_TIMEOUT_SECONDS

    @cached_property
    def account(self) -> Account:
        return Account.resolve(self.place)

    @cached_property
    def container(self) -> ContainerClient:
        return self.account.container(self.place)

    def log_artifact(self, local_file: str | Path, artifact_path: str | None = None) -> None:
        """Upload one file into the directory ``artifact_path``."""
        source = Path(local_file)
        if not source.is_file():
            raise MlflowException(f"There is no file {source}.", error_code=INVALID_PARAMETER_VALUE)
        self._upload(source, posixpath.join(checked_path(artifact_path), source.name))

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Upload all files below a local directory, several at a time."""
        root, target = Path(local_dir), checked_path(artifact_path)
        if not root.is_dir():
            raise MlflowException(f"There is no directory {root}.", error_code=INVALID_PARAMETER_VALUE)
        tasks: dict[str, Callable[[], None]] = {}
        for folder, _, names in os.walk(root):
            for name in names:
                source = Path(folder, name)
                path = posixpath.join(target, source.relative_to(root).as_posix())
                tasks[path] = partial(self._upload, source, path)
        with ArtifactProgressBar.files("Uploading artifacts", len(tasks)) as bar:
            self._run_all(tasks, bar.update)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Files and directories directly under ``path``; nothing if it is a file."""
        from azure.storage.blob import BlobPrefix

        directory = self.blob_name(path)
        prefix = f"{directory}/" if directory else ""
        start = len(self.place.path) + 1 if self.place.path else 0
        by_path: dict[str, FileInfo] = {}
        with self.errors("list", path):
            for item in self.container.walk_blobs(prefix, timeout=self.timeout):
                relative = item.name[start:].rstrip("/")
                if isinstance(item, BlobPrefix):
                    by_path[relative] = FileInfo(relative, True, None)
                # With a hierarchical namespace a directory is an empty blob too.
                elif item.name != prefix and relative not in by_path:
                    by_path[relative] = FileInfo(relative, False, item.size)
        return [by_path[name] for name in sorted(by_path)]

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a directory with all that is in it; without a path everything."""
        target = self.blob_name(artifact_path)
        with self.errors("delete", artifact_path):
            names = [
                blob.name
                for blob in self.container.list_blobs(name_starts_with=target, timeout=self.timeout)
                if not target or blob.name == target or blob.name.startswith(f"{target}/")
            ]
        # A run without artifacts can be purged; a name that was given must exist.
        if not names and checked_path(artifact_path):
            raise MlflowException(
                f"Cannot delete {self._shown(artifact_path)}: there is no such blob or directory.",
                error_code=RESOURCE_DOES_NOT_EXIST,
            )
        depths: dict[int, list[str]] = {}
        for name in names:
            depths.setdefault(name.count("/"), []).append(name)
        # The deepest first: with a hierarchical namespace only an empty directory can be deleted.
        for depth in sorted(depths, reverse=True):
            self._run_all({name: partial(self._delete, name) for name in depths[depth]})

    def _download_file(self, remote_file_path: str, local_path: str | Path) -> None:
        chunk = DEFAULT_RANGE_SIZE
        if MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE.is_set():
            chunk = MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE.get()
        name = self.blob_name(remote_file_path)
        with self.errors("download", remote_file_path):
            download(
                self.container.get_blob_client(name),
                Path(local_path),
                range_size=_bounded(chunk),
                window=self._window,
                timeout=self.timeout,
            )

    def _upload(self, source: Path, path: str) -> None:
        name = self.blob_name(path)
        with self.errors("upload", path):
            upload(
                self.container.get_blob_client(name),
                source,
                block_size=_bounded(MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE.get()),
                pool=self._block_pool,
                timeout=self.timeout,
            )

    def _delete(self, name: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with self.errors("delete", name[len(self.place.path) :].lstrip("/")), suppress(ResourceNotFoundError):
            # Another may have deleted it meanwhile, as was asked for.
            self.container.delete_blob(name, delete_snapshots="include", timeout=self.timeout)

    def _run_all(self, tasks: dict[str, Callable[[], None]], done: Callable[[], Any] = lambda: None) -> None:
        """Run tasks on the pool of files; wait for all, then raise what went wrong."""
        futures: dict[str, Future[None]] = {
            path: self.thread_pool.submit(task) for path, task in tasks.items()
        }
        try:
            for future in futures.values():
                if not future.exception():
                    done()
        finally:
            for future in futures.values():
                future.cancel()
            wait(futures.values())
        _raise_failures([error for future in futures.values() if (error := future.exception())], len(tasks))

    def blob_name(self, path: str | None) -> str:
        return posixpath.join(self.place.path, checked_path(path)).rstrip("/")

    def _shown(self, path: str | None) -> str:
        return f"{self.artifact_uri}/{path}" if path else self.artifact_uri

    def errors(self, action: str, path: str | None) -> AbstractContextManager[None]:
        return storage_errors(action, self._shown(path), self.account.source)


def _raise_failures(errors: Iterable[BaseException], count: int) -> None:
    errors = list(errors)
    if not errors:
        return
    first = errors[0]
    if len(errors) == 1 or not isinstance(first, MlflowException):
        raise first
    from mlflow.protos.databricks_pb2 import ErrorCode

    raise MlflowException(
        f"{first.message} ({len(errors)} of {count} failed; this is the first.)",
        error_code=ErrorCode.Value(first.error_code),
    ) from first


def _bounded(size: int) -> int:
    return max(SMALLEST_BLOCK, min(size, LARGEST_BLOCK))
