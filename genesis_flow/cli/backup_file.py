"""The file of a backup: a ``tar`` that ``gzip`` compressed, so that other tools can open it.

In this order:

``header.json``
    what it is (format, moment, versions), and each collection with its options and indexes, or the view that
    it is, in MongoDB's extended JSON.
``collections/NAME/00000001.bson``, ...
    its documents in the order of ``_id``, as they lie in the database, in pieces of some megabytes.
``artifacts/NAME/00000001``, ...
    the files of the folder of artifacts, if they were asked for, in pieces too. Names are quoted as in URLs.
``manifest.json``
    for each collection the number of its documents, their bytes, and the SHA-256 over all of them, and the
    same of the artifacts. It is written last: a file without it is not whole.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from bson import json_util

from genesis_flow.cli.backup_artifacts import FOLDER as _ARTIFACTS
from genesis_flow.cli.backup_artifacts import Files, FilesTally, Piece
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.documents.plain import Document

FORMAT = "genesis_flow backup"
VERSION = 1
_HEADER = "header.json"
_MANIFEST = "manifest.json"
_FOLDER = "collections"
# More compression costs more time than it saves room.
_COMPRESSION = 3
# A reply of the server has 16 MB and one document more.
_LARGEST_PIECE = 48 * 2**20
_LENGTH = 4


class BackupError(GenesisFlowError):
    """A backup cannot be made, or is not whole."""


@dataclass
class Content:
    """A summary of one collection; equal for equal documents."""

    documents: int = 0
    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclass
class Contents:
    """What a backup holds."""

    collections: dict[str, Content]
    # None: they were not asked for.
    artifacts: Files | None = None


@dataclass
class Tally:
    """A ``Content`` that grows."""

    content: Content = field(default_factory=Content)
    _hash: Any = field(default_factory=hashlib.sha256)

    def add(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.content.documents += sum(1 for _ in documents_in(piece))
        self.content.bytes += len(piece)
        self.content.sha256 = self._hash.hexdigest()


def documents_in(piece: bytes) -> Iterator[bytes]:
    """The documents that a piece consists of."""
    start = 0
    while start < len(piece):
        length = int.from_bytes(piece[start : start + _LENGTH], "little")
        if length < _LENGTH + 1 or start + length > len(piece):
            raise BackupError("A piece of the backup does not consist of whole documents.")
        yield piece[start : start + length]
        start += length


class Writer:
    """Writes the members one after the other."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._tallies: dict[str, Tally] = {}
        self._artifacts: FilesTally | None = None

    def header(self, header: Document) -> None:
        self._member(_HEADER, json_util.dumps({"format": FORMAT, "version": VERSION, **header}).encode())

    def collection(self, name: str, pieces: Iterable[bytes]) -> Iterator[Content]:
        """Write the pieces of a collection; yields what there is so far after each."""
        tally = self._tallies.setdefault(name, Tally())
        for number, piece in enumerate(pieces, start=1):
            tally.add(piece)
            self._member(f"{_FOLDER}/{quote(name, safe='')}/{number:08d}.bson", piece)
            yield tally.content

    def artifacts(self, pieces: Iterable[Piece]) -> Iterator[Files]:
        """Write the pieces of files; yields what there is so far after each."""
        self._artifacts = FilesTally()
        for piece in pieces:
            self._artifacts.add(piece)
            self._member(f"{_ARTIFACTS}/{quote(piece.name, safe='')}/{piece.number:08d}", piece.content)
            yield self._artifacts.files

    def manifest(self) -> Contents:
        contents = _contents(self._tallies, self._artifacts)
        self._member(_MANIFEST, json.dumps(asdict(contents)).encode())
        return contents

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
        self._archive.addfile(member, io.BytesIO(content))


def _contents(tallies: dict[str, Tally], artifacts: FilesTally | None) -> Contents:
    collections = {name: tally.content for name, tally in tallies.items()}
    return Contents(collections, artifacts.files if artifacts else None)


