"""The switch and its settings: environment, then mlflow.conf; and where the hooks are."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.models.policy import SCAN, Policy
from genesis_flow.plugins.model_hooks import MODEL_HOOKS
from tests.models.conftest import SECURE

IN_A_FILE = """
[security]
enable_secure_model_loading = true
model_pickles = scan
trusted_model_types = a.B, c.d.E
model_public_keys = /keys/one.pub:/keys/two.pub
model_manifests = false
"""

# A process that never opens a store of ours has the hooks too, and loads what checks when it downloads.
LOADS = """
import sys
import mlflow
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
print(hasattr(LocalArtifactRepository.download_artifacts, "replaces"))
print(hasattr(mlflow.MlflowClient.log_model_artifacts, "replaces"))
print([name for name in ("genesis_flow.models", "genesis_flow.sync", "picklescan") if name in sys.modules])
"""


def test_off_unless_it_is_switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Policy.current({}) == Policy()
    assert Policy.current({SECURE: "true"}).secure


def test_the_file_sets_all_and_the_environment_comes_first(tmp_path: Path) -> None:
    conf = tmp_path / "mlflow.conf"
    conf.write_text(IN_A_FILE)
    keys = (Path("/keys/one.pub"), Path("/keys/two.pub"))
    types = frozenset({"a.B", "c.d.E"})
    assert Policy.current({}, conf) == Policy(True, False, SCAN, types, keys, False)
    environ = {
        SECURE: "false",
        "GENESIS_FLOW_MODEL_PICKLES": "refuse",
        "GENESIS_FLOW_TRUSTED_MODEL_TYPES": "f.G",
        "GENESIS_FLOW_MODEL_PUBLIC_KEYS": "/keys/three.pub",
        "GENESIS_FLOW_MODEL_MANIFESTS": "true",
        "MLFLOW_ALLOW_MODEL_CODE_EXECUTION": "true",
    }
    assert Policy.current(environ, conf) == Policy(
        False, True, "refuse", frozenset({"f.G"}), (Path("/keys/three.pub"),), True
    )


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (SECURE, "perhaps", "must be true or false"),
        ("GENESIS_FLOW_MODEL_PICKLES", "trust", "must be refuse or scan"),
        ("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "some", "must be true or false"),
    ],
)
def test_a_value_that_is_not_understood_is_refused(variable: str, value: str, says: str) -> None:
    with pytest.raises(MlflowException, match=f"{variable} {says}"):
        Policy.current({variable: value})


def test_every_process_with_a_client_has_the_hooks() -> None:
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:3] == ["True", "True", "[]"], done.stderr


@pytest.mark.parametrize("hook", MODEL_HOOKS, ids=lambda hook: hook.name)
def test_each_hook_fits_the_installed_mlflow(hook: object) -> None:
    from genesis_flow.compat.source import parameters_of

    assert hook.why_not() is None  # type: ignore[attr-defined]
    assert parameters_of(hook.module, hook.name) == hook.parameters  # type: ignore[attr-defined]
