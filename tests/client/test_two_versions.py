"""Clients of two versions of MLflow on one database: at once, and each reads what the other wrote."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.version import VERSION

from tests.client.conftest import PATIENCE_SECONDS, program_command, user_environment

# The Python of an environment with another version of MLflow; tools/mlflow_environment.py makes one.
OTHER_PYTHON = "GENESIS_FLOW_OTHER_PYTHON"


@pytest.fixture
def pythons() -> list[str]:
    other = os.environ.get(OTHER_PYTHON)
    if not other and not os.environ.get("CI"):
        pytest.skip(f"{OTHER_PYTHON} names no environment with another version of MLflow")
    assert other, f"Where CI is set, {OTHER_PYTHON} must name a Python with another version of MLflow."
    return [sys.executable, other]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_write_at_once_change_and_read(
    pythons: list[str], genesis_uri: str, unique_name: str, tmp_path: Path
) -> None:
    client = MlflowClient(genesis_uri)
    experiment_id = client.create_experiment(unique_name)
    shared = client.create_run(experiment_id, run_name="shared").info.run_id

    with ExitStack() as stack:
        arguments = (genesis_uri, unique_name)
        clients = [
            stack.enter_context(client_of(python, tmp_path, *arguments, me, shared))
            for python, me in zip(pythons, ("this", "other"), strict=True)
        ]

        def both(role: str) -> list[Any]:
            for each in clients:
                each.tell(role)
            return [each.answer() for each in clients]

        this, other = both("write")
        assert this["mlflow"] == VERSION
        assert other["mlflow"] != VERSION, f"{OTHER_PYTHON} has the same version of MLflow as this Python."
        this, other = (answer["seen"] for answer in both("read"))
        check(this, changed=False)
        assert this == other
        both("change")
        this, other = (answer["seen"] for answer in both("read"))
        check(this, changed=True)
        assert this == other


class Client:
    """A process that does at each word what it says."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def tell(self, role: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{role}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The next line of JSON; MLflow may write other lines before it."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith('{"mlflow": '):
                return json.loads(line)
        raise AssertionError(self._log.read_text())


@contextmanager
def client_of(python: str, folder: Path, uri: str, name: str, me: str, shared: str) -> Iterator[Client]:
    log = folder / f"{me}.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [python, *program_command("one_of_two", uri, name, me, shared)[1:]],
            cwd=folder,
            env=user_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Client(process, log)
            process.communicate(timeout=PATIENCE_SECONDS)  # the end of its input is its end
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()


def check(seen: Any, changed: bool) -> None:
    """What was written is there, once, whoever wrote it."""
    names = ["run of other", "run of this", "shared"]
    assert sorted(seen["runs"]) == names
    assert sorted(seen["models"]) == ["model-of-other", "model-of-this"]
    assert sorted(map(int, seen["versions"])) == list(range(1, 11))
    assert {"this": "was here", "other": "was here"}.items() <= seen["registered"].items()
    assert (len(seen["traces"]), seen["sessions"], len(seen["prompts"])) == (6, 3, 2)
    assert [entry[2] for entry in seen["datasets"]] == [4 + changed] * 2
    histories = {name: seen["runs"][name][6] for name in names}
    # Points of both clients, each once; those of this one and the other have times of their own.
    assert len(histories["shared"]["shared"]) == 100
    assert [len(histories["shared"][f"of {me}"]) for me in ("this", "other")] == [50, 50]
    for me, another in (("this", "other"), ("other", "this")):
        run = seen["runs"][f"run of {me}"]
        assert (run[0], run[2]["writer"], run[3]["loss"]) == ("FINISHED", me, 7.0 if changed else 0.02)
        assert (f"changed by {another}" in run[4]) is changed
        assert len(run[5]) == 1
        assert len(histories[f"run of {me}"]["loss"]) == 50 + changed
        assert len(seen["models"][f"model-of-{me}"][3]) == 50
        assert (f"changed by {another}" in seen["models"][f"model-of-{me}"][2]) is changed
    assert bool(seen["by metric"]) is changed
    assert len(seen["aliases"]) == 2 * changed
    assert [len(entry[-1]) for entry in seen["traces"]] == [int(changed)] * 6
