"""What MLflow finds through entry points, and the manager of the plugins that users add.

The names below are loaded when they are asked for: MLflow imports this package in all processes it starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genesis_flow.plugins.base import FrameworkPlugin, PluginMetadata, PluginState, PluginType
    from genesis_flow.plugins.manager import (
        PluginManager,
        disable,
        enable,
        get_plugin_manager,
        list_plugins,
        plugin_context,
    )

__all__ = [
    "FrameworkPlugin",
    "PluginManager",
    "PluginMetadata",
    "PluginState",
    "PluginType",
    "disable",
    "enable",
    "get_plugin_manager",
    "list_plugins",
    "plugin_context",
]
_OF_BASE = ("FrameworkPlugin", "PluginMetadata", "PluginState", "PluginType")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{'base' if name in _OF_BASE else 'manager'}"), name)
    globals()[name] = found
    return found
