"""The frameworks that MLflow knows, by the list that it brings along. Read, so that MLflow is not loaded."""

import ast
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LIST, _NAME_OF_LIST = "ml_package_versions.py", "_ML_PACKAGE_VERSIONS"
_PREFIXES = ("save_", "log_", "load_")


@dataclass(frozen=True, slots=True)
class Flavor:
    """A framework, and the module of MLflow that is for it."""

    name: str
    module: str
    package: str
    """What pip installs."""
    imports: str
    """What is imported of that package."""
    minimum: str
    maximum: str
    """Of the package, as MLflow names them."""


@functools.lru_cache(maxsize=1)
def flavors() -> tuple[Flavor, ...]:
    """Those that have a module in MLflow: langgraph's models are langchain's, and Lightning's are pytorch's.

    A LookupError says what this MLflow has otherwise.
    """
    folder = _folder()
    listed = _listed(folder / _LIST)
    try:
        return tuple(
            _flavor(name, row) for name, row in listed.items() if (folder / name / "__init__.py").is_file()
        )
    except (KeyError, TypeError) as error:
        raise LookupError(f"{_LIST} of MLflow has another form than was read before") from error


def functions_of(module: str) -> tuple[str, ...]:
    """The functions of one of MLflow's modules that log by themselves, save, log or load."""
    file = _folder().joinpath(*module.split(".")[1:], "__init__.py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(sorted(set(_named(tree, module))))


def _named(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef) and node in tree.body:
            names = [node.name]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{module}."):
            names = [alias.asname or alias.name for alias in node.names]
        yield from (name for name in names if name == "autolog" or name.startswith(_PREFIXES))


def _flavor(name: str, row: dict[str, dict[str, str]]) -> Flavor:
    package = row["package_info"]
    versions = row.get("models") or row["autologging"]
    return Flavor(
        name=name,
        module=f"mlflow.{name}",
        package=package["pip_release"],
        imports=package.get("module_name", name),
        minimum=versions["minimum"],
        maximum=versions["maximum"],
    )


def _listed(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LookupError(f"this MLflow has no {file.name}") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == [_NAME_OF_LIST]:
            listed: dict[str, dict[str, dict[str, str]]] = ast.literal_eval(node.value)
            return listed
    raise LookupError(f"{file.name} of MLflow has no {_NAME_OF_LIST}")


def _folder() -> Path:
    """Where MLflow is, found without loading it."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.origin:
        raise LookupError("MLflow is not installed")
    return Path(spec.origin).parent
