"""Adding an area touches few files: those that name the smallest one, label schemas, are counted."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 6
NAMED = re.compile(r"label_schema|LabelSchema|areas[./]labels")

# Its folder, and what is written or tested of it alone.
ITS_OWN = re.compile(r"genesis_flow/areas/labels/|tests/")
# tools/gen_sync.py, tools/gen_joins.py and tools/gen_schema_docs.py write them.
GENERATED = re.compile(r"genesis_flow/sync/_generated/|genesis_flow/stores/joined\.py|docs/schema/")
# What speaks of it because it is there, and was not needed to add it.
OTHERS = {
    "CONTRIBUTING.md": "it is the example",
    "genesis_flow/areas/reviews/documents.py": "queues refer to it",
    "genesis_flow/areas/reviews/queues.py": "queues refer to it",
    "pyproject.toml": "queues refer to it",
    "genesis_flow/importers/in_use.py": "the question that a look makes by itself",
    "genesis_flow/importers/rollback.py": "the question that a look makes by itself",
    "genesis_flow/importers/writers/plain.py": "the question that a look makes by itself",
    "tools/mlflow_recorded.json": "a method of MLflow's",
}
# Tests of something else that it takes part in.
OTHER_TESTS = {
    "tests/browser/test_people.py": "the page of reviews",
    "tests/browser/test_walk.py": "the page of reviews",
    "tests/client/test_not_there_yet.py": "a route of MLflow's",
    "tests/doctor/test_orphans.py": "the question of an experiment that is gone",
    "tests/importing/people.py": "questions that queues ask",
    "tests/importing/test_hostile_targets.py": "questions that queues ask",
    "tests/importing/test_sql_people.py": "questions that queues ask",
}


def test_adding_an_area_touches_at_most_six_files_that_are_not_its_own() -> None:
    touched = {
        name
        for name in _files()
        if not ITS_OWN.match(name) and not GENERATED.match(name) and NAMED.search(_text(name))
    }
    needed = touched - OTHERS.keys()
    assert "genesis_flow/stores/areas.py" in needed
    assert len(needed) <= MOST, f"an area touches {sorted(needed)}"
    assert OTHERS.keys() <= touched, "no longer true of it"


def test_its_tests_touch_few_files_that_other_areas_share() -> None:
    shared = {
        name
        for name in _files()
        if name.startswith("tests/") and NAMED.search(_text(name)) and not re.search(r"label|review", name)
    } - {Path(__file__).relative_to(ROOT).as_posix(), *OTHER_TESTS}
    assert len(shared) <= MOST, f"the tests of an area touch {sorted(shared)}"


def _files() -> list[str]:
    """What is in the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="ignore")
