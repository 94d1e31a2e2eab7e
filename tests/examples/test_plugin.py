"""The example of a plugin, installed as a package and used in a run."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.client.conftest import run_command, user_environment
from tests.examples.conftest import EXAMPLES

PROGRAM = EXAMPLES / "plugin" / "train.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed a copy: a build leaves files beside the sources."""
    if find_spec("hatchling") is None:
        missing = "hatchling, which the extra dev brings, is not installed"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    source = shutil.copytree(EXAMPLES / "plugin", tmp_path_factory.mktemp("source") / "plugin")
    target = tmp_path_factory.mktemp("installed")
    pip = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *pip, "--target", str(target), str(source)],
        env=user_environment(PIP_DISABLE_PIP_VERSION_CHECK="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_it_is_installed_found_and_used_in_a_run(installed: Path, tmp_path: Path, store_uri: str) -> None:
    outcome = run_command(
        sys.executable, str(PROGRAM), cwd=tmp_path, MLFLOW_TRACKING_URI=store_uri, PYTHONPATH=str(installed)
    )
    assert outcome.code == 0, outcome.stderr
    assert "predicts ['small', 'large']; the plugin is available again." in outcome.stdout
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("example of a plugin")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.params, run.data.metrics) == (
        {"power": "2.0", "classes": "2"},
        {"training_accuracy": 1.0},
    )
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert model.source_run_id == run.info.run_id


def test_it_is_listed_from_a_folder_of_plugins(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.conf").write_text(f"[plugins]\nplugin_paths = {installed}\n")
    command = [sys.executable, "-m", "genesis_flow.cli", "plugins", "list", "--json"]
    outcome = run_command(*command, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    (found,) = (each for each in json.loads(outcome.stdout) if each["name"] == "nearest_center")
    assert (found["state"], found["version"]) == ("available", "1.0.0")
    assert (found["origin"], found["author"]) == ("nearest-center 1.0.0", "Your name")
    assert [each["requirement"] for each in found["dependencies"]] == [
        "mlflow>=3.17",
        "pandas>=2",
        "matplotlib>=3.8",
    ]
    assert found["notes"] == []
