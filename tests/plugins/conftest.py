"""Plugins that are made for one test: packages with entry points, and modules in folders."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import pytest

from genesis_flow.plugins.manager import PluginManager
from genesis_flow.plugins.settings import PluginSettings

_numbers = itertools.count()

CLASS = """
from genesis_flow.plugins import FrameworkPlugin, PluginMetadata

class Plugin(FrameworkPlugin):
    def __init__(self):
        super().__init__(PluginMetadata({metadata}))

    def get_module_path(self):
        return "a_framework"

{body}
"""


def source(metadata: str, body: str = "") -> str:
    """A module with a plugin."""
    return CLASS.format(metadata=metadata, body=indent(body, "    "))


class Maker:
    """Writes plugins into a folder, with modules whose names no other test has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[str] = []

    def module(self, code: str) -> str:
        name = f"plugin_of_a_test_{next(_numbers)}"
        (self.folder / f"{name}.py").write_text(code, encoding="utf-8")
        self.modules.append(name)
        return name

    def package(
        self,
        name: str,
        code: str,
        *,
        groups: tuple[str, ...] = ("genesis_flow.plugins",),
        version: str = "1.0.0",
        requires: tuple[str, ...] = (),
        value: str = "{module}:Plugin",
    ) -> str:
        """A module, and what an installation of its package leaves; the module's name is returned."""
        module = self.module(code)
        info = self.folder / f"package_{module}-1.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: package_{module}", f"Version: {version}"]
        lines += [f"Requires-Dist: {each}" for each in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        points = [f"[{group}]\n{name} = {value.format(module=module)}\n" for group in groups]
        (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
        return module


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = Maker(folder)
    yield made
    for name in made.modules:
        sys.modules.pop(name, None)


Managed = Callable[..., PluginManager]


@pytest.fixture
def managed(maker: Maker) -> Managed:
    """Managers that look into the folder of the test. Trials are off: they have tests of their own."""

    def manage(**changes: object) -> PluginManager:
        given = {"plugin_paths": (maker.folder,), "import_timeout": 0, "enable_builtin": False, **changes}
        return PluginManager(PluginSettings(**given))  # type: ignore[arg-type]

    return manage


def only(manager: PluginManager, name: str) -> dict[str, object]:
    (found,) = (dict(each) for each in manager.list_plugins() if each["name"] == name)
    return found
