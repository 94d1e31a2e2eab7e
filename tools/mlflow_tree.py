"""MLflow as text: the modules of a wheel or of a folder, read without importing one of them."""

import ast
import re
import zipfile
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

_VERSION = re.compile(r'^VERSION\s*(?::\s*\w+\s*)?=\s*["\']([^"\']+)', re.MULTILINE)
# Names of a module that protobuf's compiler wrote come to be when it is imported.
_GENERATED = "_pb2"
_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|[0-7]{3}|[a-z])")

Signatures = dict[str, str]


class MlflowTree:
    """The package ``mlflow`` in a wheel, or in a folder that holds it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._wheel = zipfile.ZipFile(place) if place.is_file() else None
        if self.text("mlflow") is None:
            raise FileNotFoundError(
                f"{place} holds no package mlflow; name a wheel or a site-packages folder."
            )

    @cached_property
    def version(self) -> str:
        found = _VERSION.search(self.text("mlflow.version") or "")
        return found[1] if found else "unknown"

    @cached_property
    def names(self) -> frozenset[str]:
        """Paths of all Python files, from the folder that holds the package."""
        if self._wheel is not None:
            return frozenset(name for name in self._wheel.namelist() if name.endswith(".py"))
        found = (self.place / "mlflow").rglob("*.py")
        return frozenset(path.relative_to(self.place).as_posix() for path in found)

    def path_of(self, module: str) -> str | None:
        base = module.replace(".", "/")
        return next((name for name in (f"{base}.py", f"{base}/__init__.py") if name in self.names), None)

    def text(self, module: str) -> str | None:
        path = self.path_of(module)
        return None if path is None else self.read(path)

    def read(self, path: str) -> str:
        if self._wheel is not None:
            return self._wheel.read(path).decode("utf-8")
        return (self.place / path).read_text(encoding="utf-8")

    @cache  # noqa: B019 - a tree lives as long as the program
    def parsed(self, module: str) -> ast.Module | None:
        text = self.text(module)
        return None if text is None else ast.parse(text)

    @cache  # noqa: B019
    def defines(self, module: str, name: str) -> bool:
        """Whether ``from module import name`` would find something."""
        if self.path_of(f"{module}.{name}") is not None:
            return True
        tree = self.parsed(module)
        if tree is None:
            return False
        if module.endswith(_GENERATED):
            words = _ESCAPED.sub(" ", self.text(module) or "")
            return re.search(rf"\b{re.escape(name)}\b", words) is not None
        bound = set(bound_names(tree))
        if name in bound or "__getattr__" in bound:
            return True
        return any(self.defines(origin, name) for origin in _starred(tree, module, self))

    def find(self, module: str, name: str) -> tuple[str, ast.stmt] | None:
        """The function or class of this name and its module, behind imports that hand it on."""
        tree = self.parsed(module)
        for node in _statements(tree.body) if tree else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.ImportFrom):
                origin = _origin(node, module, self)
                for alias in node.names:
                    if (alias.asname or alias.name) == name and origin.startswith("mlflow"):
                        return self.find(origin, alias.name)
        return None


def bound_names(tree: ast.Module) -> Iterator[str]:
    """Every name that the top of a module binds."""
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements(node.body)
        if isinstance(node, ast.If | ast.Try):
            yield from _statements(node.orelse)
        if isinstance(node, ast.Try):
            yield from (inner for handler in node.handlers for inner in _statements(handler.body))


def _origin(node: ast.ImportFrom, module: str, tree: MlflowTree) -> str:
    if not node.level:
        return node.module or ""
    is_package = (tree.path_of(module) or "").endswith("__init__.py")
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _starred(parsed: ast.Module, module: str, tree: MlflowTree) -> Iterator[str]:
    for node in _statements(parsed.body):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield _origin(node, module, tree)


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The parameters with their defaults; annotations change more often than what callers may pass."""
    spec = function.args
    plain = ast.arguments(
        posonlyargs=[ast.arg(each.arg) for each in spec.posonlyargs],
        args=[ast.arg(each.arg) for each in spec.args],
        vararg=spec.vararg and ast.arg(spec.vararg.arg),
        kwonlyargs=[ast.arg(each.arg) for each in spec.kwonlyargs],
        kw_defaults=spec.kw_defaults,
        kwarg=spec.kwarg and ast.arg(spec.kwarg.arg),
        defaults=spec.defaults,
    )
    return f"({ast.unparse(plain)})"


def public_methods(tree: MlflowTree, module: str, name: str) -> Signatures:
    """The public methods of a class and of those bases that MLflow defines, nearest first."""
    found = tree.find(module, name)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return {}
    place, node = found
    methods: Signatures = {}
    for member in node.body:
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
            methods[member.name] = signature(member)
    for base in node.bases:
        if isinstance(base, ast.Name):
            methods = {**public_methods(tree, place, base.id), **methods}
    return methods
