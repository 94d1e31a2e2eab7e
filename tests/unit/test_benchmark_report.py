"""The benchmark's page says of every bar what the figures say."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BOTH = (("genesis_flow", 1.3), ("pymongo", 1.0))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    yield report
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").exists():
            del sys.modules[name]


def row(operation: str, store: str, p50: float, size: int = 0, unit: str = "") -> dict[str, Any]:
    times = {"p50": p50, "p95": p50, "first": p50, "cpu": p50, "calls": 5, "found": None}
    return {"operation": operation, "size": size, "unit": unit, "store": store} | times


def part(*operations: dict[str, Any], **rows: Any) -> dict[str, Any]:
    empty = {"throughput": [], "disk": [], "memory": [], "start": [], "fills": [], "notes": []}
    origin = {"command": "python side_by_side.py", "commit": "abc", "machine": "a machine", "seconds": 1}
    return {**origin, "versions": {}, "operations": list(operations), **empty, **rows}


def verdicts(page: str, bar: str) -> list[str]:
    every = page.partition("## All bars")[2]
    return [line.split("|")[-2].strip() for line in every.splitlines() if line.startswith(f"| {bar} |")]


@pytest.mark.parametrize(("ours", "verdict"), [(1.39, "met"), (1.41, "**missed**")])
def test_a_bar_is_met_or_missed_by_the_figures(report: ModuleType, ours: float, verdict: str) -> None:
    writes = part(row("log_metric", "genesis_flow", ours), row("log_metric", "pymongo", 1.0))
    page = report.page({"parts": {"writes": writes}}, [])
    assert verdicts(page, "log_metric, to bare PyMongo") == [verdict]
    assert verdicts(page, "log_metric, to mlflow-mongodb") == ["not measured"]


def test_a_pause_between_calls_is_told_and_what_it_would_be_without(report: ModuleType) -> None:
    after = [row("log_metric", store, p50) | {"pause": 2.0} for store, p50 in BOTH]
    back_to_back = [row("log_metric back to back", store, 2 * p50) | {"pause": 0.0} for store, p50 in BOTH]
    page = report.page({"parts": {"writes": part(*after, *back_to_back)}}, [])
    assert "Single calls come 2 ms after the one before" in page
    assert "log_metric takes 2.60 ms and bare PyMongo 2.00 ms: 1.30x" in page
    assert "Single calls come" not in report.page({"parts": {"writes": part(*back_to_back)}}, [])


def test_a_pause_is_no_part_of_a_call(report: ModuleType, store_uri: str) -> None:
    from subject import Answers

    subject, pause, times = Answers("pymongo", store_uri, ""), 50.0, 3
    subject.prepare()
    begin = time.perf_counter()
    answer = subject.time("log_metric", times=times, pause=pause)
    took = (time.perf_counter() - begin) * 1000
    subject.operations.collection.database.client.close()
    assert len(answer["ms"]) == times
    assert took - sum(answer["ms"]) >= times * pause


def test_growth_and_gaps_are_told(report: ModuleType) -> None:
    search = "search newest 100"
    million = part(
        row(search, "genesis_flow", 10.0, 10_000, "runs"),
        row(search, "genesis_flow", 20.0, 1_000_000, "runs"),
    )
    runs = part(
        row(search, "genesis_flow", 10.0, 10_000, "runs"),
        row(search, "genesis_flow", 10.0, 100_000, "runs"),
        row(search, "sqlite", 20.0, 10_000, "runs"),
        notes=["sqlite took no part at 100,000 runs: --limit."],
    )
    page = report.page({"parts": {"runs": runs, "million": million}}, [])
    assert verdicts(page, "searches, filters and pages: growth") == ["**missed**"]
    assert f"| {search} | 10,000 to 100,000 runs | 1.00x | – | – | – |" in page
    assert f"| {search} | 10,000 to 1,000,000 runs | 2.00x | – | – | – |" in page
    assert "- runs: sqlite took no part at 100,000 runs: --limit." in page


def test_a_later_result_replaces_whole_parts(report: ModuleType) -> None:
    first = {"parts": {"writes": part(row("create_run", "sqlite", 1.0)), "start": part()}}
    later = {"parts": {"writes": part(row("create_run", "genesis_flow", 2.0)) | {"commit": "def"}}}
    joined = report.joined([first, later])
    assert list(joined["parts"]) == ["writes", "start"]
    assert [each["store"] for each in joined["parts"]["writes"]["operations"]] == ["genesis_flow"]


@pytest.mark.parametrize(("ours", "verdict"), [(0.349, "met"), (0.351, "**missed**")])
def test_the_end_of_a_program_is_compared_with_one_that_logs_nothing(
    report: ModuleType, ours: float, verdict: str
) -> None:
    step = "last line of a program that logged, to its end"
    ends = [
        {"store": name, "step": step, "p50": p50, "most": p50}
        for name, p50 in {"genesis_flow": ours, "pymongo": 0.3}.items()
    ]
    page = report.page({"parts": {"start": part(start=ends)}}, [])
    assert verdicts(page, f"{step}, more than without a store") == [verdict]


def test_a_part_that_was_measured_several_times_shows_medians_and_their_spread(report: ModuleType) -> None:
    def result(p50: float, commit: str = "abc") -> dict[str, Any]:
        writes = part(row("log_metric", "genesis_flow", p50), row("log_metric", "pymongo", 1.0))
        return {"parts": {"writes": {**writes, "commit": commit}}}

    page = report.page(report.joined([result(1.5), result(1.1), result(1.2)]), [])
    assert "| log_metric |  | 1.20 / 1.20 (1.10 to 1.50) |" in page
    assert "writes 1 s, 3 times" in page
    assert verdicts(page, "log_metric, to bare PyMongo") == ["met"]
    page = report.page(report.joined([result(1.5), result(1.1, "def")]), [])
    assert "| log_metric |  | 1.10 / 1.10 |" in page


def test_the_summary_names_what_is_missed(report: ModuleType) -> None:
    times = (1.5, 1.0)
    writes = part(*(row("log_metric", store, p50) for (store, _), p50 in zip(BOTH, times, strict=True)))
    page = report.page({"parts": {"writes": writes}}, [])
    summary = page.partition("## Bars")[2].partition("## All bars")[0]
    assert "| log_metric, to bare PyMongo | at most 1.4x | 1.5x | 1 of 1 |" in summary
    assert "step of 64 known metrics" in summary.splitlines()[4], "what was not measured"


def test_the_readme_quotes_what_was_measured(report: ModuleType) -> None:
    import quoted

    assert quoted.table(quoted.Figures(json.loads(quoted.RESULT.read_text()))) in quoted.README.read_text()
