"""What MLflow calls for our schemes, where it cannot be had."""

import logging
import subprocess
import sys
from abc import abstractmethod

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.compat import packages, stores
from genesis_flow.plugins import entrypoints

# A name that MLflow takes away: the registry does not import then, nor do the stores.
WITHOUT_A_NAME = """
import mlflow
import mlflow.utils.validation
del mlflow.utils.validation._validate_model_name
mlflow.set_tracking_uri({uri!r})
mlflow.set_registry_uri({uri!r})
for call in (mlflow.search_experiments, mlflow.search_registered_models):
    try:
        call()
    except mlflow.MlflowException as error:
        print(error.message)
        assert isinstance(error.__cause__, ImportError)
"""
LOADS = """
import sys
before = set(sys.modules)
import genesis_flow.plugins.entrypoints
ours = {name for name in set(sys.modules) - before if name.startswith("genesis_flow")}
others = {name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
print(sorted(ours), sorted(others))
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("uri", ["mongodb://localhost:1/nowhere", "genesis:///nowhere"])
def test_a_store_that_does_not_load_says_why(uri: str) -> None:
    lines = run(WITHOUT_A_NAME.format(uri=uri)).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("genesis_flow 0.1.0 cannot be used with the installed MLflow 3.")
        assert "ImportError: cannot import name '_validate_model_name'" in line


def test_nothing_is_loaded_before_a_store_is_wanted() -> None:
    ours = ["genesis_flow", "genesis_flow.compat", "genesis_flow.compat.packages", "genesis_flow.plugins"]
    ours += ["genesis_flow.plugins.after_import", "genesis_flow.plugins.entrypoints"]
    assert run(LOADS).strip() == f"{ours} ['genesis_flow']"


@pytest.mark.parametrize(
    ("installed", "advice"),
    [
        (packages.TESTED[0], "; `pip check` shows what is missing or too old."),
        ("3.99.0", f"; it works with MLflow {packages.TESTED_IN_WORDS}: install one of these, or a newer"),
    ],
)
def test_what_to_do(installed: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", lambda: installed)

    class Store:
        @abstractmethod
        def summarize(self) -> None: ...

    Store.__abstractmethods__ = frozenset({"summarize"})  # type: ignore[attr-defined]
    with pytest.raises(MlflowException) as caught:
        entrypoints._refuse_unfinished(Store)
    assert f"MLflow {installed} (Store lacks summarize){advice}" in caught.value.message


def test_a_newer_mlflow_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    for version in (*packages.TESTED, "3.17.0", "3.18.7", "3.99.0", "3.99.0", "4.0.0rc1"):
        monkeypatch.setattr(packages, "installed", lambda version=version: version)
        with caplog.at_level(logging.WARNING, "genesis_flow"):
            entrypoints._tell_of_untested_mlflow()
        told += [version for record in caplog.records if record.args]
        caplog.clear()
    assert told == ["3.99.0", "4.0.0rc1"]


def test_everything_is_registered_by_hand_where_entry_points_are_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registries = {
        "tracking_store": stores.tracking_store_registry,
        "model_registry_store": stores.get_store_registry(),
        "scorer_store": stores.scorer_store_registry(),
    }
    for registry in registries.values():
        monkeypatch.setattr(registry, "_registry", {})
    entrypoints.register_mongodb_stores()
    for name, registry in registries.items():
        builder = getattr(entrypoints, name)
        assert registry._registry == dict.fromkeys(("mongodb", "mongodb+srv", "genesis"), builder), name
