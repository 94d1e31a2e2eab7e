"""Programs of users, run in processes of their own on the embedded MongoDB.

The programs are the files in ``programs/``: each takes the store's URI, and prints one line of JSON.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from genesis_flow import embedded

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_SECONDS = 150


@dataclass(frozen=True)
class Outcome:
    """What a program left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Any:
        """The line of JSON that the program printed last."""
        assert self.code == 0, f"exit code {self.code}\n{self.stdout}\n{self.stderr}"
        return json.loads(self.stdout.strip().splitlines()[-1])


Run = Callable[..., Outcome]


def user_environment(**changes: str) -> dict[str, str]:
    """This environment without settings of MLflow and of genesis_flow, and without telemetry."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "_MLFLOW_", "GENESIS_FLOW_", "MONGODB_"))
        # Without byte code every program would compile MLflow for itself.
        and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", **changes}


def run_command(*command: str, cwd: Path | None = None, **environment: str) -> Outcome:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=user_environment(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def program_command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *arguments]


@pytest.fixture(scope="session")
def run_program(tmp_path_factory: pytest.TempPathFactory) -> Run:
    def run(name: str, *arguments: str, **environment: str) -> Outcome:
        folder = tmp_path_factory.mktemp(name)
        return run_command(*program_command(name, *arguments), cwd=folder, **environment)

    return run


def read(uri: str, run_id: str) -> dict[str, Any]:
    """What this process, another than the one that logged it, sees of a run."""
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "experiment": run.info.experiment_id,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": run.data.tags,
        "histories": {
            key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "artifacts": sorted(file.path for file in client.list_artifacts(run_id)),
    }


@pytest.fixture(scope="session")
def data_directory() -> Iterator[Path]:
    """A directory whose embedded server runs for the whole session: starting it is tested elsewhere."""
    directory = Path(tempfile.mkdtemp(prefix="genesis-flow-client-"))
    embedded.start(directory)
    yield directory
    embedded.stop(directory, force=True)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def genesis_uri(data_directory: Path) -> str:
    return f"genesis://{data_directory}"


@pytest.fixture(scope="session")
def server(genesis_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``mlflow server``, for all modules that need no more of it."""
    from tests.client.serving import mlflow_server

    with mlflow_server(genesis_uri, tmp_path_factory.mktemp("server")) as (address, _):
        yield address


@pytest.fixture
def unique_name() -> str:
    return f"experiment {uuid.uuid4().hex[:10]}"


@pytest.fixture
def empty_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in which no server has run yet; whatever runs there at the end is stopped."""
    directory = tmp_path / "data of its own"
    yield directory
    if directory.exists():
        embedded.stop(directory, force=True)
