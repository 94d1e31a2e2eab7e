"""docs/troubleshooting.md quotes what is printed: every trouble in it is brought about."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import provoked
from tests.docs.pages import ROOT, blocks
from tests.docs.provoked import PASSWORD, Place
from tests.docs.test_blocks import matches
from tests.mongod import Mongod, guarded_mongod

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = {block.argument: block.code for block in blocks(PAGE) if block.mark == "provoked"}
TROUBLES: dict[str, Callable[[Place], str]] = {
    name: function
    for name, function in vars(provoked).items()
    if getattr(function, "__annotations__", {}).get("return") is str
    and "Place" in str(function.__annotations__)
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """A server that asks for a password."""
    with guarded_mongod("root", PASSWORD) as server:
        yield server


@pytest.fixture
def place(
    mongod: Mongod, guarded: Mongod, store_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    # A short path: the embedded server's socket lies below it.
    folder = Path(tempfile.mkdtemp(prefix="gf-docs-"))
    assert store_uri.endswith("directConnection=true")
    yield Place(mongod, guarded, database_name, folder, monkeypatch)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", TROUBLES)
def test_the_page_quotes_what_is_printed(name: str, place: Place) -> None:
    printed = TROUBLES[name](place)
    assert matches(QUOTED[name], printed), printed
    assert PASSWORD not in printed


def test_every_quotation_is_provoked_and_every_trouble_quoted() -> None:
    assert sorted(QUOTED) == sorted(TROUBLES)
    assert len(re.findall(r"^```text", PAGE, re.MULTILINE)) == len(QUOTED)
