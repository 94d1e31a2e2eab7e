"""Processes that only look like those of an embedded MongoDB are left alone."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genesis_flow import embedded
from genesis_flow.embedded import EmbeddedUnavailable, keeper
from tests.embedded.helpers import client, has_ended, wait_until


@pytest.fixture
def bystander(directory: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A program that works on the files of the database, as an editor or a backup does."""
    sleep = "import time; time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", sleep, "keeper.py", str(directory), "--dbpath", str(directory / "db")]
    )
    yield process
    process.kill()
    process.wait()


def copy_if_there(source: str, target: str) -> None:
    """A server that runs renames files at any time."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def state(pid: int, **more: Any) -> str:
    return json.dumps({"keeper": pid, "pid": pid, "state": "running", "time": time.time(), **more})


def test_a_stale_number_of_another_program_is_no_mongod(
    directory: Path, bystander: "subprocess.Popen[bytes]"
) -> None:
    directory.mkdir()
    found = keeper.describe(bystander.pid)
    assert found is not None
    for more in (
        {},
        {"program": str(embedded.find_mongod().resolve()), "began": found.began},
        {"program": found.program, "began": "1"},
    ):
        (directory / "server.json").write_text(state(bystander.pid, **more))
        with embedded.acquire(directory) as server, client(server.uri) as mongo:
            assert mongo.admin.command("ping")["ok"] == 1
        embedded.stop(directory)
        assert bystander.poll() is None


def test_a_stale_number_of_another_program_is_no_keeper(
    directory: Path, bystander: "subprocess.Popen[bytes]"
) -> None:
    """A keeper that has just begun holds its lock while the file still names the last one."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(directory)])
    directory.mkdir()
    (directory / "server.json").write_text(state(other.pid))
    lock = os.open(directory / "keeper.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedUnavailable, match="did not stop in time"):
            embedded.stop(directory, force=True, timeout=1)
        assert other.poll() is None
    finally:
        os.close(lock)
        other.kill()
        other.wait()


def test_a_copy_of_a_running_directory_leaves_the_original_alone(tmp_path: Path) -> None:
    """Also where the path of the copy is a part of the original's, by which the two were once confused."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "data")
        original = Path(f"{tmp_path}{copy}")
        try:
            with embedded.acquire(original) as server, client(server.uri) as mongo:
                mongo.db.things.insert_one({"_id": 1})
                pid = embedded.status(original).pid
                ignored = shutil.ignore_patterns("*.sock", "*.lock")
                shutil.copytree(original, copy, ignore=ignored, copy_function=copy_if_there)
                with embedded.acquire(copy) as other:
                    assert other.uri != server.uri
                assert not has_ended(pid)
                assert mongo.db.things.find_one() == {"_id": 1}
        finally:
            for used in (original, copy):
                embedded.stop(used, force=True)


def test_the_orphan_of_a_killed_keeper_is_known(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a script stands for mongod, as it does where libraries have to be found first."""
    script = directory.parent / "with-libraries"
    script.write_text(f'#!/bin/sh\nexec "{embedded.find_mongod().resolve()}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("GENESIS_FLOW_MONGOD", str(script))
    with embedded.acquire(directory):

        def noted() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((directory / "server.json").read_text())
            return found

        wait_until(lambda: noted()["program"].endswith("mongod"))
        found = noted()
        process = keeper.Keeper(str(directory), str(script), "", 0)
        assert process._is_our_mongod(found["pid"], found["program"], found["began"])
        assert not process._is_our_mongod(found["pid"], found["program"], "1")
        assert not process._is_our_mongod(found["pid"], "/bin/sh", found["began"])
        elsewhere = keeper.Keeper(str(directory.parent), str(script), "", 0)
        assert not elsewhere._is_our_mongod(found["pid"], found["program"], found["began"])
