"""The files of one embedded MongoDB, and what its keeper writes about it."""

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from genesis_flow.embedded.binary import require_unix
from genesis_flow.embedded.errors import EmbeddedUnavailable

# A socket's address holds 104 bytes on macOS and 108 on Linux; mongod needs a few for itself.
_LONGEST_SOCKET_PATH = 90
# mongod takes a list of addresses, separated by commas, and each may end in a colon and a port.
_MISREAD_IN_ADDRESSES = frozenset(",:")
# The same for all processes, whatever their TMPDIR; XDG_RUNTIME_DIR goes away at logout, a training does not.
_SHORT_FOLDER = Path("/tmp")


@dataclass(frozen=True, slots=True)
class Layout:
    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "db"

    @property
    def log(self) -> Path:
        return self.directory / "mongod.log"

    @property
    def users_lock(self) -> Path:
        """Held shared by every process that uses the server, alone by a keeper that stops it."""
        return self.directory / "users.lock"

    @property
    def keeper_lock(self) -> Path:
        """Held by the keeper: there is one."""
        return self.directory / "keeper.lock"

    @property
    def pin(self) -> Path:
        """While it exists the server stays without users."""
        return self.directory / "pinned"

    @property
    def state(self) -> Path:
        return self.directory / "server.json"

    @property
    def socket(self) -> Path:
        beside = self.directory / "mongod.sock"
        name = str(beside)
        is_short = len(os.fsencode(name)) <= _LONGEST_SOCKET_PATH
        if is_short and name.isprintable() and not _MISREAD_IN_ADDRESSES & set(name):
            return beside
        digest = hashlib.blake2b(os.fsencode(self.directory), digest_size=12).hexdigest()
        return _private_folder() / f"{digest}.sock"

    @property
    def uri(self) -> str:
        return f"mongodb://{quote(str(self.socket), safe='')}/?directConnection=true"

    def read_state(self) -> dict[str, Any]:
        """The last state that the keeper wrote; empty if it never did."""
        try:
            state = json.loads(self.state.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def layout_of(directory: Path) -> Layout:
    """The layout for ``directory``, by its real path: all who mean the same folder get the same server."""
    require_unix()
    return Layout(Path(os.path.realpath(directory)))


def _private_folder() -> Path:
    """A short folder that only this user may enter, for sockets whose own folder cannot be an address."""
    folder = _SHORT_FOLDER / f"genesis-flow-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise EmbeddedUnavailable(
            f"Cannot make {folder} for the server's socket: {error.strerror}. Use a directory with a short "
            "and plain path for genesis://."
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise EmbeddedUnavailable(
            f"{folder} must be a folder that only you may enter, and it is not. Remove it, or use a "
            "directory with a short and plain path for genesis://."
        )
    return folder
