"""Write the table of what was tested with what into docs/compatibility.md, from docs/compatibility.json.

    python tools/gen_matrix.py                        write the table
    python tools/gen_matrix.py --check                exit 1 if page and file disagree
    python tools/gen_matrix.py --note RESULTS XML PYTHON FOLDER...
                                                      add a run of pytest over FOLDERs to the file RESULTS
    python tools/gen_matrix.py --take RESULTS         take these runs over, and write the table

`.ci/run` notes its runs in .ci/results.json; whoever releases takes them over and commits both files.
"""

import argparse
import datetime
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
FILE = ROOT / "docs" / "compatibility.json"
BEGIN = "<!-- written by tools/gen_matrix.py -->"
END = "<!-- end of what is written -->"
_KEY = ("mlflow", "python", "mongodb", "tests")
_ASK = """
import json, platform, subprocess
import mlflow.version
from genesis_flow.embedded import find_mongod
told = subprocess.run([find_mongod(), "--version"], capture_output=True, text=True, check=True).stdout
versions = {"mlflow": mlflow.version.VERSION, "python": platform.python_version()}
print(json.dumps(versions | {"mongodb": told.split()[2].removeprefix("v")}))
"""

Run = dict[str, Any]


def counted(xml: str) -> dict[str, int]:
    """How many tests of a report in JUnit's format passed, failed and were skipped."""
    suites = list(ElementTree.fromstring(xml).iter("testsuite"))
    number = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    failed = number["failures"] + number["errors"]
    return {
        "passed": number["tests"] - failed - number["skipped"],
        "failed": failed,
        "skipped": number["skipped"],
    }


def merged(known: list[Run], new: list[Run]) -> list[Run]:
    """The newest run of each kind, in a fixed order."""
    runs = {tuple(run[name] for name in _KEY): run for run in (*known, *new)}
    return [runs[key] for key in sorted(runs, key=lambda key: [_ordered(part) for part in key])]


def _ordered(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in text.split(".")]


def table(runs: list[Run]) -> str:
    lines = [
        "| MLflow | Python | MongoDB | tests | passed | failed | skipped | day | commit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        cells = [*(run[name] for name in _KEY), *(run[name] for name in ("passed", "failed", "skipped"))]
        lines.append(f"| {' | '.join(map(str, (*cells, run['date'], run['commit'])))} |")
    return "\n".join(lines)


def page(text: str, runs: list[Run]) -> str:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} needs the two lines {BEGIN} and {END} around the table.")
    return f"{before}{BEGIN}\n\n{table(runs)}\n\n{END}{after}"


def noted(xml: Path, python: str, folders: list[str]) -> Run:
    versions = json.loads(_output(python, "-c", _ASK))
    commit = _output("git", "rev-parse", "--short=10", "HEAD")
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    result = counted(xml.read_text(encoding="utf-8"))
    return {**versions, "tests": " ".join(folders), **result, "date": day, "commit": commit}


def read(file: Path) -> list[Run]:
    runs: list[Run] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return runs


def write(file: Path, runs: list[Run]) -> None:
    file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the table of what was tested with what.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--check", action="store_true")
    which.add_argument("--note", nargs="+", metavar="X", help="RESULTS XML PYTHON FOLDER...")
    which.add_argument("--take", type=Path, metavar="RESULTS")
    options = parser.parse_args(arguments)
    if options.note:
        results, xml, python, *folders = options.note
        write(Path(results), merged(read(Path(results)), [noted(Path(xml), python, folders)]))
        return 0
    if options.take:
        write(FILE, merged(read(FILE), read(options.take)))
    wanted = page(PAGE.read_text(encoding="utf-8"), read(FILE))
    if not options.check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif wanted != PAGE.read_text(encoding="utf-8"):
        print("docs/compatibility.md is not what its json says: run tools/gen_matrix.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
