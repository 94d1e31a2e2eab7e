"""Enabled, disabled, enabled for a block: what holds then, and afterwards."""

import threading

import mlflow
import mlflow.sklearn
import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.autologging_utils import AUTOLOGGING_INTEGRATIONS, autologging_is_disabled

from genesis_flow import plugins
from genesis_flow.plugins import FrameworkPlugin, PluginMetadata, PluginType
from genesis_flow.plugins.manager import PluginManager
from genesis_flow.plugins.settings import PluginSettings
from tests.plugins.conftest import Maker, Managed, only, source

HOOKS = """
calls = []

def on_enable(self):
    self.calls.append("on")

def on_disable(self):
    self.calls.append("off")

def get_save_functions(self):
    return {"save_model": lambda: "saved"}

def get_load_functions(self):
    return {"load_model": lambda: "loaded"}
"""


@pytest.fixture
def manager(maker: Maker, managed: Managed) -> PluginManager:
    maker.package("one", source("name='one', version='1.0.0'", HOOKS))
    return managed()


class MyFrameworkPlugin(FrameworkPlugin):
    """As the documents show it."""

    def __init__(self) -> None:
        metadata = PluginMetadata(
            name="my_framework",
            version="1.0.0",
            description="Custom ML framework integration",
            author="Your Name",
            plugin_type=PluginType.FRAMEWORK,
            dependencies=["pytest>=1.0.0"],
            optional_dependencies=["optional_package"],
            min_genesis_flow_version="3.1.0",
        )
        super().__init__(metadata)

    def get_module_path(self) -> str:
        return "mlflow.my_framework"

    def get_autolog_functions(self):  # type: ignore[no-untyped-def]
        return {"autolog": self._autolog_function}

    def get_save_functions(self):  # type: ignore[no-untyped-def]
        return {"save_model": self._save_model}

    def get_load_functions(self):  # type: ignore[no-untyped-def]
        return {"load_model": self._load_model}

    def _autolog_function(self) -> str:
        return "logs"

    def _save_model(self) -> str:
        return "saved"

    def _load_model(self) -> str:
        return "loaded"


def test_a_context_enables_and_restores(manager: PluginManager) -> None:
    assert only(manager, "one")["state"] == "available"
    with manager.plugin_context("one") as plugin:
        assert only(manager, "one")["state"] == "enabled"
        assert manager.is_enabled("one")
        assert manager.get_plugin("one") is plugin
        assert {name: call() for name, call in plugin.functions().items()} == {
            "save_model": "saved",
            "load_model": "loaded",
        }
    assert only(manager, "one")["state"] == "available"
    assert plugin.calls == ["on", "off"]  # type: ignore[attr-defined]
    with pytest.raises(MlflowException, match=r"'one' is not enabled: use enable\('one'\)"):
        manager.get_plugin("one")


def test_an_error_in_a_context_goes_on_and_the_plugin_is_disabled(manager: PluginManager) -> None:
    with pytest.raises(ZeroDivisionError), manager.plugin_context("one"):
        _ = 1 // 0
    assert not manager.is_enabled("one")


def test_contexts_in_contexts_restore_what_was(manager: PluginManager) -> None:
    with manager.plugin_context("one") as plugin:
        with manager.plugin_context("one") as same:
            assert same is plugin
        assert manager.is_enabled("one")
    assert not manager.is_enabled("one")
    assert manager.enable("one") is plugin
    with manager.plugin_context("one"):
        pass
    assert manager.is_enabled("one")
    manager.disable("one")
    manager.disable("one")
    assert not manager.is_enabled("one")
    assert plugin.calls == ["on", "off", "on", "off"]  # type: ignore[attr-defined]


def test_threads_do_not_disable_each_others_plugins(manager: PluginManager) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with manager.plugin_context("one"):
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert inside.wait(60)
        with manager.plugin_context("one"):
            pass
        assert manager.is_enabled("one")
        with pytest.raises(MlflowException, match="in use by a plugin_context: leave that first"):
            manager.disable("one")
    finally:
        leave.set()
        thread.join()
    assert not manager.is_enabled("one")


def test_what_is_enabled_inside_a_context_stays(manager: PluginManager) -> None:
    with manager.plugin_context("one"):
        manager.enable("one")
    assert manager.is_enabled("one")


def test_autologging_is_afterwards_what_it_was() -> None:
    manager = PluginManager(PluginSettings(auto_discover=False))
    mlflow.sklearn.autolog(disable=True)
    try:
        with manager.plugin_context("sklearn") as plugin:
            plugin.functions()["autolog"](log_models=False, silent=True)
            assert not autologging_is_disabled("sklearn")
        assert autologging_is_disabled("sklearn")
        mlflow.sklearn.autolog(max_tuning_runs=3, silent=True)
        before = AUTOLOGGING_INTEGRATIONS["sklearn"]
        before["globally_configured"] = True  # mlflow.autolog() notes it
        with manager.plugin_context("sklearn"):
            mlflow.sklearn.autolog(disable=True)
        assert not autologging_is_disabled("sklearn")
        assert AUTOLOGGING_INTEGRATIONS["sklearn"] == before
    finally:
        mlflow.sklearn.autolog(disable=True)


def test_the_plugin_of_the_documents_is_registered_as_it_stands() -> None:
    manager = PluginManager(PluginSettings(auto_discover=False))
    assert manager.register(MyFrameworkPlugin) == "my_framework"
    found = only(manager, "my_framework")
    assert (found["state"], found["version"], found["type"]) == ("available", "1.0.0", "framework")
    assert [
        (each["requirement"], each["fulfilled"], each["optional"])  # type: ignore[index]
        for each in found["dependencies"]  # type: ignore[attr-defined]
    ] == [("pytest>=1.0.0", True, False), ("optional_package", False, True)]
    with manager.plugin_context("my_framework") as plugin:
        assert {name: call() for name, call in plugin.functions().items()} == {
            "autolog": "logs",
            "save_model": "saved",
            "load_model": "loaded",
        }
    with pytest.raises(MlflowException, match="already: register yours by another name"):
        manager.register(MyFrameworkPlugin())
    manager.discover()
    assert only(manager, "my_framework")["state"] == "available"
    with pytest.raises(MlflowException, match="cannot be registered: TypeError: it is no FrameworkPlugin"):
        manager.register(dict)  # type: ignore[arg-type]


def test_the_functions_of_the_package_are_those_of_one_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "genesis_flow.plugins.manager._manager", PluginManager(PluginSettings(auto_discover=False))
    )
    manager = plugins.get_plugin_manager()
    assert plugins.get_plugin_manager() is manager
    assert "pytorch" in [each["name"] for each in plugins.list_plugins()]
    with plugins.plugin_context("sklearn"):
        assert manager.is_enabled("sklearn")
    assert plugins.enable("sklearn") is manager.get_plugin("sklearn")
    plugins.disable("sklearn")
    assert not manager.is_enabled("sklearn")
    with pytest.raises(AttributeError):
        _ = plugins.nothing  # type: ignore[attr-defined]


def test_a_name_that_does_not_exist_is_told_with_the_nearest(manager: PluginManager) -> None:
    with pytest.raises(MlflowException, match="There is no plugin 'onne': did you mean 'one'") as caught:
        manager.enable("onne")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
