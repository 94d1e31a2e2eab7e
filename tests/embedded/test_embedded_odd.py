"""The embedded MongoDB where something is odd: stops that cross, strange paths, broken surroundings."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from genesis_flow import embedded
from genesis_flow.embedded import EmbeddedInUse, EmbeddedUnavailable
from tests.embedded.helpers import PATIENCE, client, has_ended, wait_until


def test_a_refused_stop_changes_nothing(directory: Path) -> None:
    embedded.start(directory)
    with embedded.acquire(directory):
        with pytest.raises(EmbeddedInUse):
            embedded.stop(directory)
        assert embedded.status(directory).pinned
    assert not embedded.stop(directory).pinned


def test_stop_while_it_is_stopping_by_itself_waits_for_the_end(directory: Path) -> None:
    server = embedded.acquire(directory)
    mongod = embedded.status(directory).pid
    assert mongod is not None
    users = os.open(directory / "users.lock", os.O_RDWR)
    # It would else be over before a test that is slow looks.
    os.kill(mongod, signal.SIGSTOP)
    go_on = threading.Timer(0.5, os.kill, (mongod, signal.SIGCONT))
    try:
        server.release()

        def is_held_alone() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(users, fcntl.LOCK_UN)
                return False
            return True

        wait_until(is_held_alone, pause=0.002)
        assert not embedded.status(directory).in_use
        go_on.start()
        assert not embedded.stop(directory, timeout=PATIENCE).running
    finally:
        go_on.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.kill(mongod, signal.SIGCONT)
        os.close(users)


def test_who_comes_while_it_is_made_to_stop_gets_a_running_one(directory: Path) -> None:
    with embedded.acquire(directory):
        os.kill(json.loads((directory / "server.json").read_text())["keeper"], signal.SIGTERM)
        time.sleep(0.3)
        with embedded.acquire(directory) as server, client(server.uri) as mongo:
            assert mongo.db.things.insert_one({"_id": 1}).acknowledged


def test_a_directory_that_was_taken_away_and_made_anew_has_its_own_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Within the linger: the first server is not about to stop for lack of users.
    monkeypatch.setenv("GENESIS_FLOW_EMBEDDED_LINGER", "60")
    embedded.acquire(directory).release()
    before = embedded.status(directory).pid
    directory.rename(directory.with_name("taken away"))
    wait_until(lambda: has_ended(before))
    with embedded.acquire(directory) as server, client(server.uri) as mongo:
        assert mongo.db.things.insert_one({"_id": 1}).acknowledged
        assert embedded.status(directory).pid not in (None, before)


@pytest.mark.parametrize("name", ["a,b", "a:27017"])
def test_a_path_that_is_no_address_works(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    try:
        with embedded.acquire(folder) as server, client(server.uri) as mongo:
            assert mongo.db.things.insert_one({"_id": 1}).acknowledged
    finally:
        embedded.stop(folder, force=True)


def test_users_with_different_temporary_folders_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long" * 30)
    try:
        with embedded.acquire(long) as server:
            for variable in ("TMPDIR", "XDG_RUNTIME_DIR"):
                monkeypatch.setenv(variable, str(tmp_path))
            monkeypatch.setattr(tempfile, "tempdir", None)
            with embedded.acquire(long, timeout=PATIENCE) as other:
                assert other.uri == server.uri
    finally:
        embedded.stop(long, force=True)


def test_a_file_that_is_no_program_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = directory.parent / "for-another-machine"
    other.write_bytes(b"\x7fELF for another machine")
    other.chmod(0o755)
    monkeypatch.setenv("GENESIS_FLOW_MONGOD", str(other))
    with pytest.raises(EmbeddedUnavailable, match="for-another-machine"):
        embedded.acquire(directory, timeout=PATIENCE)


def test_a_full_disk_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(EmbeddedUnavailable, match=r"only 1\.0 MB are free"):
        embedded.acquire(directory)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_secret_of_its_starter_stays_in_its_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    with embedded.acquire(directory):
        state = json.loads((directory / "server.json").read_text())
        for pid in (state["keeper"], state["pid"]):
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_starter_that_blocks_signals_does_not_make_it_unstoppable(directory: Path) -> None:
    program = f"""
        import signal
        from pathlib import Path
        from genesis_flow import embedded
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
        embedded.acquire(Path({str(directory)!r}))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=PATIENCE)
    assert not embedded.stop(directory, timeout=PATIENCE).running


def test_on_windows_it_can_be_imported_and_says_what_to_use(directory: Path) -> None:
    program = f"""
        import subprocess, sys
        from pathlib import Path
        import pymongo
        sys.modules["fcntl"] = None
        sys.platform = "win32"
        from genesis_flow import embedded
        for call in (embedded.acquire, embedded.start, embedded.stop, embedded.status):
            try:
                call(Path({str(directory)!r}))
            except embedded.EmbeddedUnavailable as error:
                print("Windows" in str(error))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True"] * 4
