"""Keep files and functions small enough to read.

    python tools/check_sizes.py     exit 1 and name what is too long

Counted are physical lines, docstrings and comments included. Generated code is not meant to be read.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("genesis_flow", "migrations", "tools", "benchmarks", "examples", "tests")
MOST_LINES_IN_FILE = 500
MOST_LINES_IN_FUNCTION = 70
# Scenarios in tests read from top to bottom, however long they are.
FOLDERS_WITH_LONG_FUNCTIONS = ("tests",)


def main() -> int:
    too_long = [finding for folder in FOLDERS for finding in _check_folder(ROOT / folder)]
    for finding in too_long:
        print(finding, file=sys.stderr)
    return 1 if too_long else 0


def _check_folder(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        if "_generated" not in path.parts:
            yield from check_file(path, functions=folder.name not in FOLDERS_WITH_LONG_FUNCTIONS)


def check_file(path: Path, *, functions: bool = True) -> Iterator[str]:
    """Sentences about what is too long in one file."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > MOST_LINES_IN_FILE:
        yield f"{path}: {lines} lines, at most {MOST_LINES_IN_FILE}: a file is one area, so split it by area"
    for node in ast.walk(ast.parse(text, filename=str(path))) if functions else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_LINES_IN_FUNCTION:
                where = f"{path}:{node.lineno}: {node.name}"
                yield f"{where} has {length} lines, at most {MOST_LINES_IN_FUNCTION}: name its steps"


if __name__ == "__main__":
    sys.exit(main())
