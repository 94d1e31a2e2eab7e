"""Several processes, or several stores, on one embedded database."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import PATIENCE_SECONDS, Run, program_command, read, user_environment

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")


class Worker:
    """A running ``share.py``, asked line by line."""

    def __init__(self, uri: str, experiment: str, name: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            program_command("share", uri, experiment, name),
            cwd=folder,
            env=user_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> int:
        self._process.communicate(timeout=PATIENCE_SECONDS)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def race(run_program: Run, uri: str, name: str, count: int) -> None:
    outcome = run_program("race", uri, name, str(count)).answer
    assert len(outcome["answers"]) == count
    assert set(outcome["answers"]) == {outcome["answers"][0]}
    assert outcome["answers"][0].isdigit()
    assert outcome["exit_codes"] == [0] * count


@needs_fork
def test_16_processes_set_one_new_experiment(run_program: Run, genesis_uri: str, unique_name: str) -> None:
    race(run_program, genesis_uri, unique_name, 16)


@needs_fork
def test_processes_race_for_a_directory_in_which_nothing_runs(
    run_program: Run, empty_directory: Path, unique_name: str
) -> None:
    """They start one server, create one schema and one experiment."""
    race(run_program, empty_directory.as_uri().replace("file", "genesis"), unique_name, 6)


def test_two_processes_work_on_one_run(genesis_uri: str, unique_name: str, tmp_path: Path) -> None:
    first = Worker(genesis_uri, unique_name, "first", tmp_path)
    second = Worker(genesis_uri, unique_name, "second", tmp_path)
    try:
        run_id = first.ask("create")
        assert second.ask("log", run_id, "0.5") == "logged"
        assert first.ask("read", run_id) == {"metrics": {"second": 0.5}, "writers": ["second"]}
        assert first.ask("log", run_id, "0.25") == "logged"
        both = {"metrics": {"first": 0.25, "second": 0.5}, "writers": ["first", "second"]}
        assert second.ask("read", run_id) == both
        assert (first.end(), second.end()) == (0, 0)
    finally:
        first.kill()
        second.kill()


def test_a_killed_process_leaves_what_was_acknowledged(
    genesis_uri: str, unique_name: str, tmp_path: Path
) -> None:
    first = Worker(genesis_uri, unique_name, "first", tmp_path)
    second = Worker(genesis_uri, unique_name, "second", tmp_path)
    try:
        run_id = first.ask("create")
        assert first.ask("log", run_id, "0.25") == "logged"
        first.kill()
        assert second.ask("read", run_id) == {"metrics": {"first": 0.25}, "writers": ["first"]}
    finally:
        first.kill()
        second.kill()


@needs_fork
def test_forked_children_log_and_the_parent_goes_on(
    run_program: Run, genesis_uri: str, unique_name: str
) -> None:
    outcome = run_program("fork", genesis_uri, unique_name)
    assert outcome.answer["exit_codes"] == [0, 0, 0]
    assert not [line for line in outcome.stderr.splitlines() if "mlflow.tracking.fluent" not in line]
    run = read(genesis_uri, outcome.answer["run"])
    assert run["metrics"] == {"parent": 3.0, "child 0": 0.0, "child 1": 1.0, "child 2": 2.0}
    assert run["params"] == {f"child {number}": str(number) for number in range(3)}


def test_two_prefixes_do_not_see_each_other(run_program: Run, genesis_uri: str, unique_name: str) -> None:
    answer = run_program("prefixes", genesis_uri, unique_name).answer
    for prefix, (_, run_id) in answer["runs"].items():
        assert run_id in answer["seen"][prefix]
    assert set(answer["seen"]["red"]).isdisjoint(answer["seen"]["blue"])
