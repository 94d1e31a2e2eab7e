"""A training through MLflow's fluent API, and what other processes see of it."""

from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Outcome, Run, read


@pytest.fixture(scope="module")
def training(run_program: Run, genesis_uri: str) -> Outcome:
    """In development mode Python tells of unclosed sockets, loops and files, and of threads that die late."""
    return run_program("train", genesis_uri, "a training", PYTHONDEVMODE="1")


@pytest.fixture(scope="module")
def trained(training: Outcome) -> dict[str, Any]:
    return training.answer


def test_another_process_reads_what_a_training_logged(genesis_uri: str, trained: dict) -> None:
    child = read(genesis_uri, trained["children"][1])
    assert child["name"] == "rate 0.2"
    assert child["status"] == "FINISHED"
    assert child["experiment"] == trained["experiment"]
    assert child["params"] == {"learning.rate": "0.2", "optimizer": "sgd"}
    assert child["metrics"] == {"loss": 0.2 / 3, "val/accuracy": 0.9}
    assert child["histories"]["loss"] == [(0, 0.2), (1, 0.1), (2, 0.2 / 3)]
    assert child["tags"]["mlflow.parentRunId"] == trained["parent"]
    assert child["artifacts"] == ["settings.json", "texts"]


def test_the_parent_run_has_its_tags_note_and_an_exact_infinity(genesis_uri: str, trained: dict) -> None:
    parent = read(genesis_uri, trained["parent"])
    assert parent["tags"]["team"] == "blue"
    assert parent["tags"]["finished"] == "yes"
    assert parent["tags"]["mlflow.note.content"] == "a **search**"
    assert parent["metrics"] == {"best": float("-inf")}


def test_a_run_that_raises_is_marked_as_failed(genesis_uri: str, trained: dict[str, Any]) -> None:
    assert read(genesis_uri, trained["broken"])["status"] == "FAILED"


def test_artifacts_lie_in_the_directory_of_the_database(
    trained: dict[str, Any], data_directory: Path
) -> None:
    notes = list(data_directory.glob(f"artifacts/**/{trained['children'][0]}/artifacts/texts/notes.txt"))
    assert [path.read_text() for path in notes] == ["rate 0.1"]


def test_a_program_ends_without_a_word_from_us(training: Outcome) -> None:
    assert training.code == 0
    noise = (
        "genesis_flow",
        "asyncio",
        "pymongo",
        "beanie",
        "Traceback",
        "Exception ignored",
        "never awaited",
    )
    # What asyncio's debug mode says of slow steps is about the machine.
    lines = [line for line in training.stderr.splitlines() if not line.startswith("Executing <")]
    assert [line for line in lines if any(word in line for word in noise)] == []


@pytest.mark.parametrize("end", ["flush", "end"])
def test_asynchronous_logging_loses_nothing(
    run_program: Run, genesis_uri: str, unique_name: str, end: str
) -> None:
    run_id = run_program("log_later", genesis_uri, unique_name, end).answer
    run = read(genesis_uri, run_id)
    assert [step for step, _ in run["histories"]["loss"]] == list(range(100))
    assert run["metrics"]["loss"] == 1 / 100
    assert run["params"] == {"rate": "0.1"}
    assert run["tags"]["kind"] == "later"
