"""A claim that has a test named beside it has one that exists; in some pages each claim has one."""

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name_of, prose

# Pages in which each section, and each item of a list, names a test.
CLAIMING = ("docs/plugins.md", "docs/security.md")

_NAMED = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_ITEM = re.compile(r"^[-*] .*(?:\n {2,}\S.*)*", re.MULTILINE)


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def unknown(text: str) -> list[str]:
    """The tests that a text names and that are not there."""
    named = _NAMED.findall(text)
    return [
        f"{file}::{test}" if test else file
        for file, test in named
        if not (ROOT / file).is_file() or (test and test not in names_in(file))
    ]


def unproved(text: str) -> list[str]:
    """The sections, and the items of lists, that name no test."""
    _, *parts = _SECTION.split(prose(text))
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    items = [item for body in sections.values() for item in _ITEM.findall(body)]
    return [
        *(title for title, body in sections.items() if not _names_a_test(body)),
        *(item for item in items if not _names_a_test(item)),
    ]


def _names_a_test(text: str) -> bool:
    return any(test for _, test in _NAMED.findall(text))


# The page of older names names files of others, which are not here.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "from-genesis-flow.md"], ids=name_of)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    assert unknown(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", CLAIMING)
def test_each_claim_of_a_page_names_a_test(page: str) -> None:
    assert unproved((ROOT / page).read_text(encoding="utf-8")) == []


def test_the_checker_sees_what_is_missing() -> None:
    here = "tests/docs/test_claims.py"
    assert unknown(f"see `{here}::test_nothing`, {here} and tests/docs/test_none.py") == [
        f"{here}::test_nothing",
        "tests/docs/test_none.py",
    ]
    proof = f"`{here}::test_the_checker_sees_what_is_missing`"
    assert unknown(proof) == []
    text = f"# Page\n\n## One\n\nAll is well.\n\n## Two\n\n- a\n  b {proof}\n- c\n"
    assert unproved(text) == ["One", "- c"]
