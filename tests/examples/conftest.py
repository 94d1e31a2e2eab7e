"""Each example in the working directory of a reader, who runs one after the other."""

import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from genesis_flow import embedded
from tests.client.conftest import run_command

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDER = EXAMPLES / "mongodb_integration"
PROGRAMS = {path.name[:2]: path for path in FOLDER.glob("[01]*.py")}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """The working directory of a reader, with the database that the first example starts in it."""
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-examples-"))
    yield folder
    embedded.stop(folder / "genesis-data", force=True)
    shutil.rmtree(folder)


@pytest.fixture
def client(place: Path) -> MlflowClient:
    return MlflowClient(f"genesis://{place}/genesis-data")


def output_of(number: str, place: Path, **environment: str) -> str:
    outcome = run_command(sys.executable, str(PROGRAMS[number]), cwd=place, **environment)
    assert outcome.code == 0, f"{outcome.stdout}\n{outcome.stderr}"
    assert "Traceback" not in outcome.stderr
    said = PROGRAMS[number].read_text(encoding="utf-8").split('"""')[1].strip()
    assert outcome.stdout.strip().startswith(said), "an example begins with what it shows"
    assert "Look at it" in outcome.stdout
    assert "genesis-flow server --backend-store-uri" in outcome.stdout
    return outcome.stdout


def runs_of(client: MlflowClient, number: int) -> list[Run]:
    (experiment,) = (
        found for found in client.search_experiments() if found.name.startswith(f"example {number}:")
    )
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def assert_is_a_picture(client: MlflowClient, run: Run, name: str) -> None:
    """A PNG for the screens of today in which something is drawn: an empty one is small."""
    content = Path(client.download_artifacts(run.info.run_id, f"plots/{name}.png")).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert min(width, height) >= 500
    assert max(width, height) >= 1000
    assert len(content) > 8_000
