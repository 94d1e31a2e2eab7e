"""Keep in one place what breaks with the next MLflow: ``genesis_flow/compat``.

    python tools/check_mlflow_names.py     exit 1 and name what belongs there

Elsewhere in the package no name that MLflow marks as private may be imported from it or looked up in what was
imported from it, and nothing may ask which version of MLflow is installed. Tests and tools may: they break
alone.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("genesis_flow", "migrations")
COMPAT = Path("genesis_flow", "compat")
_ASKERS = ("version", "distribution", "metadata", "import_module", "__import__")


def main() -> int:
    found = [finding for folder in FOLDERS for finding in _check_folder(ROOT, folder)]
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


def _check_folder(root: Path, folder: str) -> Iterator[str]:
    for path in sorted((root / folder).rglob("*.py")):
        name = path.relative_to(root)
        if not name.is_relative_to(COMPAT):
            yield from check_source(path.read_text(encoding="utf-8"), name.as_posix())


def check_source(text: str, name: str) -> Iterator[str]:
    """Sentences about what one file should leave to genesis_flow.compat."""
    tree = ast.parse(text, filename=name)
    bound = {local for node in ast.walk(tree) for local in _bound_to_mlflow(node)}
    for node in ast.walk(tree):
        for what in _knows(node, bound):
            yield f"{name}:{node.lineno}: {what}: move it to genesis_flow/compat and import it from there"


def _bound_to_mlflow(node: ast.AST) -> Iterator[str]:
    """The local names that an import gives to something of MLflow."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _is_mlflow(alias.name):
                yield alias.asname or "mlflow"
    elif isinstance(node, ast.ImportFrom) and not node.level and _is_mlflow(node.module or ""):
        yield from (alias.asname or alias.name for alias in node.names)


def _knows(node: ast.AST, bound: set[str]) -> Iterator[str]:
    """What ``node`` knows of MLflow that it should not."""
    if isinstance(node, ast.Import):
        yield from (said for alias in node.names for said in _told(alias.name))
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from (said for alias in node.names for said in _told(f"{node.module}.{alias.name}"))
    elif isinstance(node, ast.Attribute) and _root(node) in bound:
        said = _of_name(node.attr)
        if said:
            yield f"{ast.unparse(node)} {said}"
    elif isinstance(node, ast.Call) and _last(node.func) in (*_ASKERS, "getattr"):
        yield from _told_by_text(node, bound)


def _told(dotted: str) -> Iterator[str]:
    """A sentence's beginning if the imported ``dotted`` name is private or a version of MLflow."""
    if _is_mlflow(dotted):
        said = next(filter(None, map(_of_name, dotted.split("."))), None)
        if said:
            yield f"{dotted} {said}"


def _told_by_text(call: ast.Call, bound: set[str]) -> Iterator[str]:
    """Names as texts: ``version("mlflow")``, ``import_module("mlflow._x")``, ``getattr(mlflow, "_x")``."""
    texts = [value.value for value in call.args if isinstance(value, ast.Constant)]
    names = [text for text in texts if isinstance(text, str)]
    if _last(call.func) == "getattr":
        if call.args and _root(call.args[0]) in bound:
            yield from (f"{ast.unparse(call)} {said}" for said in map(_of_name, names) if said)
    elif _last(call.func) in ("import_module", "__import__"):
        yield from (said for name in names for said in _told(name))
    elif any(_is_mlflow(name.partition("-")[0]) for name in names):
        yield f"{ast.unparse(call)} asks for MLflow's version"


def _of_name(name: str) -> str | None:
    if name in ("version", "VERSION", "__version__"):
        return "tells MLflow's version"
    return "is private to MLflow" if name.startswith("_") and not name.endswith("__") else None


def _is_mlflow(dotted: str) -> bool:
    return dotted.split(".", 1)[0] == "mlflow"


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _last(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


if __name__ == "__main__":
    sys.exit(main())
