"""What ``genesis-flow load`` counts and shows, and what it refuses before it connects."""

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from genesis_flow.cli.load import client, command
from genesis_flow.cli.load.command import MOST_CLIENTS, MOST_SECONDS
from genesis_flow.cli.load.figures import Figures, Latencies, together
from genesis_flow.cli.load.report import Report
from genesis_flow.cli.main import cli
from genesis_flow.core.settings import Settings


class TestLatencies:
    def test_percentiles_are_right_but_for_five_percent(self) -> None:
        generator = random.Random(7)
        drawn = sorted(generator.lognormvariate(1, 1.5) for _ in range(5000))
        counted = Latencies()
        for each in drawn:
            counted.add(each)
        for share in (0.01, 0.5, 0.95, 0.99, 1.0):
            right = drawn[math.ceil(share * 5000) - 1]
            found = counted.percentile(share)
            assert found is not None
            assert right * 0.999 <= found <= right * 1.051
        assert counted.percentile(1.0) == drawn[-1] == counted.longest
        assert counted.count == 5000

    def test_nothing_and_next_to_nothing(self) -> None:
        counted = Latencies()
        assert counted.percentile(0.5) is None
        counted.add(0.0)
        assert counted.percentile(0.5) == 0.0


def figures() -> Figures:
    made = Figures()
    for number in range(20):
        made.add("log_metric", number // 4, 2.0 + number)
    made.fail("search_runs", "no <right>")
    made.fail("search_runs", "another")
    return made


def test_what_clients_measured_is_put_together() -> None:
    total = together([figures(), figures()])
    assert total.by_call["log_metric"].count == 40
    assert total.by_slice[0].count == 8
    assert total.errors == {"search_runs": 4}
    assert total.messages == ["no <right>"]


class TestReport:
    report = Report("mongodb://h/d", 2, 10, 1.0, figures())

    def test_table_and_plot(self) -> None:
        lines = list(self.report.as_text(draws=True))
        text = "\n".join(lines)
        rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("log", "sea", "all"))}
        assert rows["log_metric"][:3] == ["20", "0", "2.0"]
        assert rows["search_runs"] == ["0", "2", "0.0", "-", "-", "-", "-"]
        assert rows["all"][-1] == "21.0"
        assert "A call failed: no <right>" in text
        # 4 calls in each of the first five seconds, none in the others.
        assert f"{'4.0':>9} |█████     " in lines
        assert f"{'0':>9} |█████     " in lines

    def test_a_terminal_without_blocks_gets_the_table_alone(self) -> None:
        text = "\n".join(self.report.as_text(draws=False))
        assert "█" not in text
        assert "log_metric" in text

    def test_json(self) -> None:
        report = self.report.as_json()
        assert [each["call"] for each in report["calls"]] == ["log_metric", "search_runs", "all"]
        assert report["calls"][0]["a_second"] == 2.0
        assert report["calls_a_second"] == [4.0] * 5 + [0.0] * 5
        assert (len(report["p95_ms"]), report["p95_ms"][9]) == (10, 0.0)
        assert report["errors"] == ["no <right>"]

    def test_page(self) -> None:
        page = self.report.as_html()
        assert page.count("<svg") == 2
        assert "<td>log_metric</td><td>20</td>" in page
        assert "no &lt;right&gt;" in page

    def test_when_nothing_succeeded(self) -> None:
        empty = Report("mongodb://h/d", 1, 1, 0.1, Figures())
        assert "all" in "\n".join(empty.as_text(draws=True))
        assert "<svg" in empty.as_html()


def test_a_call_that_fails_is_counted_and_the_client_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0)
    tried: list[str] = []

    def fails(*_: Any) -> None:
        tried.append("create_run")
        if len(tried) == 3:
            training.begun -= 60  # the time is over
        raise MlflowException("mongodb://u:c4nary@h/d does not answer")

    training = client._Training(SimpleNamespace(create_run=fails), "0", 1.0)
    found = training.work(30.0)
    assert found.errors == {"create_run": 3}
    assert found.messages == ["mongodb://u:***@h/d does not answer"]
    assert found.all_calls.count == 0


def load(*words: str, answer: str = "") -> Any:
    return CliRunner().invoke(cli, ["load", *words], input=answer)


@pytest.mark.parametrize(
    "words",
    [
        ["--clients", str(MOST_CLIENTS + 1)],
        ["--clients", "0"],
        ["--seconds", str(MOST_SECONDS + 1)],
        ["--seconds", "0"],
        ["--html", "/nowhere/at/all.html"],
    ],
)
def test_what_is_beyond_the_bounds_is_refused(words: list[str]) -> None:
    done = load(*words, "mongodb://localhost:1/d")
    assert done.exit_code == 2
    assert "Invalid value" in done.output or "no folder '/nowhere/at'" in done.output


def test_a_server_elsewhere_gets_no_load_unasked() -> None:
    done = load("mongodb://u:c4nary@db.invalid/d", answer="n\n")
    assert done.exit_code == 1
    assert "Let 4 clients work on mongodb://u:***@db.invalid/d for 10 s?" in done.output


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("mongodb://localhost/d", True),
        ("mongodb://127.0.0.1:27017,[::1]:27018/d", True),
        ("mongodb://127.0.0.1,db.example.com/d", False),
        ("mongodb+srv://db.example.com/d", False),
        ("genesis:///data", True),
    ],
)
def test_what_is_here(uri: str, here: bool) -> None:
    assert command._is_here(Settings.resolve(uri, environ={})) is here


def test_an_embedded_database_must_be_there(tmp_path: Path) -> None:
    done = load(f"genesis://{tmp_path}/data")
    assert done.exit_code == 1
    assert "There is no embedded database in" in done.output
    assert not (tmp_path / "data").exists()
