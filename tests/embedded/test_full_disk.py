"""A real file system without room: it is said, nothing acknowledged is lost, and it goes on with room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore, embedded
from tests.embedded.helpers import uri_of

DISK_BYTES = 160 * 1024 * 1024
LEFT_BYTES = 2 * 1024 * 1024
TAGS = 50
BATCHES = 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which only root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if can_mount() else None
    if done is None or done.returncode:
        if "CI" in os.environ:
            pytest.fail(f"a file system has to be mounted: {done.stderr if done else 'as root'}")
        pytest.skip("only root can mount a file system")
    yield folder
    embedded.stop(folder / "data", force=True)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    found = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(b"\0" * (found.f_bavail * found.f_frsize - LEFT_BYTES))
    return ballast


def batch(number: int) -> list[RunTag]:
    return [RunTag(f"tag {key}", f"{number} " + os.urandom(3000).hex()) for key in range(TAGS)]


def test_it_says_that_the_disk_is_full_and_goes_on_when_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "100")
    directory = disk / "data"
    store = MongoDBStore(uri_of(directory))
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    ballast = fill(disk)
    acknowledged = 0

    def log_until_it_fails() -> None:
        nonlocal acknowledged
        for number in range(1, BATCHES):
            store.log_batch(run_id, [], [], batch(number))
            acknowledged = number

    full = r"disk is full: only \d+\.\d MB are free where .*data is"
    with pytest.raises(MlflowException, match=full) as told:
        log_until_it_fails()
    assert told.value.error_code == "TEMPORARILY_UNAVAILABLE"
    with pytest.raises(MlflowException, match="disk is full"):
        MongoDBStore(uri_of(directory)).get_run(run_id)
    ballast.unlink()
    # The batch that failed may have been written whole before the server ended.
    stored = {value.split()[0] for key, value in store.get_run(run_id).data.tags.items() if "tag" in key}
    assert stored in ({str(acknowledged)} if acknowledged else set(), {str(acknowledged + 1)})
    store.log_batch(run_id, [], [], batch(BATCHES))
    assert store.get_run(run_id).data.tags["tag 0"].startswith(f"{BATCHES} ")
    store.close()
