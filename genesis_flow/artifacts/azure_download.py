"""A blob to a file: in ranges, several at a time, written in order, so that what is there is a beginning."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, BinaryIO

from genesis_flow.core.errors import GenesisFlowError

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

try:
    import fcntl
except ImportError:  # Windows: downloads work there, but do not continue one that was cut.
    fcntl = None  # type: ignore[assignment]

_ATTEMPTS = 3


class ChangingBlobError(GenesisFlowError):
    """The blob was replaced again and again while it was read."""


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
        properties = blob.get_blob_properties(timeout=timeout)
        with _part_of(target, properties.etag) as part:
            try:
                _fill(part.file, blob, properties.size, properties.etag, range_size, window, timeout)
            except ResourceModifiedError:
                part.path.unlink()
                continue
            part.file.close()
            part.path.replace(target)
        return
    raise ChangingBlobError(f"it was replaced {_ATTEMPTS} times while it was read")


def _fill(
    file: BinaryIO, blob: BlobClient, size: int, etag: str, range_size: int, window: Window, timeout: int
) -> None:
    from mlflow.utils.file_utils import ArtifactProgressBar

    begin = file.seek(0, os.SEEK_END)
    if begin > size:
        begin = file.truncate(0)

    def fetch(offset: int) -> bytes:
        from azure.core import MatchConditions

        length = min(range_size, size - offset)
        return blob.download_blob(
            offset, length, etag=etag, match_condition=MatchConditions.IfNotModified, timeout=timeout
        ).readall()

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
                # Who has ranges of its own writes one rather than wait for others who may wait for it.
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
    of_target = f".{blake2b(os.fsencode(target.name), digest_size=8).hexdigest()}"
    path = target.with_name(f"{of_target}.{blake2b(etag.encode(), digest_size=8).hexdigest()}.part")
    for stale in target.parent.glob(f"{of_target}.*.part"):
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


def _claim(path: Path) -> BinaryIO | None:
    """The file, opened for appending and locked; None if another download has it or locks do not work."""
    if fcntl is None:
        return None
    file = path.open("ab")
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
