"""Start, join and stop the embedded MongoDB of a directory."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from genesis_flow.embedded.binary import find_mongod
from genesis_flow.embedded.errors import EmbeddedInUse, EmbeddedUnavailable
from genesis_flow.embedded.layout import Layout, layout_of

if sys.platform != "win32":
    import fcntl

LINGER_VARIABLE = "GENESIS_FLOW_EMBEDDED_LINGER"
# Scripts that run one after the other find the server warm.
DEFAULT_LINGER = 5.0
DEFAULT_TIMEOUT = 30.0
_POLL = 0.02
# How long to wait for an answer of a server that may have ended since; then it is looked after again.
_ANSWER_SECONDS = 2.0
# A new database takes about 10 MB, and mongod ends where it cannot write.
_LEAST_FREE_BYTES = 32 * 1024 * 1024
# What the keeper and mongod need of the environment; nobody's credentials belong in a process that stays.
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ALREADY_INITIATED = 23


class EmbeddedServer:
    """A running server that this process, and every child it forks, holds in use."""

    def __init__(self, layout: Layout, users_lock: int) -> None:
        self.directory = layout.directory
        self.uri = layout.uri
        self._users_lock: int | None = users_lock

    def release(self) -> None:
        """Give up the use; the server stops some seconds after its last user did."""
        if self._users_lock is not None:
            os.close(self._users_lock)
            self._users_lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


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
    deadline = time.monotonic() + timeout
    users_lock = _hold(layout, deadline)
    try:
        _ensure_usable(layout, mongod, deadline)
    except BaseException:
        os.close(users_lock)
        raise
    return EmbeddedServer(layout, users_lock)


def start(directory: Path, *, timeout: float = DEFAULT_TIMEOUT) -> Status:
    """Start the server of ``directory`` and let it run without users until ``stop()``."""
    with acquire(directory, timeout=timeout):
        layout_of(directory).pin.touch(mode=0o600)
        return status(directory)


def stop(directory: Path, *, force: bool = False, timeout: float = DEFAULT_TIMEOUT) -> Status:
    """Stop the server of ``directory``; while others use it only with ``force``."""
    layout = layout_of(directory)
    deadline = time.monotonic() + timeout
    if _is_locked(layout.keeper_lock):
        with contextlib.nullcontext() if force else _without_users(layout, deadline):
            layout.pin.unlink(missing_ok=True)
            _end_keeper(layout, deadline)
    layout.pin.unlink(missing_ok=True)
    return status(directory)


def status(directory: Path) -> Status:
    """What is known of the server of ``directory``, without starting anything."""
    layout = layout_of(directory)
    running = _is_up(layout)
    pid = layout.read_state().get("pid") if running else None
    files = layout.data.rglob("*") if layout.data.is_dir() else ()
    return Status(
        directory=layout.directory,
        running=running,
        pinned=layout.pin.exists(),
        in_use=_has_users(layout.users_lock),
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
        raise EmbeddedUnavailable(
            f"Cannot keep a MongoDB in {layout.directory}: {error.strerror}. Choose a directory that you may "
            "write to: genesis:///path/to/directory."
        ) from error


def _hold(layout: Layout, deadline: float) -> int:
    """Take the shared lock, which a keeper that stops the server keeps from us until it has ended."""
    users_lock = os.open(layout.users_lock, os.O_RDWR)
    try:
        while not _try_lock(users_lock, exclusive=False):
            _pause(deadline, "finish stopping", layout)
        return users_lock
    except OSError as error:
        os.close(users_lock)
        raise EmbeddedUnavailable(
            f"Cannot lock files in {layout.directory}: {error.strerror}. Use a local disk, not a network one."
        ) from error
    except BaseException:
        os.close(users_lock)
        raise


def _ensure_usable(layout: Layout, mongod: Path, deadline: float) -> None:
    while True:
        _ensure_running(layout, mongod, deadline)
        try:
            return _ensure_primary(layout, deadline)
        except PyMongoError as error:
            # If it ended just now, its keeper starts it again, or we start a keeper.
            has_ended = error.timeout or isinstance(error, ConnectionFailure)
            if not has_ended or time.monotonic() > deadline:
                raise EmbeddedUnavailable(
                    f"The MongoDB in {layout.directory} started but cannot be used: {error}. "
                    f"Its log is {layout.log}."
                ) from error
        time.sleep(_POLL)


def _ensure_running(layout: Layout, mongod: Path, deadline: float) -> None:
    began = time.time()
    launched = 0.0
    while not _is_up(layout):
        state = layout.read_state()
        if state.get("state") == "failed" and state.get("time", 0) >= began:
            raise EmbeddedUnavailable(_why_failed(layout, state))
        if not _is_locked(layout.keeper_lock) and time.monotonic() - launched > 1:
            _launch_keeper(layout, mongod)
            launched = time.monotonic()
        _pause(deadline, "start", layout)


def _is_up(layout: Layout) -> bool:
    """Whether the server runs under the eyes of its keeper; one without is ending, or would never end."""
    if not _is_locked(layout.keeper_lock) or layout.read_state().get("state") != "running":
        return False
    return _answers(layout.socket)


def _launch_keeper(layout: Layout, mongod: Path) -> None:
    """Start a keeper, which detaches itself; if several do at once, all but one end again."""
    free = shutil.disk_usage(layout.directory).free
    if free < _LEAST_FREE_BYTES:
        raise EmbeddedUnavailable(
            f"Only {free / 1e6:.1f} MB are free where {layout.directory} is, too little for a MongoDB. Make "
            "room, or choose a directory on another disk: genesis:///path/to/directory."
        )
    keeper = str(Path(__file__).with_name("keeper.py"))
    arguments = [str(layout.directory), str(mongod.resolve()), str(layout.socket), str(_linger())]
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", keeper, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedUnavailable(
            f"Cannot start the keeper of {layout.directory} with {sys.executable or 'this Python'}: {error}. "
            "Start the server beforehand: genesis-flow db start DIRECTORY."
        ) from error


def _linger() -> float:
    given = os.environ.get(LINGER_VARIABLE)
    try:
        return DEFAULT_LINGER if given is None else max(0.0, float(given))
    except ValueError as error:
        raise EmbeddedUnavailable(f"{LINGER_VARIABLE} must be a number of seconds, not {given!r}.") from error


def _ensure_primary(layout: Layout, deadline: float) -> None:
    """Make the server the one member of its replica set; any number of clients may do so at once."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(layout.uri)
    patience = max(0.1, deadline - time.monotonic())
    with client, pymongo.timeout(patience):
        with pymongo.timeout(_ANSWER_SECONDS):
            if client.admin.command("hello").get("isWritablePrimary"):
                return
        _configure(client, str(layout.socket))
        while not client.admin.command("hello").get("isWritablePrimary"):
            _pause(deadline, "become writable", layout)


