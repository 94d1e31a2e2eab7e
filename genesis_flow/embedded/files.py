"""Whose the files of a directory are, and what to say when they cannot be used."""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from genesis_flow.embedded.errors import EmbeddedUnavailable
from genesis_flow.embedded.layout import Layout

_logger = logging.getLogger(__name__)
_warned: set[Path] = set()


@contextlib.contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turn what the system says of a file into a sentence that says what to do."""
    try:
        yield
    except OSError as error:
        raise EmbeddedUnavailable(_sentence(layout, error)) from error


def _sentence(layout: Layout, error: OSError) -> str:
    file = Path(os.fsdecode(error.filename)) if error.filename else layout.directory
    if error.errno == errno.EISDIR:
        return (
            f"{file} is a folder, where the MongoDB in {layout.directory} keeps a file. Remove it, and the "
            "next call goes on."
        )
    if isinstance(error, PermissionError):
        return taken_by_other(layout, file)
    return (
        f"The MongoDB in {layout.directory} cannot be used: {error.strerror} ({file}). Choose a directory on "
        "a local disk that you may write to: genesis:///path/to/directory."
    )


def taken_by_other(layout: Layout, file: Path) -> str:
    """What to say of a file that this user may not use."""
    owner, self = _owner(file), _name(os.geteuid())
    if owner == self:
        reason, cure = "is closed to you", f"Open it (chmod -R u+rwX {layout.directory})"
    else:
        reason, cure = (
            f"belongs to {owner}",
            f"Have it made yours (sudo chown -R {self} {layout.directory})",
        )
    return (
        f"You may not use the MongoDB in {layout.directory}: {file.name} {reason}. {cure}, or choose a "
        "directory of your own: genesis:///path/to/directory."
    )


def foreign_file(layout: Layout) -> Path | None:
    """A file that mongod or its keeper could not use as this user; another user, mostly root, made it."""
    own = (layout.keeper_lock, layout.users_lock, layout.state, layout.log, layout.data)
    for file in own:
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            return file
    with os.scandir(layout.data) as entries:
        for entry in entries:
            # mongod may remove files meanwhile.
            if not os.access(entry.path, os.R_OK | os.W_OK) and os.path.lexists(entry.path):
                return Path(entry.path)
    return None


def is_open_to_all(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IWOTH)


def warn_if_open(layout: Layout) -> None:
    """Once a process. No refusal: volumes of containers, whose one user is alone, often come like this."""
    if layout.directory in _warned or not is_open_to_all(layout.directory):
        return
    _warned.add(layout.directory)
    _logger.warning(
        "Every user of this machine may put files in the place of your MongoDB's in %s, and so read what you "
        "log and change it. Close it: chmod o-w %s",
        layout.directory,
        layout.directory,
    )


def _owner(file: Path) -> str:
    try:
        return _name(file.stat().st_uid)
    except OSError:  # a folder above it is closed to us
        return "another user"


def _name(user: int) -> str:
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
