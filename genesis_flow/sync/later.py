"""Modules that are imported when something of them is first wanted."""

from importlib import import_module
from typing import Any


class later:
    """The module of this name, which a program that never uses it does not import."""

    def __init__(self, module: str) -> None:
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        # Kept, so that the next look finds it as fast as in a module.
        value = self.__dict__[name] = getattr(import_module(self._module), name)
        return value