def _configure(client: "pymongo.MongoClient[dict[str, Any]]", address: str) -> None:
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure:  # a new database
        config = {"_id": "genesis", "members": [{"_id": 0, "host": address}]}
        try:
            client.admin.command({"replSetInitiate": config})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIATED:  # another client was first
                raise
        return
    if [member["host"] for member in config["members"]] == [address]:
        return  # it is about to elect itself
    # The directory was moved or copied: the configuration in it names the old socket.
    config["members"] = [{"_id": 0, "host": address}]
    config["version"] += 1
    client.admin.command({"replSetReconfig": config, "force": True})


def _why_failed(layout: Layout, state: dict[str, Any]) -> str:
    said = str(state.get("log", "")).strip()
    advice = ""
    if "error while loading shared libraries" in said:
        advice = " Install the library that it names (on Debian and Ubuntu: libcurl4 libssl3)."
    return (
        f"The MongoDB in {layout.directory} does not start: {state.get('reason')}.{advice} It said:\n{said}"
    )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _without_users(layout: Layout, deadline: float) -> Iterator[None]:
    """Hold the users' lock alone, so that newcomers wait; also while a keeper without users does the same."""
    users_lock = os.open(layout.users_lock, os.O_RDWR)
    try:
        while not _try_lock(users_lock, exclusive=True) and _is_locked(layout.keeper_lock):
            if _has_users(layout.users_lock):
                raise EmbeddedInUse(
                    f"Other processes use the MongoDB in {layout.directory}. It stops by itself when the "
                    "last of them ends; --force stops it now, but the next call of theirs starts it again."
                )
            _pause(deadline, "stop", layout)
        yield
    finally:
        os.close(users_lock)


def _end_keeper(layout: Layout, deadline: float) -> None:
    """Tell the keeper to stop, and wait until it has, or until a user has started another."""
    told: int | None = None
    while _is_locked(layout.keeper_lock):
        keeper_pid = layout.read_state().get("keeper")
        if isinstance(keeper_pid, int) and keeper_pid != told:
            if told is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper_pid, signal.SIGTERM)
            told = keeper_pid
        _pause(deadline, "stop", layout)


def _is_locked(path: Path) -> bool:
    """Does another open file hold the lock on ``path`` alone? To look so does not disturb others who look."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(file, exclusive=False)
    finally:
        os.close(file)


def _has_users(path: Path) -> bool:
    """Do other open files share the lock on ``path``? A keeper about to stop the server holds it alone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return (
            not _try_lock(file, exclusive=True)
            and _try_lock(file, exclusive=False)
            and not _try_lock(file, exclusive=True)
        )
    finally:
        os.close(file)


def _try_lock(file: int, *, exclusive: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # mongod removes files as it works
        return 0


def _pause(deadline: float, what: str, layout: Layout) -> None:
    if time.monotonic() > deadline:
        raise EmbeddedUnavailable(
            f"The MongoDB in {layout.directory} did not {what} in time. Its log is {layout.log}."
        )
    time.sleep(_POLL)
