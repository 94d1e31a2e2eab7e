"""What the source of a plugin says, read and not run."""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from genesis_flow.plugins.base import FrameworkPlugin, PluginMetadata

# A module that is larger describes nothing by hand.
MAX_BYTES = 1_000_000

_FIELDS = tuple(each.name for each in fields(PluginMetadata))


@dataclass(frozen=True, slots=True)
class Described:
    """A class of a plugin, and what it says of itself as far as that is written out."""

    attribute: str
    said: dict[str, Any] = field(default_factory=dict)


def source_of(module: str, folder: Path | None = None) -> Path | None:
    """The file of a module, found without importing the packages that it is in; None if it is no Python file.

    A LookupError says that there is no such module.
    """
    first, *rest = module.split(".")
    spec = _first(first, folder)
    for position, _ in enumerate(rest, start=1):
        places = None if spec is None else spec.submodule_search_locations
        name = ".".join(module.split(".")[: position + 1])
        spec = PathFinder.find_spec(name, list(places)) if places else None
    if spec is None:
        raise LookupError(f"there is no module {module}")
    origin = Path(spec.origin) if spec.origin else None
    return origin if origin is not None and origin.suffix == ".py" and origin.is_file() else None


def _first(name: str, folder: Path | None) -> ModuleSpec | None:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    return found or (PathFinder.find_spec(name, [str(folder)]) if folder else None)


def described_in(file: Path) -> Iterator[Described]:
    """The plugins' classes of a file. One that cannot be read has none: importing it will say why."""
    try:
        # Reading a pipe would wait for whoever writes to it.
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return
        text = file.read_bytes()
        if FrameworkPlugin.__name__.encode() not in text:
            return
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and FrameworkPlugin.__name__ in map(_last, node.bases):
            yield Described(node.name, next(filter(None, map(_metadata, ast.walk(node))), {}))


def _metadata(node: ast.AST) -> dict[str, Any]:
    if not isinstance(node, ast.Call) or _last(node.func) != PluginMetadata.__name__:
        return {}
    given = [*zip(_FIELDS, node.args, strict=False), *((each.arg, each.value) for each in node.keywords)]
    said: dict[str, Any] = {}
    for name, value in given:
        try:
            said[str(name)] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue  # computed: known when the plugin is loaded
    return said


def _last(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
