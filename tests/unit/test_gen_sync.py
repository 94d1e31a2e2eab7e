"""The generator of the blocking facade, on small area files."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import genesis_flow.areas

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gen_sync.py"

TOY = '''
from __future__ import annotations

import asyncio
import collections.abc
from datetime import date as day
from typing import TYPE_CHECKING, Any, Literal

from . import toy_names as names

if TYPE_CHECKING:
    from decimal import Decimal

LIMIT = 1_000
_UNSET: Any = object()
Pairs = list[tuple[str, int]]


class Area:
    def __init__(self, settings: object) -> None:
        self.settings = settings


def operation(function):
    return function


long_mutation = operation


direct = direct_joined = operation


class Toys(Area):
    """Things to play with.

    More about them.
    """

    @operation
    async def every_kind(
        self,
        first: int,
        /,
        second: "Decimal | None",
        third: Pairs = [],  # noqa: B006
        *others: str,
        named: Literal["a b", "c"] = "c",
        needed: day | None,
        **rest: collections.abc.Hashable,
    ) -> tuple[Any, ...]:
        """All "kinds" of \\\\parameters, "quoted"

        at length.
        """
        await asyncio.sleep(0)
        return first, second, third, others, named, needed, rest

    @operation
    async def defaults(
        self, *, limit: int = LIMIT, unset: Any = _UNSET, color: str = names.COLOR
    ) -> tuple[int, bool, str]:
        return limit, unset is _UNSET, color

    @direct_joined
    @operation
    async def quick(self, name: str) -> str:
        return name

    @direct
    @operation
    async def look(self, name: str) -> str:
        return name

    @long_mutation
    async def _hard_delete(self, name: str) -> None:
        raise LookupError(f"{name}: {self.settings.where}")

    async def _helper(self, anything) -> None: ...

    def plain(self): ...


class Special(Toys):
    @operation
    async def more(self) -> str:
        return "more"


class NoArea:
    @operation
    async def unseen(self) -> None: ...
'''


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("gen_sync", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gen_sync"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gen_sync"]


class Project:
    """A source tree with one area file, and the generator to run on it."""

    def __init__(self, generator: ModuleType, root: Path) -> None:
        self.generator = generator
        self.root = root
        self.area = root / "genesis_flow" / "areas" / "toys.py"
        self.generated = root / "genesis_flow" / "sync" / "_generated" / "toys.py"
        self.area.parent.mkdir(parents=True)
        self.generated.parent.mkdir(parents=True)
        (self.generated.parent / "__init__.py").touch()
        (self.area.parent / "toy_names.py").write_text('COLOR = "red"\n')
        (root / "pyproject.toml").write_text("[tool.ruff]\nline-length = 110\n")
        self.area.write_text(TOY)

    def run(self, *arguments: str) -> int:
        result: int = self.generator.main([*arguments, "--root", str(self.root)])
        return result


@pytest.fixture
def project(generator: ModuleType, tmp_path: Path) -> Project:
    return Project(generator, tmp_path)


@pytest.fixture
def toys(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """The toy area and its generated twin, both imported."""
    assert project.run() == 0
    package = genesis_flow.areas
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(project.area.parent)])
    area = importlib.import_module("genesis_flow.areas.toys")
    spec = importlib.util.spec_from_file_location("generated_toys", project.generated)
    assert spec is not None
    assert spec.loader is not None
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    yield area, generated
    for name in ("toys", "toy_names"):
        sys.modules.pop(f"genesis_flow.areas.{name}", None)
        vars(package).pop(name, None)


def test_the_twin_works_through_the_portal(toys: tuple[ModuleType, ModuleType]) -> None:
    area, generated = toys
    store_class = type("Store", (generated.SyncSpecial, generated.SyncToys), {"_async_store": area.Special})
    store = store_class(SimpleNamespace(timeout=5.0, open_timeout=5.0, where="here"))
    assert store.every_kind(1, 2, [("x", 3)], "y", "z", named="a b", needed=None, k=4) == (
        *(1, 2, [("x", 3)], ("y", "z")),
        *("a b", None, {"k": 4}),
    )
    assert store.every_kind(1, second=2, needed=None, first=5)[-1] == {"first": 5}
    assert store.defaults() == (1000, True, "red")
    assert store.more() == "more"
    with pytest.raises(LookupError, match="toy: here"):
        store._hard_delete("toy")


def test_signatures_are_the_same(toys: tuple[ModuleType, ModuleType]) -> None:
    area, generated = toys
    for name in ("every_kind", "defaults", "_hard_delete"):
        theirs = inspect.signature(getattr(area.Toys, name))
        ours = inspect.signature(getattr(generated.SyncToys, name))
        unquoted = [str(p.annotation).strip("'\"") for p in theirs.parameters.values()]
        assert [str(p.annotation).strip("'\"") for p in ours.parameters.values()] == unquoted
        assert ours.return_annotation == theirs.return_annotation
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.parameters.values()
        ]


def test_only_operations_of_areas_get_a_twin(toys: tuple[ModuleType, ModuleType]) -> None:
    _, generated = toys
    assert {name for name in vars(generated) if name.startswith("Sync")} == {
        "SyncFacade",
        "SyncToys",
        "SyncSpecial",
    }
    own = {name for name in vars(generated.SyncToys) if not name.startswith("__")}
    assert own == {"every_kind", "defaults", "quick", "look", "_hard_delete"}
    assert not hasattr(generated.SyncSpecial, "every_kind")


def test_docstrings_keep_their_first_line(toys: tuple[ModuleType, ModuleType]) -> None:
    _, generated = toys
    assert generated.SyncToys.__doc__ == "Things to play with."
    assert generated.SyncToys.every_kind.__doc__ == 'All "kinds" of \\parameters, "quoted"'
    assert generated.SyncToys.defaults.__doc__ is None


def test_long_mutations_get_the_long_backstop(project: Project) -> None:
    project.run()
    text = project.generated.read_text()
    assert "return self._run_long(_area.Toys._hard_delete, name)" in text
    assert text.count("_run_long") == 1


def test_direct_calls_are_run_by_their_callers(project: Project) -> None:
    project.run()
    text = project.generated.read_text()
    assert "return self._run_direct(_area.Toys.quick, name)" in text
    assert "return self._run_direct(_area.Toys.look, name)" in text
    assert text.count("_run_direct") == 2


def test_imports_are_those_that_signatures_need(project: Project) -> None:
    project.run()
    text = project.generated.read_text()
    at_runtime, _, rest = text.partition("if TYPE_CHECKING:\n")
    for_types, _, _ = rest.partition("\n\n\n")
    assert at_runtime.splitlines()[:3] == [
        "# Generated by tools/gen_sync.py from genesis_flow/areas/toys.py.",
        "# Do not edit: change that file and run `python tools/gen_sync.py`.",
        at_runtime.splitlines()[2],
    ]
    assert "from genesis_flow.areas.toys import _UNSET, LIMIT\n" in at_runtime
    assert "from genesis_flow.areas import toy_names as names\n" in at_runtime
    assert "asyncio" not in text
    for line in (
        "import collections.abc",
        "from datetime import date as day",
        "from decimal import Decimal",
        "from typing import Any, Literal",
        "from genesis_flow.areas.toys import Pairs",
    ):
        assert f"    {line}" in for_types.splitlines()


def test_check_passes_right_after_writing_and_writing_again_changes_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run() == 0
    assert capsys.readouterr().out == "genesis_flow/sync/_generated/toys.py: written\n"
    assert project.run("--check") == 0
    assert project.run() == 0
    assert capsys.readouterr().out == ""


def test_check_names_a_missing_file_and_writes_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run("--check") == 1
    assert "toys.py: missing" in capsys.readouterr().out
    assert not project.generated.exists()


def test_check_names_a_stale_file(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.run()
    before = project.generated.read_text()
    project.area.write_text(TOY.replace("def more(self)", "def more(self, why: str)"))
    assert project.run("--check") == 1
    assert "toys.py: stale" in capsys.readouterr().out
    assert project.generated.read_text() == before
    assert project.run() == 0
    assert "def more(self, why: str) -> str" in project.generated.read_text()


@pytest.mark.parametrize("spare_the_header", [True, False])
def test_an_edit_by_hand_is_named_and_not_overwritten(
    project: Project, capsys: pytest.CaptureFixture[str], spare_the_header: bool
) -> None:
    project.run()
    text = project.generated.read_text()
    edited = text.replace("def more", "def most") if spare_the_header else text.partition("\n\n")[2]
    project.generated.write_text(edited)
    assert project.run("--check") == 1
    assert "toys.py: edited by hand" in capsys.readouterr().out
    assert project.run() == 1
    assert "Edited by hand: toys.py" in capsys.readouterr().err
    assert project.generated.read_text() == edited
    project.generated.unlink()
    assert project.run() == 0
    assert project.generated.read_text() == text


def test_an_orphan_is_named_and_removed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.run()
    project.area.rename(project.area.with_name("games.py"))
    assert project.run("--check") == 1
    assert "toys.py: orphaned" in capsys.readouterr().out
    assert project.run() == 0
    assert [path.name for path in sorted(project.generated.parent.iterdir())] == [
        "__init__.py",
        "games.py",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("def more(self) -> str", "def more(self)", "async def more", "no return annotation"),
        ("def more(self)", "def more(self, why)", "async def more", "parameter why of Special.more"),
        ("**rest: collections.abc.Hashable", "**rest", "**rest", "parameter rest of Toys.every_kind"),
        ("date as day", "date", "needed: day", "day, in a signature of Toys, is not defined"),
        ("async def more", "def more", "def more", "Special.more is an operation but not async"),
        ("async def more(self)", "async def more()", "async def more", "takes no self"),
        (
            "async def _helper",
            "async def helper",
            "async def helper",
            "public but neither @operation nor @mutation",
        ),
    ],
)
def test_what_cannot_be_generated_is_an_error_with_its_place(
    project: Project, capsys: pytest.CaptureFixture[str], old: str, new: str, line: str, problem: str
) -> None:
    text = TOY.replace(old, new)
    project.area.write_text(text)
    number = next(i for i, source in enumerate(text.splitlines(), start=1) if line in source)
    assert project.run() == 1
    message = capsys.readouterr().err
    assert message.startswith(f"genesis_flow/areas/toys.py:{number}: ")
    assert problem in message
    assert not project.generated.exists()


def test_folders_become_part_of_the_name(project: Project) -> None:
    deeper = project.area.parent / "traces" / "read.py"
    deeper.parent.mkdir()
    deeper.write_text("class Reads(Area):\n    @operation\n    async def read(self) -> int: return 1\n")
    assert project.run() == 0
    text = (project.generated.parent / "traces_read.py").read_text()
    assert "from genesis_flow.areas.traces import read as _area\n" in text
