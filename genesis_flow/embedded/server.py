"""Start, join and stop the embedded MongoDB of a directory."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genesis_flow.embedded.binary import find_mongod
from genesis_flow.embedded.errors import EmbeddedInUse, EmbeddedUnavailable
from genesis_flow.embedded.files import explained, taken_by_other, warn_if_open
from genesis_flow.embedded.held import EmbeddedServer, keep
from genesis_flow.embedded.layout import Layout, layout_of
from genesis_flow.embedded.locks import has_users, is_locked, try_lock
from genesis_flow.embedded.starting import ensure_usable, is_up, pause

DEFAULT_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    directory: Path
    running: bool
    pinned: bool
    in_use: bool
    pid: int | None
    uri: str | None
    log: Path
    data_bytes: int


def acquire(directory: Path, *, timeout: float = DEFAULT_TIMEOUT) -> EmbeddedServer:
    """Start the server of ``directory``, or join the running one, and hold it in use."""
    mongod = find_mongod()
    layout = layout_of(directory)
    _make_folders(layout)
    warn_if_open(layout)
    deadline = time.monotonic() + timeout
    with explained(layout):
        users_lock = _hold(layout, deadline)
        try:
            ensure_usable(layout, mongod, deadline)
            return EmbeddedServer(layout, users_lock)
        except BaseException:
            os.close(users_lock)
            raise


def hold(directory: Path, *, timeout: float = DEFAULT_TIMEOUT) -> EmbeddedServer:
    """Use the embedded server for the rest of this process. Call it again when the server lost its keeper."""
    return keep(acquire(directory, timeout=timeout))


def start(directory: Path, *, timeout: float = DEFAULT_TIMEOUT) -> Status:
    """Start the server of ``directory`` and let it run without users until ``stop()``."""
    layout = layout_of(directory)
    with acquire(directory, timeout=timeout), explained(layout):
        layout.pin.touch(mode=0o600)
        return status(directory)


def stop(directory: Path, *, force: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Status:
    """Stop the server of ``directory``; while others use it only with ``force``."""
    layout = layout_of(directory)
    deadline = time.monotonic() + timeout
    with explained(layout):
        if is_locked(layout.keeper_lock):
            with contextlib.nullcontext() if force else _without_users(layout, deadline):
                layout.pin.unlink(missing_ok=True)
                _end_keeper(layout, deadline)
        layout.pin.unlink(missing_ok=True)
    return status(directory)


def status(directory: Path) -> Status:
    """What is known of the server of ``directory``, without starting anything."""
    layout = layout_of(directory)
    with explained(layout):
        running = is_up(layout)
        pid = layout.read_state().get("pid") if running else None
        files = layout.data.rglob("*") if layout.data.is_dir() else ()
        return Status(
            directory=layout.directory,
            running=running,
            pinned=layout.pin.exists(),
            in_use=has_users(layout.users_lock),
            pid=pid,
            uri=layout.uri if running else None,
            log=layout.log,
            data_bytes=sum(_size(file) for file in files),
        )


def _make_folders(layout: Layout) -> None:
    try:
        layout.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.data.mkdir(mode=0o700, exist_ok=True)
        layout.users_lock.touch(mode=0o600)
    except OSError as error:
        for blamed in (Path(error.filename), layout.directory):
            if isinstance(error, PermissionError) and os.path.lexists(blamed):
                raise EmbeddedUnavailable(taken_by_other(layout, blamed)) from error
        raise EmbeddedUnavailable(
            f"Cannot keep a MongoDB in {layout.directory}: {error.strerror}. Choose a directory that you may "
            "write to: genesis:///path/to/directory."
        ) from error


def _hold(layout: Layout, deadline: float) -> int:
    """Take the shared lock, which a keeper that stops the server keeps from us until it has ended."""
    users_lock = os.open(layout.users_lock, os.O_RDWR)
    try:
        while not try_lock(users_lock, exclusive=False):
            pause(deadline, "finish stopping", layout)
        return users_lock
    except OSError as error:
        os.close(users_lock)
        raise EmbeddedUnavailable(
            f"Cannot lock files in {layout.directory}: {error.strerror}. Use a local disk, not a network one."
        ) from error
    except BaseException:
        os.close(users_lock)
        raise


@contextlib.contextmanager
def _without_users(layout: Layout, deadline: float) -> Iterator[None]:
    """Hold the users' lock alone, so that newcomers wait; also while a keeper without users does the same."""
    users_lock = os.open(layout.users_lock, os.O_RDWR)
    try:
        while not try_lock(users_lock, exclusive=True) and is_locked(layout.keeper_lock):
            if has_users(layout.users_lock):
                raise EmbeddedInUse(
                    f"Other processes use the MongoDB in {layout.directory}. It stops by itself when the "
                    "last of them ends; --force stops it now, but the next call of theirs starts it again."
                )
            pause(deadline, "stop", layout)
        yield
    finally:
        os.close(users_lock)


def _end_keeper(layout: Layout, deadline: float) -> None:
    """Tell the keeper to stop, and wait until it has, or until a user has started another."""
    from genesis_flow.embedded.keeper import is_keeper  # not on Windows

    signalled: int | None = None
    while is_locked(layout.keeper_lock):
        keeper_pid: Any = layout.read_state().get("keeper")
        # The file may still be the last keeper's, whose number may by now be another program's.
        is_new = isinstance(keeper_pid, int) and keeper_pid != signalled
        if is_new and is_keeper(keeper_pid, str(layout.directory)):
            if signalled is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper_pid, signal.SIGTERM)
            signalled = keeper_pid
        pause(deadline, "stop", layout)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # mongod removes files as it works
        return 0
