"""What MLflow's functions take, as its source says."""

import ast
import functools
import sys
from pathlib import Path
from types import FunctionType

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
        function = next(
            (node for node in defined.body if isinstance(node, _Defined) and node.name == inner), None
        )
        if function is None and not method:
            return ()  # it has that of another class
        if not isinstance(function, ast.FunctionDef):
            raise LookupError(f"{module} has no {first}.{inner}")
        return _named(function)[0 if method else 1 :]
    return _named(defined)


def parameters_of_loaded(module: str, name: str) -> tuple[str, ...] | None:
    """Parameters of a plain method whose module is loaded, which needs not be read; None of anything else."""
    first, _, method = name.partition(".")
    function = vars(getattr(sys.modules.get(module), first, object)).get(method) if method else None
    function = getattr(function, "replaces", function)
    if not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        return None
    code = function.__code__
    several = bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + several]


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
