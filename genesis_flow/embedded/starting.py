"""Bring the server of a directory up, or say why it does not come up."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from genesis_flow.embedded.errors import EmbeddedUnavailable
from genesis_flow.embedded.files import foreign_file, taken_by_other
from genesis_flow.embedded.layout import Layout
from genesis_flow.embedded.locks import is_locked

LINGER_VARIABLE = "GENESIS_FLOW_EMBEDDED_LINGER"
# Scripts that run one after the other find the server warm.
DEFAULT_LINGER = 5.0
_POLL = 0.02
# How long to wait for an answer of a server that may have ended since; then it is looked after again.
_ANSWER_SECONDS = 2.0
# Variables that the keeper and mongod need; nobody's credentials belong in a process that stays.
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ALREADY_INITIATED = 23


def ensure_usable(layout: Layout, mongod: Path, deadline: float) -> None:
    """Return when the server answers as a primary, whoever started it."""
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
    while not is_up(layout):
        state = layout.read_state()
        if state.get("state") == "failed" and state.get("time", 0) >= began:
            _require_room(layout)
            raise EmbeddedUnavailable(_why_failed(layout, state))
        if not is_locked(layout.keeper_lock) and time.monotonic() - launched > 1:
            _launch_keeper(layout, mongod)
            launched = time.monotonic()
        pause(deadline, "start", layout)


def is_up(layout: Layout) -> bool:
    """Whether the server runs under the eyes of its keeper; one without is ending, or would never end."""
    if not is_locked(layout.keeper_lock) or layout.read_state().get("state") != "running":
        return False
    return _answers(layout.socket)


def _require_room(layout: Layout) -> None:
    from genesis_flow.embedded.keeper import LEAST_FREE_BYTES  # not on Windows

    free = shutil.disk_usage(layout.directory).free
    if free < LEAST_FREE_BYTES:
        raise EmbeddedUnavailable(
            f"The disk is full: only {free / 1e6:.1f} MB are free where {layout.directory} is, and a MongoDB "
            f"needs {LEAST_FREE_BYTES / 1e6:.0f} MB to start. Make room, and the next call goes on; or "
            "choose a directory on another disk: genesis:///path/to/directory."
        )


def _launch_keeper(layout: Layout, mongod: Path) -> None:
    """Start a keeper, which detaches itself; if several do at once, all but one end again."""
    _require_room(layout)
    if (foreign := foreign_file(layout)) is not None:
        raise EmbeddedUnavailable(taken_by_other(layout, foreign))
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
            pause(deadline, "become writable", layout)


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
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def pause(deadline: float, what: str, layout: Layout) -> None:
    if time.monotonic() > deadline:
        raise EmbeddedUnavailable(
            f"The MongoDB in {layout.directory} did not {what} in time. Its log is {layout.log}."
        )
    time.sleep(_POLL)
