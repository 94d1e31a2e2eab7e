"""The frameworks that MLflow knows, as plugins: its module for one is imported when a function is called."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from genesis_flow.compat import autologging, packages
from genesis_flow.compat.flavors import Flavor, flavors, functions_of
from genesis_flow.plugins.base import FrameworkPlugin, Functions, PluginMetadata
from genesis_flow.plugins.discovery import Found

ORIGIN = "MLflow"


def builtins() -> Iterator[Found]:
    """A LookupError says what this MLflow has otherwise than those that were tested."""
    mlflow = packages.installed()
    for flavor in flavors():
        yield Found(
            name=flavor.name,
            origin=ORIGIN if mlflow is None else f"{ORIGIN} {mlflow}",
            make=lambda flavor=flavor: MlflowFlavor(flavor),  # type: ignore[misc]
            version=mlflow,
            description=f"{flavor.module}, for {flavor.package}",
            author="MLflow",
            dependencies=(flavor.package,),
            module=flavor.imports,
            tested=(flavor.minimum, flavor.maximum),
        )


class MlflowFlavor(FrameworkPlugin):
    """One of MLflow's own modules. Disabled, its autologging is what it was when the plugin was enabled."""

    def __init__(self, flavor: Flavor) -> None:
        super().__init__(
            PluginMetadata(
                name=flavor.name, version=packages.installed() or "0", dependencies=(flavor.package,)
            )
        )
        self._flavor = flavor
        self._autologging: dict[str, Any] | None = None

    def get_module_path(self) -> str:
        return self._flavor.module

    def get_autolog_functions(self) -> Functions:
        return self._with("autolog")

    def get_save_functions(self) -> Functions:
        return self._with("save_", "log_")

    def get_load_functions(self) -> Functions:
        return self._with("load_")

    def on_enable(self) -> None:
        self._autologging = autologging.settings_of(self._flavor.name)

    def on_disable(self) -> None:
        autologging.set_back(self._flavor.name, self._autologging)

    def _with(self, *beginnings: str) -> Functions:
        names = (name for name in functions_of(self._flavor.module) if name.startswith(beginnings))
        return {name: _later(self._flavor.module, name) for name in names}


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    call.__name__ = name
    call.__qualname__ = f"{module}.{name}"
    return call
