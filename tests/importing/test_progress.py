"""What is said while an import goes on, and to whom."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from genesis_flow.importers import progress
from genesis_flow.importers.progress import Lines
from genesis_flow.importers.stats import Stats
from tests.importing.jobs import Job
from tests.importing.small_trees import Tree


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_resumed_import_tells_the_speed_of_what_it_reads(clock: Clock) -> None:
    """What was imported before is passed over at once, which says nothing of the rest."""
    lines: list[str] = []
    shown = Lines(lines.append)
    shown.begin(1_000)
    shown.phase("run")
    clock.now += 5
    shown.done(Stats(units=900, unchanged_units=900))
    assert lines == ["runs: 900 of 1,000 units (90%), 900 as they were"]
    clock.now += 20
    shown.done(Stats(units=940, unchanged_units=900, read=Counter(metric_point=800)))
    assert lines[1:] == [
        "runs: 940 of 1,000 units (94%), 900 as they were, 2/s, 800 points (40/s), about 30.0 s left"
    ]


def test_a_first_import_tells_its_speed_from_the_beginning(clock: Clock) -> None:
    lines: list[str] = []
    shown = Lines(lines.append)
    shown.begin(100)
    shown.phase("run")
    clock.now += 10
    shown.done(Stats(units=50))
    assert lines == ["runs: 50 of 100 units (50%), 5/s, about 10.0 s left"]


# Commands of `genesis-migrate`, one after the other in one process, which loads MLflow once.
COMMANDS = """
import os, sys
from genesis_flow.cli.migrate import cli
from genesis_flow.importers import progress
from genesis_flow.migrate import batches

progress.REPORT_SECONDS = batches.REPORT_SECONDS = 0
for line in sys.stdin:
    try:
        cli.main(["--uri", sys.argv[1], "import", *line.split()])
    except SystemExit as end:
        sys.stdout.flush()
        os.write(1, f"\\0{end.code}\\n".encode())
"""


def test_programs_get_json_and_nothing_beside_it(job: Job, tree: Tree) -> None:
    """Programs that read both outputs as one must find JSON; a person at a terminal sees the progress."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS, job.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        told, heard = process.stdin, process.stdout

        def run(*arguments: str) -> str:
            told.write(" ".join(arguments) + "\n")
            told.flush()
            said = ""
            while not said.endswith("\0"):
                said += (piece := heard.read(1))
                assert piece, said
            assert heard.readline() == "0\n", said
            return said[:-1]

        assert json.loads(run(tree.uri, "--analyze", "--json"))["read"]["run"] == 3
        assert "units (" in run(tree.uri)
        journal = json.loads(run(tree.uri, "--json"))["journal"]
        assert "source_checksum" in json.loads(run(tree.uri, "--verify", "--json"))
        assert json.loads(run("--rollback", journal, "--json"))["removed"]["runs"] == 3
        told.close()
    assert process.returncode == 0
