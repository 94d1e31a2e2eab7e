"""The quickstart, as the first thing that a newcomer runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from genesis_flow.cli import sweep
from genesis_flow.cli.main import cli
from tests.client.conftest import Outcome, read, run_command

Quickstart = Callable[..., Outcome]


@pytest.fixture
def quickstart(empty_directory: Path, tmp_path: Path) -> Quickstart:
    def run(*options: str, **environment: str) -> Outcome:
        command = (sys.executable, "-m", "genesis_flow.cli", "quickstart", str(empty_directory), *options)
        outcome = run_command(*command, cwd=tmp_path, **environment)
        assert outcome.code == 0, outcome.stderr
        return outcome

    return run


def test_a_second_quickstart_adds_its_runs(quickstart: Quickstart, empty_directory: Path) -> None:
    first = json.loads(quickstart("--json").stdout)
    # Variables of another project must not lead it astray.
    stray = {"MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_ID": "77", "MLFLOW_TRACKING_URI": "http://nowhere"}
    second = json.loads(quickstart("--json", "--runs", "2", **stray).stdout)
    assert (len(first["runs"]), len(second["runs"])) == (4, 2)
    assert (first["experiment"]["runs"], second["experiment"]["runs"]) == (5, 8)
    assert first["experiment"]["id"] == second["experiment"]["id"]
    assert first["directory"] == str(empty_directory)
    assert first["data_bytes"] > 100_000

    best = first["runs"][0]
    assert best["run_id"] == first["best_run_id"]
    assert [run["metrics"]["validation_accuracy"] for run in first["runs"]] == sorted(
        (run["metrics"]["validation_accuracy"] for run in first["runs"]), reverse=True
    )
    assert first["filter"]["run_ids"]
    assert {
        run["params"]["degree"] for run in first["runs"] if run["run_id"] in first["filter"]["run_ids"]
    } == {"3"}

    seen = read(first["uri"], best["run_id"])
    assert seen["status"] == "FINISHED"
    assert [step for step, _ in seen["histories"]["train_loss"]] == list(range(1, 61))
    assert seen["artifacts"] == ["loss.svg", "model.json"]
    (chart,) = empty_directory.glob(f"artifacts/**/{best['run_id']}/artifacts/loss.svg")
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")


def test_the_account_says_what_was_done_and_how_to_go_on(empty_directory: Path) -> None:
    done = CliRunner().invoke(cli, ["quickstart", str(empty_directory), "--runs", "3"])
    assert done.exit_code == 0, done.output
    text = done.stdout
    uri = "genesis" + empty_directory.as_uri().removeprefix("file")
    for part in (
        "degree 3, rate 0.03",
        "validation_accuracy",
        '(experiment "quickstart", 4 with the parent runs)',
        str(empty_directory / "db"),
        f"mlflow.set_tracking_uri('{uri}')",
        "genesis-flow server --backend-store-uri",
        "genesis-flow db stop",
    ):
        assert part in text
    assert "Traceback" not in text


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli, ["quickstart", str(tmp_path / "file" / "data")])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_interrupted_quickstart_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_uri: str, _runs: int) -> None:
        (tmp_path / "a b").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "log_sweep", interrupted)
    done = CliRunner().invoke(cli, ["quickstart", str(tmp_path / "a b")])
    assert done.exit_code == 1
    assert f"genesis-flow db stop '{tmp_path}/a b' && rm -r '{tmp_path}/a b'" in done.stderr


def test_a_quickstart_interrupted_at_once_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_uri: str, _runs: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "log_sweep", interrupted)
    done = CliRunner().invoke(cli, ["quickstart", str(tmp_path / "data")])
    assert done.exit_code == 1
    assert "Interrupted. Nothing was logged." in done.stderr
    assert "rm -r" not in done.stderr
