"""What processes have counted, added up, and what the dead have left."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genesis_flow.metrics.folder import Folder
from tests.metrics.samples import Samples

# Counts a request, has one in flight, counts something of another package, tells that it did, and waits.
PROCESS = """
import sys
from prometheus_client import Counter
from genesis_flow.mongo import counting
counting.requests.labels("GET", "/health", "200").inc()
counting.request_durations.labels("GET", "/health").observe(0.3)
counting.requests_in_flight.inc()
Counter("of_another_package", "help", ["user"]).labels("somebody").inc()
print("counted", flush=True)
sys.stdin.read()
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def end(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.communicate(timeout=150)


def test_the_dead_leave_what_they_counted_and_nothing_else(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    processes = [start(tmp_path) for _ in range(3)]
    try:
        both = Samples(folder.collect())
        assert both.sum("http_requests_total", route="/health", status="200") == 3
        assert both.sum("http_requests_in_flight") == 3
        assert folder.processes() == {process.pid for process in processes}
        # Of another package nothing, since nobody knows what its labels tell.
        assert "somebody" in b"".join(file.read_bytes() for file in tmp_path.iterdir()).decode(
            errors="replace"
        )
        assert all(name.startswith("genesis_flow_") for name in both.names)

        end(processes[0], signal.SIGKILL)
        end(processes[1], signal.SIGKILL)
        for _ in range(2):  # the second time there is nothing left to add
            one = Samples(folder.collect())
            assert one.sum("http_requests_total", route="/health", status="200") == 3
            assert one.sum("http_request_duration_seconds_count", route="/health") == 3
            assert one.sum("http_request_duration_seconds_bucket", route="/health", le="0.5") == 3
            assert one.sum("http_requests_in_flight") == 1
            assert folder.processes() == {processes[2].pid}
        left = {file.name for file in tmp_path.iterdir()}
        assert not any(str(process.pid) in name for process in processes[:2] for name in left), left
    finally:
        for process in processes:
            if process.poll() is None:
                end(process, signal.SIGTERM)
    folder.sweep()
    assert Samples(folder.collect()).sum("http_requests_total", route="/health") == 3
    assert folder.processes() == set()


def test_a_file_that_was_being_made_is_passed_over(tmp_path: Path) -> None:
    dead = multiprocessing.get_context("spawn").Process()
    dead.start()
    dead.join()
    (tmp_path / f"counter_{dead.pid}.db").touch()
    (tmp_path / f"histogram_{dead.pid}.db").write_bytes(b"\x7f" * 16)
    (tmp_path / f"counter_{os.getpid()}.db").touch()
    assert [*Folder(tmp_path).collect()] == []
    assert [file.name for file in tmp_path.iterdir()] == [f"counter_{os.getpid()}.db"]


@pytest.mark.skipif(os.name != "posix", reason="a signal that only asks")
def test_a_number_that_another_user_has_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(pid: int, number: int) -> None:
        assert number == 0
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    (tmp_path / "gauge_livesum_4711.db").touch()
    assert Folder(tmp_path).processes() == set()
    Folder(tmp_path).sweep()
    assert [*tmp_path.iterdir()] == []
