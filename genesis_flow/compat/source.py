"""What MLflow's functions take, as its source says."""

import ast
import functools
from pathlib import Path

import mlflow

_Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parameters_of(module: str, name: str) -> tuple[str, ...]:
    """The parameters of a function, of a method (``Class.method``), or of what makes a class's instances.

    A LookupError says in words what is not there.
    """
    tree = _tree(module)
    first, _, method = name.partition(".")
    defined = next((node for node in tree.body if isinstance(node, _Defined) and node.name == first), None)
    if defined is None:
        return _elsewhere(tree, module, name)
    if isinstance(defined, ast.ClassDef):
        inner = method or "__init__"
        found = next(
            (node for node in defined.body if isinstance(node, _Defined) and node.name == inner), None
        )
        if not isinstance(found, ast.FunctionDef):
            raise LookupError(f"{module} has no {first}.{inner}")
        return _named(found)[0 if method else 1 :]
    return _named(defined)


def _elsewhere(tree: ast.Module, module: str, name: str) -> tuple[str, ...]:
    """Of what a module has from another one."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return parameters_of(node.module, alias.name)
    raise LookupError(f"{module} has no {name}")


def _named(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    spec = function.args
    several = [each for each in (spec.vararg, spec.kwarg) if each is not None]
    return tuple(each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *several))


@functools.lru_cache(maxsize=8)
def _tree(module: str) -> ast.Module:
    package, *parts = module.split(".")
    assert package == mlflow.__name__, f"{module} is not MLflow's"
    path = Path(str(mlflow.__file__)).parent.joinpath(*parts)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    raise LookupError(f"there is no {module}")
