"""``genesis-flow watch``, as a program."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from mlflow.entities import Metric, Param, RunStatus

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics.wide import WIDE_FROM
from tests.client.conftest import PATIENCE_SECONDS, Outcome, run_command, user_environment
from tests.signals import heed_interrupts

PROGRAM = (sys.executable, "-m", "genesis_flow.cli")


@pytest.fixture
def writer(store_uri: str) -> Iterator[MongoDBStore]:
    made = MongoDBStore(store_uri)
    yield made
    made.close()


@pytest.fixture
def run_id(writer: MongoDBStore) -> str:
    run = str(writer.create_run("0", "me", 1, [], "a run").info.run_id)
    writer.log_batch(run, [Metric("loss", 0.5, 1, 0), Metric("val/loss", 0.7, 1, 0)], [Param("p", "1")])
    for step in range(1, 20):
        writer.log_metric(run, Metric("loss", 1 / step, step, step))
    return run


def watched(uri: str, *args: str) -> Outcome:
    return run_command(*PROGRAM, "watch", "--uri", uri, *args)


def begun(uri: str, *args: str, out: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PROGRAM, "watch", "--uri", uri, *args],
        env=user_environment(TERM="xterm"),
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def test_what_there_is_as_lines_and_as_json(store_uri: str, run_id: str) -> None:
    lines = watched(store_uri, run_id[:8], "--once", "--metrics", "val/*")
    assert lines.code == 0, lines.stderr
    assert lines.stdout.splitlines()[1:] == [f"{run_id[:8]}  a run  val/loss = 0.7 at step 0"]
    assert "found, RUNNING, param p = 1" in lines.stdout
    shown = watched(store_uri, "Default", "--once", "--json", "--tokens")
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [event["event"] for event in events] == ["run_found", "metric_logged", "metric_logged"]
    assert len(events[1]["points"]) == 20
    assert events[2]["points"] == [[1, 0, 0.7]]
    rest = watched(store_uri, "Default", "--once", "--json", "--after", events[1]["token"])
    assert [json.loads(line)["key"] for line in rest.stdout.splitlines()] == ["val/loss"]


def test_steps_of_many_metrics_as_json(store_uri: str, writer: MongoDBStore, run_id: str) -> None:
    """Some that wait when the watch begins, and some that come and are folded by the end of the run."""
    names = [f"wide/{number:02}" for number in range(WIDE_FROM)]

    def log(steps: range) -> None:
        for step in steps:
            writer.log_batch(run_id, [Metric(name, 1.0, step, step) for name in names])

    log(range(10))
    program = begun(store_uri, run_id, "--until-finished", "--json", "--metrics", "wide/*")
    assert program.stdout is not None
    first = [program.stdout.readline() for _ in range(1 + WIDE_FROM)]
    log(range(10, 20))
    writer.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    out, errors = program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == 0, errors
    events = [json.loads(line) for line in [*first, *out.splitlines()]]
    for name in names:
        told = [event["points"] for event in events if event.get("key") == name]
        assert [point[1] for points in told for point in points] == list(range(20))
        assert len(told) == 11, "each step when it came"


@pytest.mark.parametrize(("status", "code"), [(RunStatus.FINISHED, 0), (RunStatus.FAILED, 3)])
def test_it_ends_with_the_runs(
    store_uri: str, writer: MongoDBStore, run_id: str, status: int, code: int
) -> None:
    program = begun(store_uri, run_id, "--until-finished", "--json", "--from-now")
    has_begun = threading.Event()

    def log() -> None:
        step = 100
        while not has_begun.wait(0.1):
            writer.log_metric(run_id, Metric("loss", 1.0, step, step))
            step += 1

    logging = threading.Thread(target=log)
    logging.start()
    assert program.stdout is not None
    first = program.stdout.readline()
    has_begun.set()
    logging.join()
    assert json.loads(first)["event"] == "metric_logged"
    writer.update_run_info(run_id, status, 9, None)
    out, errors = program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == code, errors
    assert json.loads(out.splitlines()[-1])["status"] == RunStatus.to_string(status)


@pytest.mark.timeout(400)
def test_a_terminal_shows_curves_until_ctrl_c(store_uri: str, run_id: str) -> None:
    mine, its = pty.openpty()
    program = begun(store_uri, "a run", out=its)
    os.close(its)
    read = b""
    while b"20 points" not in read:
        read += os.read(mine, 10_000)
    program.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # what Linux says of a terminal that nobody has open any more
        while more := os.read(mine, 10_000):  # a program that draws waits for its terminal
            read += more
    _, errors = program.communicate(timeout=PATIENCE_SECONDS)
    os.close(mine)
    shown = read.decode()
    assert program.returncode == 130
    assert errors == ""
    assert "█" in shown
    assert "p=1" in shown


def test_what_is_said_of_what_is_not_there(store_uri: str, run_id: str) -> None:
    outcome = watched(store_uri, "nothing of this name")
    assert outcome.code == 1
    assert "No run has the name" in outcome.stderr
    assert "There is no experiment" in outcome.stderr
    outcome = watched("http://127.0.0.1:5000", run_id)
    assert outcome.code == 1
    assert "mongodb://" in outcome.stderr
