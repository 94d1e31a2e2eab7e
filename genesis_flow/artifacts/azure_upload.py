"""A file to a blob: at once, or in blocks of which those that are there already are not sent again."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from concurrent.futures import Executor, as_completed, wait
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from genesis_flow.artifacts.azure_errors import ContendedBlobError, error_code
from genesis_flow.core.errors import invalid

if TYPE_CHECKING:
    from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

MOST_BLOCKS = 50_000
# A round is lost only to another upload that has finished.
_ROUNDS = 10
_ID_LENGTH = len(f"{0:05d}-") + 40


def upload(blob: BlobClient, source: Path, *, block_size: int, pool: Executor, timeout: int) -> None:
    """Replace the blob by the file; readers see the old content or the new, never a part.

    A block is named after its place and its content. So an upload that was cut goes on with the blocks that
    arrived, whoever sends it again, and a file that changed meanwhile is never mixed with its older self.
    """
    size = source.stat().st_size
    content = _content_settings(source)
    if size <= block_size:
        data = source.read_bytes()
        blob.upload_blob(data, overwrite=True, content_settings=content, timeout=timeout)
        return
    block_size = max(block_size, -(-size // MOST_BLOCKS))
    for _ in range(_ROUNDS):
        present = _present_blocks(blob, timeout)
        names = _send(blob, source, size, block_size, present, pool, timeout)
        if _commit(blob, names, content, timeout):
            return
    raise ContendedBlobError(f"others replaced it {_ROUNDS} times while it was sent")


def _send(
    blob: BlobClient,
    source: Path,
    size: int,
    block_size: int,
    present: dict[str, int],
    pool: Executor,
    timeout: int,
) -> list[str]:
    from mlflow.utils.file_utils import ArtifactProgressBar

    def send_block(index: int) -> str:
        offset = index * block_size
        length = min(block_size, size - offset)
        with source.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise invalid(f"{source} became shorter while it was uploaded: log it again when it is complete.")
        name = f"{index:05d}-{blake2b(data, digest_size=20).hexdigest()}"
        if present.get(name) != length:
            blob.stage_block(name, data, length=length, timeout=timeout)
        return name

    futures = [pool.submit(send_block, index) for index in range(-(-size // block_size))]
    try:
        with ArtifactProgressBar.chunks(size, f"Uploading {source.name}", block_size) as bar:
            for future in as_completed(futures):
                future.result()
                bar.update()
    finally:
        # Blocks that arrived stay with the service for a week; blocks that have not begun need not be sent.
        for future in futures:
            future.cancel()
        wait(futures)
    return [future.result() for future in futures]


def _present_blocks(blob: BlobClient, timeout: int) -> dict[str, int]:
    """Blocks of the blob and of earlier attempts at it, with their sizes."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        committed, waiting = blob.get_block_list("all", timeout=timeout)
    except ResourceNotFoundError as error:
        if error_code(error) == "ContainerNotFound":
            raise
        return {}
    if any(len(block.id) != _ID_LENGTH for block in waiting):
        # All names of blocks of a blob must have one length. This drops what another program left unfinished.
        blob.commit_block_list(committed, timeout=timeout)
        return {}
    return _sizes(committed) | _sizes(waiting)


def _sizes(blocks: Iterable[BlobBlock]) -> dict[str, int]:
    return {block.id: block.size for block in blocks}


def _commit(blob: BlobClient, names: list[str], content: ContentSettings | None, timeout: int) -> bool:
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobBlock

    try:
        blob.commit_block_list(
            [BlobBlock(block_id=name) for name in names], content_settings=content, timeout=timeout
        )
    except HttpResponseError as error:
        # Another upload of the same blob finished in between, which drops the blocks that wait.
        if error_code(error) != "InvalidBlockList":
            raise
        return False
    return True


def _content_settings(source: Path) -> ContentSettings | None:
    from azure.storage.blob import ContentSettings

    kind, encoding = mimetypes.guess_type(source.name)
    # A type such as text/html of a .html.gz would make browsers unpack what is meant to be a file.
    return ContentSettings(content_type=kind) if kind and not encoding else None
