"""Every command and program in the documentation is run, or says that it is not."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.docs.pages import CODE, DATA, MARKS, PAGES, ROOT, Block, blocks, name_of
from tests.docs.session import Session
from tests.embedded.helpers import has_ended, wait_until
from tests.mongod import Mongod

WITH_BLOCKS = [page for page in PAGES if any(each.runs for each in blocks(page.read_text(encoding="utf-8")))]


@pytest.fixture
def session(mongod: Mongod, database_name: str, store_uri: str) -> Iterator[Session]:
    # A short path: the embedded server's socket lies below it.
    made = Session(Path(tempfile.mkdtemp(prefix="gf-docs-")), mongod.uri, database_name)
    yield made
    made.close()


@pytest.mark.timeout(1200)  # many programs that import MLflow, one after the other
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_the_blocks_of_a_page_run(page: Path, session: Session) -> None:
    printed = ""
    found = blocks(page.read_text(encoding="utf-8"))
    if any(each.runs and "run_id" in each.code for each in found):
        client = MlflowClient(session.store_uri)
        session.environment["RUN_ID"] = client.create_run("0").info.run_id
    for block in found:
        where = f"{name_of(page)}:{block.line}"
        if block.mark == "output":
            assert matches(session.substituted(block.code), printed), f"{where}: not in\n{printed}"
        elif block.runs:
            done = session.run(block)
            printed = done.stdout or ""
            assert done.returncode == block.exit_code, f"{where}:\n{block.code}\n{printed}"


def matches(expected: str, printed: str) -> bool:
    """Whether ``printed`` has these words one after the other, whatever their layout."""
    words = [".*?".join(map(re.escape, word.split("…"))) for word in expected.split()]
    return re.search(r"\s+".join(words), printed, re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_what_they_are(page: Path) -> None:
    found = blocks(page.read_text(encoding="utf-8"))
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(found), "a block that is not understood"
    for number, block in enumerate(found):
        where = f"{name_of(page)}:{block.line}"
        assert block.mark or block.language in CODE + DATA, (
            f"{where}: {block.language or 'what'} runs nowhere"
        )
        assert block.mark in ("", *MARKS), f"{where}: unknown mark {block.mark!r}"
        assert (block.mark == "output") <= (block.language == "text" and number > 0), where
        assert (block.mark in ("", "output")) or block.argument, f"{where}: {block.mark} of what?"
        if block.mark == "file":
            assert any(block.argument in each.code for each in found[number + 1 :]), f"{where} is not used"
        if block.mark == "run by":
            assert runs_it(ROOT / block.argument, page, block), f"{where}: {block.argument} does not run it"


def runs_it(file: Path, page: Path, block: Block) -> bool:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return page.name in text
    commands = [line.split("#")[0].split() for line in block.code.splitlines()]
    return all(any(word in text for word in command[:2]) for command in commands if command)


def test_the_reader_of_pages_sees_marks_and_indented_blocks() -> None:
    text = "a\n<!-- exit code: 3 -->\n```bash\nfalse\n```\n- b:\n\n  ```python\n  x = 1\n  ```\n"
    assert blocks(text) == [
        Block(3, "bash", "false\n", "exit code", "3"),
        Block(8, "python", "x = 1\n", "", ""),
    ]
    assert all(block.language in CODE for block in blocks(text))


def test_a_block_that_does_not_end_is_ended(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    noted, patience = session.directory / "pid", 1
    while not noted.exists() or not noted.read_text():  # a busy machine may not even begin it in a second
        monkeypatch.setattr("tests.docs.session.PATIENCE_SECONDS", patience)
        with pytest.raises(AssertionError, match="does not end"):
            session.run(Block(1, "bash", "sleep 600 & echo $! > pid; wait", "", ""))
        patience *= 2
    wait_until(lambda: has_ended(int(noted.read_text())))


def test_the_session_keeps_environment_directory_and_failures(session: Session) -> None:
    assert session.run(Block(1, "bash", "export A=7; mkdir d; cd d", "", "")).returncode == 0
    seen = session.run(Block(2, "bash", "echo $A ${PWD##*/}; false; echo on", "", ""))
    assert (seen.returncode, seen.stdout) == (1, "7 d\n")
    assert session.run(Block(3, "python", "await undefined", "", "")).returncode == 1
    refused = session.run(Block(4, "bash", "pip install genesis-flow", "", ""))
    assert (refused.returncode, refused.stdout) == (1, "This would install something: mark the block.\n")
    assert matches("7 …", seen.stdout)
    assert not matches("8", seen.stdout)
