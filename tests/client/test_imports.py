"""What an import costs."""

import json
import sys

import pytest

from tests.client.conftest import Run, run_command

MEASURE = """
import json, sys, time
begin = time.perf_counter()
import genesis_flow
between = time.perf_counter()
import mlflow  # which imports what our entry points name
end = time.perf_counter()
heavy = [name for name in ("beanie", "pymongo", "genesis_flow.sync") if name in sys.modules]
print(json.dumps({"genesis_flow": between - begin, "mlflow": end - between, "heavy": heavy}))
"""


def test_importing_the_package_loads_no_driver(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run_command(sys.executable, "-c", MEASURE).stdout)
    mlflow, ours = found["mlflow"], found["genesis_flow"] * 1000
    with capsys.disabled():
        print(f"\nimport genesis_flow {ours:.1f} ms, then mlflow {mlflow:.2f} s")
    assert found["heavy"] == []


def test_a_client_needs_no_package_of_servers(run_program: Run, genesis_uri: str, unique_name: str) -> None:
    """MLflow itself takes numpy and pandas where it finds them; a client must do without, and so must we."""
    answer = run_program("light", genesis_uri, unique_name).answer
    assert answer["asked"] == []
    assert answer["loaded"] == []
    assert answer["ours"] == ["genesis_flow", "pymongo"]
    assert (answer["found"], answer["history"], answer["version"]) == ([True], 2, "1")


def test_a_training_loads_what_a_training_calls(run_program: Run, genesis_uri: str, unique_name: str) -> None:
    """Python's collector looks through all that is loaded, several times, at the end of each program."""
    answer = run_program("only_train", genesis_uri, unique_name).answer
    loaded = [name for name in answer["trained"] if name.startswith("genesis_flow.areas.")]
    # Of the last three the documents, and what a store looks for when it opens.
    areas = {"experiments", "runs", "metrics", "logged_models", "traces", "workspaces"}
    assert {name.split(".")[2] for name in loaded} == areas
    assert {name for name in loaded if name.endswith((".methods", ".search", ".filters", ".area"))} == {
        "genesis_flow.areas.experiments.methods",
        "genesis_flow.areas.experiments.search",
        "genesis_flow.areas.metrics.methods",
        "genesis_flow.areas.runs.methods",
    }
    layers = {name.split(".")[1] for name in answer["trained"]}
    assert layers & {"importers", "cli", "kit", "watching", "metrics", "aio"} == set()
    assert answer["history"] == 2
    assert "genesis_flow.areas.metrics.history" in set(answer["asked"]) - set(answer["trained"])