@contextmanager
def writing(file: Path) -> Iterator[Writer]:
    """A file that gets its name when it is whole, and is on the disk then."""
    if file.exists():
        raise BackupError(f"{file} exists: choose another name, or remove it.")
    handle, name = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".part", dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as raw:
            with (
                gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_COMPRESSION) as packed,
                tarfile.open(fileobj=packed, mode="w|") as archive,
            ):
                yield Writer(archive)
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(file)
        _sync_folder(file.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have nothing to sync there
            os.fsync(opened)
    finally:
        os.close(opened)


class Reader:
    """Reads the members one after the other, and finds out whether all are as they were written."""

    def __init__(self, file: Path, archive: tarfile.TarFile, packed: gzip.GzipFile) -> None:
        self._file = file
        self._archive = archive
        self._members = iter(archive)
        self._packed = packed
        self._tallies: dict[str, Tally] = {}
        self._header = self._read_header()
        self._artifacts = FilesTally() if self._header.get("artifacts") else None

    @property
    def header(self) -> Document:
        return self._header

    def pieces(self, on_file: Callable[[Piece], None] | None = None) -> Iterator[tuple[str, bytes]]:
        """The pieces of all collections, while those of artifacts go to ``on_file``.

        Only when there is no more is it sure that the file is sound.
        """
        for member in self._members:
            content = self._content(member)
            if member.name == _MANIFEST:
                self._check(json.loads(content))
                return
            folder, name, number = member.name.split("/")
            if folder == _ARTIFACTS and self._artifacts:
                piece = Piece(unquote_to_bytes(name), int(number), content)
                self._artifacts.add(piece)
                if on_file:
                    on_file(piece)
                continue
            if folder != _FOLDER:
                raise self._damaged(f"it holds {member.name!r}")
            name = unquote(name)
            self._tallies.setdefault(name, Tally()).add(content)
            yield name, content
        raise self._damaged("it ends before its manifest")

    def contents(self) -> Contents:
        return _contents(self._tallies, self._artifacts)

    def _read_header(self) -> Document:
        member = next(self._members, None)
        if member is None or member.name != _HEADER:
            raise BackupError(f"{self._file} is not a backup of genesis_flow: name another file.")
        header: Document = json_util.loads(self._content(member).decode())
        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise BackupError(
                f"{self._file} is a backup of version {header.get('version')}, and this genesis_flow reads "
                f"version {VERSION}: use the genesis_flow that made it, or a newer one."
            )
        for collection in header["collections"]:
            if collection["type"] == "collection":
                self._tallies[collection["name"]] = Tally()
        return header

    def _content(self, member: tarfile.TarInfo) -> bytes:
        opened = self._archive.extractfile(member)
        if opened is None or member.size > _LARGEST_PIECE:
            raise self._damaged(f"{member.name!r} is no piece of a backup")
        return opened.read()

    def _check(self, manifest: Document) -> None:
        # The end of the archive follows; reading it checks the compression's own sum.
        while self._packed.read(2**16):
            pass
        contents = asdict(self.contents())
        wrong = sorted(
            name
            for name in {*contents["collections"], *manifest["collections"]}
            if contents["collections"].get(name) != manifest["collections"].get(name)
        )
        if contents["artifacts"] != manifest.get("artifacts"):
            wrong.append("the artifacts")
        if wrong:
            raise self._damaged(f"its checksums do not fit what it holds of {', '.join(wrong)}")

    def _damaged(self, how: str) -> BackupError:
        return BackupError(f"The backup {self._file} is damaged or not whole ({how}): use another one.")


@contextmanager
def reading(file: Path) -> Iterator[Reader]:
    try:
        with (
            gzip.open(file, "rb") as packed,
            tarfile.open(fileobj=packed, mode="r|") as archive,
        ):
            yield Reader(file, archive, packed)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, KeyError) as error:
        raise BackupError(
            f"The backup {file} is damaged or not whole ({error or type(error).__name__}): use another one."
        ) from error
