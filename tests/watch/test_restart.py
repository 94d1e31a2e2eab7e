"""A watcher is killed at any moment, and goes on behind the last event that it has written down."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from genesis_flow import MongoDBStore
from tests.client.conftest import PATIENCE_SECONDS, user_environment

ROOT = Path(__file__).parents[2]
LIVES = 4

WATCHER = """
import json, sys
from genesis_flow import MongoDBStore

uri, run_id, path = sys.argv[1:]
token = None
for line in open(path):
    token = json.loads(line)["token"]
with open(path, "a") as file:
    for event in MongoDBStore(uri).watch(run_ids=[run_id], after=token):
        file.write(json.dumps(event.to_json()) + "\\n")
        file.flush()
        if getattr(event, "key", None) == "last":
            break
"""


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def begin_watcher(uri: str, run_id: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WATCHER, uri, run_id, str(path)],
        env=user_environment(PYTHONPATH=str(ROOT)),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_watcher_goes_on_where_it_was(store_uri: str, tmp_path: Path) -> None:
    store = MongoDBStore(store_uri)
    run_id = store.create_run("0", "me", 1, [], "a run").info.run_id
    path = tmp_path / "events"
    path.touch()
    step = 0

    def log(points: int) -> None:
        nonlocal step
        for _ in range(points):
            store.log_metric(run_id, Metric("loss", float(step), step, step))
            step += 1

    def begin() -> subprocess.Popen[str]:
        return begin_watcher(store_uri, run_id, path)

    log(150)
    for life in range(LIVES):
        watcher, before = begin(), len(told(path))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(told(path)) < before + 10 * life + 1:
            assert watcher.poll() is None, watcher.communicate()[1]
            assert time.monotonic() < deadline
            log(5)
        watcher.kill()
        watcher.communicate()
        # It is written down before it is told, or it is not: a line that was cut is not.
        path.write_text("".join(json.dumps(each) + "\n" for each in told(path)))
        log(140)
    store.log_metric(run_id, Metric("last", 1.0, 1, 1))
    watcher = begin()
    _, errors = watcher.communicate(timeout=PATIENCE_SECONDS)
    assert watcher.returncode == 0, errors
    steps = Counter(
        point[1] for event in told(path) if event.get("key") == "loss" for point in event["points"]
    )
    assert steps == Counter(range(step))
    store.close()
