"""What the entry point names, imported when the plugin is enabled. MLflow is not imported before a call."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from genesis_flow.plugins import FrameworkPlugin, PluginMetadata, PluginType


class NearestCenterPlugin(FrameworkPlugin):
    def __init__(self) -> None:
        # Written out, so that it is listed without running this.
        metadata = PluginMetadata(
            name="nearest_center",
            version="1.0.0",
            description="Saves, loads and logs models of nearest_center",
            author="Your name",
            plugin_type=PluginType.FRAMEWORK,
            dependencies=["mlflow>=3.17", "pandas>=2"],
            optional_dependencies=["matplotlib>=3.8"],
            min_genesis_flow_version="0.1.0",
        )
        super().__init__(metadata)

    def get_module_path(self) -> str:
        return "nearest_center.flavor"

    def get_autolog_functions(self) -> dict[str, Callable[..., Any]]:
        return {"autolog": self._later("autolog")}

    def get_save_functions(self) -> dict[str, Callable[..., Any]]:
        return {name: self._later(name) for name in ("save_model", "log_model")}

    def get_load_functions(self) -> dict[str, Callable[..., Any]]:
        return {"load_model": self._later("load_model")}

    def on_disable(self) -> None:
        self._later("autolog")(disable=True)

    def _later(self, name: str) -> Callable[..., Any]:
        """A function of the module above, which is imported when it is called."""
        return lambda *args, **kwargs: getattr(import_module(self.get_module_path()), name)(*args, **kwargs)
