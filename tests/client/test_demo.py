"""MLflow's demo, the largest button of its start page, on a store of ours: every area that it shows."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.versions import since_3_18

PROGRAM = """
from mlflow.demo import generate_all_demos
print(*(made.feature.value for made in generate_all_demos()))
print("again:", *(made.feature.value for made in generate_all_demos()))
"""
FEATURES = {"prompts", "traces", "evaluation", "judges", "issues", "review_queues"}


@since_3_18  # before it tests/browser/test_walk.py starts the demo, and looks at all that it makes
@pytest.mark.slow
def test_the_demo_is_made_once(store_uri: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=user_environment(MLFLOW_TRACKING_URI=store_uri),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    made, again = done.stdout.splitlines()[-2:]
    assert set(made.split()) >= FEATURES
    assert again == "again:", "what is there is not made again"
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("MLflow Demo")
    assert client.search_traces(locations=[experiment.experiment_id])
