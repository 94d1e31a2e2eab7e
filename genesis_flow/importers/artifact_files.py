"""Files of artifacts: what is read from a folder or a service, and written whole to another."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri, validate_path_within_directory

from genesis_flow.core.redact import mask
from genesis_flow.importers.tree.files import oddity


class CopyFailed(Exception):
    """Files cannot be read, or did not arrive; the message says which and why."""


def walk(folder: Path) -> tuple[list[tuple[str, Path]], list[tuple[Path, str]]]:
    """All files below a folder by their path in it; and what is left out, and why."""
    found, odd = [], []
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if (reason := oddity(mode)) is not None:
                odd.append((path, reason))
            elif stat.S_ISREG(mode):
                found.append((path.relative_to(folder).as_posix(), path))
    return sorted(found), sorted(odd)


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise CopyFailed(f"{error.filename} cannot be listed ({error.strerror})") from error


class Folder:
    """Files to copy that are here."""

    def __init__(self, files: list[tuple[str, Path]]) -> None:
        self._files = files

    def files(self, scratch: Path) -> Iterator[tuple[str, Path]]:
        yield from self._files


class Remote:
    """Files to copy that another service keeps; each is fetched when its turn comes."""

    def __init__(self, location: str) -> None:
        self._repository = _repository(location)

    def files(self, scratch: Path) -> Iterator[tuple[str, Path]]:
        for name in _names(self._repository):
            yield name, Path(self._repository.download_artifacts(name, str(scratch)))
            Path(scratch, name).unlink(missing_ok=True)


def _names(repository: ArtifactRepository, folder: str | None = None) -> Iterator[str]:
    for each in repository.list_artifacts(folder):
        if each.is_dir:
            yield from _names(repository, each.path)
        else:
            yield each.path


def _repository(location: str) -> ArtifactRepository:
    try:
        return get_artifact_repository(location)
    except (MlflowException, ImportError) as exc:
        raise CopyFailed(f"MLflow cannot open {mask(location)}: {reason_of(exc)}") from exc


class Target:
    """The place where files go."""

    def __init__(self, location: str) -> None:
        self._repository = _repository(location)
        self._folder = Path(local_file_uri_to_path(location)) if is_local_uri(location) else None

    def has(self, name: str, size: int, hashed: str) -> bool:
        """Whether this very file is there; of another service it is fetched, to be sure."""
        if self._folder is not None:
            path = self._folder / name
            return path.is_file() and path.stat().st_size == size and sha256_of(path) == hashed
        folder = name.rpartition("/")[0]
        listed = {each.path: each.file_size for each in self._repository.list_artifacts(folder or None)}
        if listed.get(name) != size:
            return False
        with tempfile.TemporaryDirectory(prefix="genesis-flow-import-") as scratch:
            return sha256_of(Path(self._repository.download_artifacts(name, scratch))) == hashed

    def put(self, name: str, path: Path) -> None:
        if self._folder is None:
            self._repository.log_artifact(str(path), name.rpartition("/")[0] or None)
            return
        file, partial = self._files(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, partial)
        partial.replace(file)

    def _files(self, name: str) -> tuple[Path, Path]:
        """A local file, and what it is called until it is whole.

        MLflow calls it otherwise each time, and a kill leaves it for ever; the attempt after a kill takes
        this one up. MLflow shows no file of this prefix.
        """
        assert self._folder is not None
        file = self._folder / name
        validate_path_within_directory(str(self._folder), str(file))
        digest = hashlib.blake2b(file.name.encode("utf-8", "surrogateescape"), digest_size=8)
        return file, file.with_name(f".artifact.uploading.{digest.hexdigest()}")

    def remove(self, name: str) -> int:
        """Take a file back; 1 if it was there."""
        if self._folder is None:
            try:
                self._repository.delete_artifacts(name)
            except Exception as exc:
                raise CopyFailed(f"{name} cannot be deleted: {reason_of(exc)}") from exc
            return 1
        path, partial = self._files(name)
        partial.unlink(missing_ok=True)
        if not path.is_file():
            return 0
        path.unlink()
        # The folders that the copy made, as far as nobody has put anything else there.
        for folder in list(path.parents)[: len(Path(name).parts) + 2]:
            try:
                folder.rmdir()
            except OSError:
                break
        return 1


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason_of(error: BaseException) -> str:
    return mask(" ".join(str(error).split()) or type(error).__name__)
