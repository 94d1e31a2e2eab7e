"""Refusals of what MLflow's stores can do and ours cannot yet.

MLflow's base classes answer a method that a store lacks in several ways. A server makes an HTTP 500 of
them, and MLflow's clients repeat a call that was answered so for minutes.
"""

import dis
import inspect
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any, NoReturn

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED

from genesis_flow.compat.version import VERSION

_STANDS_FOR_NOTHING = frozenset({"NotImplementedError", "MlflowNotImplementedException"})
_OPERATIONS_OF_NOTHING = frozenset({"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"})


@cache
def missing_methods(store: type) -> frozenset[str]:
    """The public methods of MLflow's interface that ``store`` only inherits, and that do nothing there."""
    public = (name for name in dir(store) if not name.startswith("_"))
    return frozenset(name for name in public if _is_empty(inspect.getattr_static(store, name)))


def _is_empty(member: object) -> bool:
    if not inspect.isfunction(member) or not member.__module__.startswith("mlflow."):
        return False
    if _STANDS_FOR_NOTHING & set(member.__code__.co_names):
        return True
    return {instruction.opname for instruction in dis.get_instructions(member)} <= _OPERATIONS_OF_NOTHING


def refusals(store: type) -> dict[str, Callable[..., NoReturn]]:
    """A function that refuses for each method that ``store`` lacks."""
    return {name: partial(_refuse, name) for name in missing_methods(store)}


def refusal_awaited(name: str) -> Callable[..., Awaitable[NoReturn]]:
    """The refusal of ``name`` for asynchronous callers."""

    async def refuse(*_: Any, **__: Any) -> NoReturn:
        _refuse(name)

    return refuse


def _refuse(name: str, /, *_: Any, **__: Any) -> NoReturn:
    from genesis_flow import __version__

    raise MlflowException(
        f"genesis_flow {__version__} does not have {name} yet; MLflow {VERSION} has it with an SQL database. "
        "Nothing was changed.",
        NOT_IMPLEMENTED,
    )
