"""Directories in which something is wrong: another user's files, rights for all, files spoilt or removed."""

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis_flow import embedded
from genesis_flow.cli.main import cli
from genesis_flow.embedded import EmbeddedUnavailable, files
from genesis_flow.embedded.layout import Layout
from genesis_flow.embedded.locks import is_locked
from tests.embedded.helpers import PATIENCE, client, has_ended, uri_of, wait_until

NOBODY = 65534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="only root can act as another user"
)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that another user can reach; pytest's own cannot be entered by others."""
    folder = Path("/var/tmp", f"genesis-flow-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    yield folder
    for used in folder.iterdir():
        embedded.stop(used, force=True)
    shutil.rmtree(folder)


def as_nobody(call: str, directory: Path) -> str:
    """What a process of another user gets of ``call``."""
    program = f"""
        import os
        from pathlib import Path
        from genesis_flow import embedded
        mongod = embedded.find_mongod()
        os.setgroups([])
        os.setgid({NOBODY})
        os.setuid({NOBODY})
        os.environ["HOME"] = "/nonexistent"
        embedded.server.find_mongod = lambda: mongod  # not every user may enter root's environment
        try:
            embedded.{call}(Path({str(directory)!r}))
        except embedded.EmbeddedUnavailable as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
@pytest.mark.parametrize("call", ["acquire", "start", "stop", "status"])
def test_a_directory_that_root_used_says_whose_it_is(shared: Path, call: str) -> None:
    directory = shared / "data"
    directory.mkdir()
    embedded.acquire(directory).release()
    embedded.stop(directory)
    os.chown(directory, NOBODY, NOBODY)
    told = as_nobody(call, directory)
    assert "belongs to root" in told
    assert f"chown -R {files._name(NOBODY)} {directory}" in told


@needs_root
def test_one_file_of_root_is_named_before_mongod_stumbles_over_it(shared: Path) -> None:
    directory = shared / "data"
    directory.mkdir()
    embedded.acquire(directory).release()
    embedded.stop(directory)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    os.chown(directory / "db" / "WiredTiger.wt", 0, 0)
    assert "WiredTiger.wt belongs to root" in as_nobody("acquire", directory)


@needs_root
def test_a_directory_that_is_closed_to_the_user(shared: Path) -> None:
    (shared / "data").mkdir(mode=0o700)
    assert "data belongs to root" in as_nobody("acquire", shared / "data")


def test_a_directory_that_is_open_to_all_is_told_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with caplog.at_level(logging.WARNING, logger="genesis_flow"):
        for _ in range(2):
            embedded.acquire(directory).release()
    assert [record.getMessage().count(f"chmod o-w {directory}") for record in caplog.records] == [1]
    checks = json.loads(CliRunner().invoke(cli, ["doctor", "--json", "--uri", uri_of(directory)]).output)
    found = {check["check"]: check for check in checks["checks"]}["credentials"]
    assert found["verdict"] == "warn"
    assert "chmod o-w" in found["advice"]


@pytest.mark.parametrize("call", [embedded.acquire, embedded.status, embedded.stop])
def test_a_folder_in_the_place_of_a_file_is_named(directory: Path, call: object) -> None:
    (directory / "server.json").mkdir(parents=True)
    (directory / "keeper.lock").touch()
    assert callable(call)
    if call is embedded.acquire:
        with pytest.raises(EmbeddedUnavailable, match=r"server\.json is a folder.* Remove it"):
            call(directory)
        (directory / "server.json").rmdir()
    call(directory)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "stopped"}'])
def test_a_spoilt_state_is_written_anew(directory: Path, content: str) -> None:
    with embedded.acquire(directory):
        pid = embedded.status(directory).pid
        (directory / "server.json").write_text(content)
        with embedded.acquire(directory, timeout=PATIENCE):
            assert embedded.status(directory).pid == pid


@pytest.mark.parametrize("removed", ["", "db", "db/WiredTiger", "server.json", "keeper.lock"])
def test_a_removal_ends_the_server_at_once(directory: Path, removed: str) -> None:
    """By the kernel's word: this keeper does not look by itself before the test has failed."""
    for folder in (directory, directory / "db"):
        folder.mkdir()
    program = f"""
        import sys
        from genesis_flow.embedded import keeper
        keeper.LOOK_SECONDS = 600
        arguments = [{str(directory)!r}, {str(embedded.find_mongod())!r}, {str(Layout(directory).socket)!r}]
        sys.exit(keeper.Keeper(*arguments, 600).run())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        wait_until(lambda: is_locked(directory / "keeper.lock"))  # or another keeper would be started
        with embedded.acquire(directory) as server:
            with client(server.uri) as mongo:  # closed before the server ends: later it would wait for one
                assert mongo.db.things.insert_one({"_id": 1}).acknowledged
            pid = embedded.status(directory).pid
            assert json.loads((directory / "server.json").read_text())["keeper"] == process.pid
            target = directory / removed
            if target.is_dir():
                # What mongod makes in its last moments would be an error of the removal.
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink()
            wait_until(lambda: has_ended(pid))
            assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
