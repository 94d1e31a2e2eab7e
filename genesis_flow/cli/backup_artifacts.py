"""The artifacts of an embedded database in its backup: the files in its folder, as they are found."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genesis_flow.core.errors import GenesisFlowError

FOLDER = "artifacts"
_PIECE = 16 * 2**20


@dataclass
class Files:
    """A summary of artifacts; equal for equal files of the same names."""

    files: int = 0
    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


@dataclass
class Piece:
    """A part of a file, the first of which has the number 1. Names are bytes, as file systems have them."""

    name: bytes
    number: int
    content: bytes


class FilesTally:
    """``Files`` that grow."""

    def __init__(self) -> None:
        self.files = Files()
        self._hash = hashlib.sha256()

    def add(self, piece: Piece) -> None:
        self._hash.update(b"%d %d %d " % (len(piece.name), piece.number, len(piece.content)))
        self._hash.update(piece.name)
        self._hash.update(piece.content)
        self.files.files += piece.number == 1
        self.files.bytes += len(piece.content)
        self.files.sha256 = self._hash.hexdigest()


def pieces_in(root: Path) -> Iterator[Piece]:
    """All files below ``root`` in the order of their names. Links are left out: they lead elsewhere."""
    for folder, folders, names in os.walk(os.fsencode(root)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)  # noqa: PTH118 - of bytes
            try:
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield from _pieces_of(path, os.path.relpath(path, os.fsencode(root)))
            except FileNotFoundError:
                continue  # deleted since the folder was listed


def _pieces_of(path: bytes, name: bytes) -> Iterator[Piece]:
    with open(path, "rb") as opened:  # noqa: PTH123 - of bytes
        number = 0
        while True:
            number += 1
            content = opened.read(_PIECE)
            if content or number == 1:
                yield Piece(name, number, content)
            # Bytes that are appended from here on belong to a later backup.
            if len(content) < _PIECE:
                return


class Restored:
    """Files that are made below ``root``, and nowhere else."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, piece: Piece) -> None:
        parts = piece.name.split(b"/")
        if not piece.name or any(part in (b"", b".", b"..") for part in parts):
            raise GenesisFlowError(
                f"The backup holds a file that would lie outside of {self._root}: use another backup."
            )
        target = self._root / os.fsdecode(piece.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb" if piece.number == 1 else "ab") as opened:
            opened.write(piece.content)

    def read_back(self) -> Files:
        """What lies there now, on the disk too."""
        os.sync()
        tally = FilesTally()
        for piece in pieces_in(self._root):
            tally.add(piece)
        return tally.files
