"""The table of what was tested with what."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools import gen_matrix

XML = """<?xml version="1.0"?><testsuites>
<testsuite name="pytest" errors="1" failures="2" skipped="3" tests="20" time="1"/></testsuites>"""


def run(mlflow: str = "3.17.2", mongodb: str = "6.0.5", **more: Any) -> dict[str, Any]:
    fixed = {"python": "3.11.7", "tests": "tests/contract", "failed": 0, "skipped": 0}
    return {
        "mlflow": mlflow,
        "mongodb": mongodb,
        **fixed,
        "passed": 1,
        "date": "2026-11-29",
        "commit": "abc",
        **more,
    }


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    page, file = tmp_path / "compatibility.md", tmp_path / "compatibility.json"
    page.write_text(f"before\n{gen_matrix.BEGIN}\nold\n{gen_matrix.END}\nafter\n")
    file.write_text("[]")
    monkeypatch.setattr(gen_matrix, "PAGE", page)
    monkeypatch.setattr(gen_matrix, "FILE", file)
    return page, file


def test_the_page_agrees_with_its_file() -> None:
    assert gen_matrix.main(["--check"]) == 0
    assert gen_matrix.read(gen_matrix.FILE), "nothing was tested"


def test_what_failed_and_what_was_skipped_did_not_pass() -> None:
    assert gen_matrix.counted(XML) == {"passed": 14, "failed": 3, "skipped": 3}


def test_runs_are_taken_over_and_shown(files: tuple[Path, Path], tmp_path: Path) -> None:
    page, file = files
    results = tmp_path / "results.json"
    results.write_text(json.dumps([run("3.18.0"), run(mongodb="6.0.27"), run()]))
    assert gen_matrix.main(["--check"]) == 1
    assert gen_matrix.main(["--take", str(results)]) == 0
    assert gen_matrix.main(["--check"]) == 0
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| 3.")]
    assert [(row[0], row[2]) for row in rows] == [
        ("| 3.17.2", "6.0.5"),
        ("| 3.17.2", "6.0.27"),
        ("| 3.18.0", "6.0.5"),
    ]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")
    # The same run again stands in the place of the old one.
    results.write_text(json.dumps([run(passed=0, failed=7)]))
    gen_matrix.main(["--take", str(results)])
    assert len(json.loads(file.read_text())) == 3
    assert "| tests/contract | 0 | 7 | 0 |" in page.read_text()


def test_a_changed_number_is_noticed(files: tuple[Path, Path]) -> None:
    page, file = files
    file.write_text(json.dumps([run()]))
    gen_matrix.main([])
    page.write_text(page.read_text().replace("| 1 |", "| 2 |"))
    assert gen_matrix.main(["--check"]) == 1
