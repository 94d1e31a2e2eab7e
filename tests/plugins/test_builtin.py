"""The frameworks that MLflow knows: taken from MLflow, and not imported before one is used."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mlflow.sklearn
import mlflow.xgboost
import pytest
from mlflow.ml_package_versions import _ML_PACKAGE_VERSIONS, FLAVOR_TO_MODULE_NAME

from genesis_flow.compat import flavors, packages
from genesis_flow.plugins.manager import PluginManager
from genesis_flow.plugins.settings import PluginSettings
from tests.client.conftest import user_environment
from tests.plugins.conftest import only

LAZY = """
import json, sys

def peak():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1])

def loaded():
    frameworks = {"mlflow", "numpy", "pandas", "sklearn", "xgboost"}
    return sorted(frameworks & {name.partition(".")[0] for name in sys.modules})

from genesis_flow.plugins import get_plugin_manager
steps = [("imported", loaded(), peak())]
manager = get_plugin_manager()
names = [each["name"] for each in manager.list_plugins()]
assert {"sklearn", "xgboost", "pytorch"} <= set(names)
steps.append(("listed", loaded(), peak()))
with manager.plugin_context("sklearn") as plugin:
    functions = plugin.functions()
    steps.append(("enabled", loaded(), peak()))
    functions["autolog"](silent=True)
    steps.append(("called", loaded(), peak()))
print(json.dumps(steps))
"""


@pytest.fixture(scope="module")
def manager() -> PluginManager:
    return PluginManager(PluginSettings(auto_discover=False))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_nothing_of_a_framework_is_loaded_before_a_function_is_called() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAZY], env=user_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = {name: (loaded, peak) for name, loaded, peak in json.loads(done.stdout)}
    assert {name: loaded for name, (loaded, _) in steps.items() if name != "called"} == {
        "imported": [],
        "listed": [],
        "enabled": [],
    }
    assert {"mlflow", "sklearn"} <= set(steps["called"][0])
    # Of the memory that one framework takes, what comes before it is the smaller part.
    before = steps["enabled"][1] - steps["imported"][1]
    assert before * 3 < steps["called"][1] - steps["enabled"][1], steps


def test_the_list_is_mlflows_own(manager: PluginManager) -> None:
    listed = {each["name"]: each for each in manager.list_plugins()}
    with_module = {
        name
        for name in _ML_PACKAGE_VERSIONS
        if "-" not in name and importlib.util.find_spec(f"mlflow.{name}")
    }
    assert listed.keys() == with_module
    assert _ML_PACKAGE_VERSIONS.keys() - with_module == {"langgraph", "pytorch-lightning"}
    for name, each in listed.items():
        assert each["version"] == packages.installed()
        assert [one["requirement"] for one in each["dependencies"]] == [
            _ML_PACKAGE_VERSIONS[name]["package_info"]["pip_release"]
        ]
    modules = {each.name: each.imports for each in flavors.flavors()}
    assert {name: modules[name] for name in FLAVOR_TO_MODULE_NAME.keys() & modules.keys()} == {
        name: module for name, module in FLAVOR_TO_MODULE_NAME.items() if name in modules
    }


def test_a_framework_is_available_where_its_package_is_or_another_that_brings_it(
    manager: PluginManager,
) -> None:
    # xgboost is here as xgboost-cpu, and on Linux only.
    there = "available" if importlib.util.find_spec("xgboost") else "unavailable"
    assert only(manager, "sklearn")["state"] == "available"
    assert only(manager, "xgboost")["state"] == there
    assert only(manager, "johnsnowlabs")["why_unavailable"] == "johnsnowlabs is not installed"
    # A namespace that several packages share says nothing: google.genai is not what brings google.protobuf.
    assert only(manager, "gemini")["why_unavailable"] == "google-genai is not installed"


def test_each_function_that_a_framework_has_is_mlflows(manager: PluginManager) -> None:
    modules = [mlflow.sklearn, *([mlflow.xgboost] if importlib.util.find_spec("xgboost") else [])]
    for module in modules:
        with manager.plugin_context(module.__name__.partition(".")[2]) as plugin:
            assert plugin.get_module_path() == module.__name__
            assert list(plugin.get_autolog_functions()) == ["autolog"]
            assert {"save_model", "log_model"} <= plugin.get_save_functions().keys()
            assert "load_model" in plugin.get_load_functions()
            assert [name for name in plugin.functions() if not callable(getattr(module, name))] == []
    for each in flavors.flavors():
        functions = flavors.functions_of(each.module)
        assert ("autolog" in functions) == ("autologging" in _ML_PACKAGE_VERSIONS[each.name]), each
        assert functions, each


def test_versions_that_mlflow_does_not_name_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PluginManager(PluginSettings(auto_discover=False))
    monkeypatch.setattr(
        "genesis_flow.plugins.dependencies._version_of",
        lambda name: "0.9.9" if name == "scikit-learn" else None,
    )
    found = only(manager, "sklearn")
    assert found["state"] == "available"
    (note,) = found["notes"]  # type: ignore[misc]
    assert note.startswith("MLflow names scikit-learn 1.")
    assert note.endswith("; 0.9.9 is installed")


def test_a_list_of_another_form_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ml_package_versions.py").write_text("_ML_PACKAGE_VERSIONS = {'sklearn': 1}\n")
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").touch()
    monkeypatch.setattr(flavors, "_folder", lambda: tmp_path)
    flavors.flavors.cache_clear()
    try:
        manager = PluginManager(PluginSettings(auto_discover=False))
        assert manager.list_plugins() == []
        (problem,) = manager.problems
        assert problem.startswith("The frameworks that MLflow knows cannot be listed: ml_package_versions.py")
    finally:
        flavors.flavors.cache_clear()
