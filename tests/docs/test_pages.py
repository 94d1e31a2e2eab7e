"""The documentation tells the truth where a machine can tell: commands, links, versions."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import mlflow
import pytest
from click.testing import CliRunner
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as SqlTrackingStore

import genesis_flow
from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.metrics.documents import BLOCK_FROM, TAIL_LIMIT
from genesis_flow.areas.traces.spans import INLINE_CHARACTERS
from genesis_flow.core import configfile
from genesis_flow.core.settings import DEFAULT_TIMEOUT
from genesis_flow.sync.missing import missing_methods
from tests.docs.pages import PAGES, ROOT, blocks, name_of, prose

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def code_in(text: str) -> Iterator[str]:
    """The lines of code blocks, then the code spans of the prose."""
    for block in blocks(text):
        yield from block.code.splitlines()
    yield from _SPAN.findall(prose(text))


def mentioned_commands() -> list[tuple[str, ...]]:
    """Our commands as the pages name them: ("genesis-flow", "db", "stop")."""
    scripts = "|".join(map(re.escape, PROJECT["scripts"]))
    pattern = re.compile(rf"(?:^|[\s&|;])({scripts})((?: [a-z][a-z-]*)*)(?=$|[\s|;&])")
    return sorted(
        {
            (script, *words.split())
            for page in PAGES
            for line in code_in(page.read_text(encoding="utf-8"))
            for script, words in pattern.findall(line)
        }
    )


def script(name: str) -> click.Command:
    module, attribute = PROJECT["scripts"][name].split(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


def all_commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from all_commands(child, (*path, name))


@pytest.mark.parametrize("words", mentioned_commands(), ids=" ".join)
def test_a_command_in_the_pages_exists_and_has_help(words: tuple[str, ...]) -> None:
    name, *rest = words
    command, path = script(name), []
    while rest and isinstance(command, click.Group):
        path.append(rest.pop(0))
        found = command.get_command(click.Context(command), path[-1])
        assert found is not None, f"there is no command {' '.join(words)!r}"
        command = found
    result = CliRunner().invoke(script(name), [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert " ".join([*path, "[OPTIONS]"]) in " ".join(result.output.split())


def test_every_command_is_in_the_pages() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    leaves = [words for name in PROJECT["scripts"] for words in all_commands(script(name), (name,))]
    assert [words for words in leaves if " ".join(words) not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


def test_every_picture_is_there_and_shown() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]+\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8")))
    }
    assert [path for path in shown if not path.is_file()] == []
    assert {*(ROOT / "docs" / "images").iterdir()} <= shown


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_ci_runs_the_commands_of_the_readme_and_no_others() -> None:
    script_text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    read = re.findall(r"readme_command\.py (\w+)", script_text)
    assert sorted(read) == ["quickstart", "tests"]
    assert "pip install" not in script_text
    for name in read:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "readme_command.py"), name],
            capture_output=True,
            text=True,
            check=True,
        )
        command = done.stdout.strip()
        assert re.fullmatch(r"pip install -e '\.\[\w+\]' && [\w -]+", command)
        assert command in README


@pytest.mark.parametrize("arguments", [[], ["nothing"]])
def test_a_command_that_the_readme_does_not_have_is_an_error(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "readme_command.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "quickstart, tests" in done.stderr


def test_extras_in_the_pages_exist() -> None:
    named = {
        extra: page
        for page in PAGES
        for extras in re.findall(r"'?\.\[([\w,]+)\]", page.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert {"embedded", "server", "dev"} <= named.keys()
    unknown = {extra: page for extra, page in named.items() if extra not in PROJECT["optional-dependencies"]}
    assert not unknown


def test_python_in_the_pages_compiles() -> None:
    compiled = 0
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.language == "python":
                compile(block.code, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                compiled += 1
    assert compiled > 10


def test_every_decision_is_listed() -> None:
    listed = _LINK.findall((ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8"))
    pages = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    assert listed == pages
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))


def test_one_version() -> None:
    assert genesis_flow.__version__ == PROJECT["version"]


_VARIABLE = re.compile(r"(?:GENESIS_FLOW|GENESIS_MIGRATE|MONGODB)_[A-Z_]+")


def test_every_variable_of_the_code_is_in_the_configuration_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    read = {
        node.value
        for path in (ROOT / "genesis_flow").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _VARIABLE.fullmatch(node.value)
    }
    assert set(_VARIABLE.findall(page)) == read


def test_every_key_of_the_file_is_in_the_configuration() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for section, keys in configfile.KEYS.items():
        assert [key for key in keys if f"[{section}] {key}" not in page] == []


def test_every_page_is_on_the_map() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(_LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))


def test_the_architecture_names_the_right_limits() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for said in (f"`tail.{TAIL_LIMIT - 1}`", f"{TAIL_LIMIT} points fit", f"{BLOCK_FROM} points or more"):
        assert said in " ".join(page.split())
    assert f"up to {INLINE_CHARACTERS // 1024} kB" in page
    assert f"({DEFAULT_TIMEOUT:g} s unless configured)" in page


def test_the_readme_counts_the_methods_that_are_there() -> None:
    found = re.search(r"(\d+) of the (\d+) public methods of MLflow (\S+)'s SQL stores", README)
    assert found is not None
    if not mlflow.__version__.startswith(f"{found[3]}."):
        pytest.skip("another MLflow has other methods")
    pairs = ((SqlTrackingStore, MongoDBStore), (SqlRegistryStore, MongoDBModelRegistryStore))
    theirs = [(public_methods(store), ours) for store, ours in pairs]
    there = [name for names, ours in theirs for name in names if is_ours(ours, name)]
    assert (len(there), sum(len(names) for names, _ in theirs)) == (int(found[1]), int(found[2]))


def test_no_page_claims_what_is_not_there_yet() -> None:
    if not (missing_methods(MongoDBStore) or missing_methods(MongoDBModelRegistryStore)):
        pytest.skip("all is there")
    for page in PAGES:
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert not re.search(r"(every|all)( of)? MLflow('s)? calls? works?", text, re.IGNORECASE), page


def public_methods(store: type) -> set[str]:
    """What the SQL store and its parts say themselves; the abstract store is everybody's."""
    parts = [each for each in store.__mro__ if each.__name__.startswith("SqlAlchemy")]
    members = {name: member for each in reversed(parts) for name, member in vars(each).items()}
    return {name for name, member in members.items() if callable(member) and not name.startswith("_")}


def is_ours(store: type, name: str) -> bool:
    return any(name in vars(each) for each in store.__mro__ if each.__module__.startswith("genesis_flow"))
