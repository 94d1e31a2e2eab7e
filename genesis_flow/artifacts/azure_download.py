"""A blob to a file: in ranges, several at a time, written in order, so that what is there is a beginning."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, BinaryIO

from genesis_flow.artifacts.azure_errors import ContendedBlobError

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

try:
    import fcntl
except ImportError:  # Windows: downloads work there, but do not continue one that was cut.
    fcntl = None  # type: ignore[assignment]

_ATTEMPTS = 3
_NO_SUCH_RANGE = 416


class Window:
    """How many ranges may be on their way or in memory, over all downloads of a repository."""

    def __init__(self, pool: Executor, most: int) -> None:
        self.pool = pool
        self._free = BoundedSemaphore(most)

    def enter(self, *, wait: bool) -> bool:
        return self._free.acquire(blocking=wait)

    def leave(self) -> None:
        self._free.release()


def download(blob: BlobClient, target: Path, *, range_size: int, window: Window, timeout: int) -> None:
    """Write the blob to ``target``, which appears when it is whole.

    Until then the content grows in a hidden file beside it, named after the blob's version. A download that
    was cut goes on at its end.
    """
    from azure.core.exceptions import ResourceModifiedError

    for _ in range(_ATTEMPTS):
        # A small blob is one request. Where there is something to continue, its version is asked for first.
        begun = any(_parts_of(target))
        version = _asked(blob, timeout) if begun else _begun(blob, range_size, timeout)
        with _part_of(target, version.etag) as part:
            if part.file.tell() == 0:
                part.file.write(version.beginning)
            try:
                _fill(part.file, blob, version, range_size, window, timeout)
            except ResourceModifiedError:
                part.path.unlink()
                continue
            part.file.close()
            part.path.replace(target)
        return
    raise ContendedBlobError(f"it was replaced {_ATTEMPTS} times while it was read")


@dataclass(frozen=True, slots=True)
class _Version:
    etag: str
    size: int
    beginning: bytes = b""


def _asked(blob: BlobClient, timeout: int) -> _Version:
    properties = blob.get_blob_properties(timeout=timeout)
    return _Version(properties.etag, properties.size)


def _begun(blob: BlobClient, range_size: int, timeout: int) -> _Version:
    from azure.core.exceptions import HttpResponseError

    try:
        first = blob.download_blob(0, range_size, timeout=timeout)
    except HttpResponseError as error:
        if error.status_code != _NO_SUCH_RANGE:
            raise
        return _asked(blob, timeout)  # it is empty
    size = int(str(first.properties.content_range).rpartition("/")[2])
    return _Version(first.properties.etag, size, first.readall())


def _fill(
    file: BinaryIO, blob: BlobClient, version: _Version, range_size: int, window: Window, timeout: int
) -> None:
    from mlflow.utils.file_utils import ArtifactProgressBar

    size, begin = version.size, file.tell()
    if begin > size:
        begin = file.truncate(0)

    def fetch(offset: int) -> bytes:
        from azure.core import MatchConditions

        length = min(range_size, size - offset)
        content: bytes = blob.download_blob(
            offset, length, etag=version.etag, match_condition=MatchConditions.IfNotModified, timeout=timeout
        ).readall()
        return content

    pending: deque[Future[bytes]] = deque()
    with ArtifactProgressBar.chunks(
        size - begin, f"Downloading {Path(blob.blob_name).name}", range_size
    ) as bar:

        def write_oldest() -> None:
            try:
                file.write(pending[0].result())
            finally:
                pending.popleft()
                window.leave()
            bar.update()

        try:
            for offset in range(begin, size, range_size):
                # A thread with ranges of its own writes one rather than wait for others that may wait for it.
                while not window.enter(wait=not pending):
                    write_oldest()
                pending.append(window.pool.submit(fetch, offset))
            while pending:
                write_oldest()
        finally:
            _abandon(pending, window)
    file.flush()


def _abandon(pending: deque[Future[bytes]], window: Window) -> None:
    for future in pending:
        future.cancel()
        future.add_done_callback(lambda _: window.leave())


class _Part:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file


@contextmanager
def _part_of(target: Path, etag: str) -> Iterator[_Part]:
    """The hidden file in which this version of the blob grows, ours alone while we are in it."""
    version = blake2b(etag.encode(), digest_size=8).hexdigest()
    path = target.with_name(f"{_part_prefix(target)}{version}.part")
    for stale in _parts_of(target):
        if stale != path and (abandoned := _claim(stale)):
            stale.unlink(missing_ok=True)
            abandoned.close()
    shared = _claim(path)
    part = _Part(path, shared) if shared else _private(path)
    try:
        yield part
    finally:
        part.file.close()
        if not shared:
            part.path.unlink(missing_ok=True)


def _parts_of(target: Path) -> Iterator[Path]:
    return target.parent.glob(f"{_part_prefix(target)}*.part")


def _part_prefix(target: Path) -> str:
    # Of the name a digest: with something added the longest names would be too long.
    return f".{blake2b(os.fsencode(target.name), digest_size=8).hexdigest()}."


def _claim(path: Path) -> BinaryIO | None:
    """The file, opened for appending and locked; None if another download has it or locks do not work."""
    if fcntl is None:
        return None
    file = path.open("ab")  # which is at its end then
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who had the lock before may have finished and renamed the file.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    file.close()
    return None


def _private(path: Path) -> _Part:
    path = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    return _Part(path, path.open("ab"))
