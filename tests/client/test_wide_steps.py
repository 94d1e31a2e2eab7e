"""Wide steps of blocking callers: one command of their own thread, at once, and when answers are lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics import wide
from genesis_flow.areas.metrics.wide import WIDE_FROM
from tests.commands import CommandRecorder
from tests.faults import failing

THREADS = 8
# A client of these tests: that of stores which other tests left open knows that threads met a moment ago.
APP = "wide-steps"


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def blocking_store(store_uri: str, tmp_path: Path) -> Iterator[MongoDBStore]:
    made = MongoDBStore(f"{store_uri}&appName={APP}", f"{tmp_path}/artifacts")
    yield made
    made.close()


@pytest.fixture
def run_id(blocking_store: MongoDBStore) -> str:
    """A run with the metrics of two steps, the second of which has made a place."""
    run_id = str(blocking_store.create_run("0", "me", 1, [], "a run").info.run_id)
    for number in range(2):
        log(blocking_store, run_id, number)
    return run_id


def log(store: MongoDBStore, run_id: str, number: int) -> None:
    metrics = [Metric(f"m{index}", number, number, number) for index in range(WIDE_FROM)]
    store.log_batch(run_id, metrics, [], [])


def check(store: MongoDBStore, run_id: str, steps: int) -> None:
    for key in ("m0", "m7"):
        assert [point.step for point in store.get_metric_history(run_id, key)] == list(range(steps))
    assert store.get_run(run_id).data.metrics == {f"m{index}": steps - 1 for index in range(WIDE_FROM)}


def test_a_thread_sends_a_command_and_needs_no_loop(
    blocking_store: MongoDBStore, run_id: str, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_loop(*_: Any, **__: Any) -> None:
        raise AssertionError("the loop was asked")

    with monkeypatch.context() as alone, commands.recording() as sent:
        alone.setattr(blocking_store, "_in_portal", of_loop)
        for number in range(2, 12):
            log(blocking_store, run_id, number)
    assert [name for name, _ in sent] == ["update"] * 10
    check(blocking_store, run_id, 12)


def test_threads_at_once(blocking_store: MongoDBStore, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "ROWS", 5)

    def work(first: int) -> None:
        for number in range(first, 40, THREADS):
            log(blocking_store, run_id, number)
            blocking_store.log_metric(run_id, Metric("m7", number, number, number))

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [None] * THREADS
    check(blocking_store, run_id, 40)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_answer_loses_and_doubles_nothing(
    blocking_store: MongoDBStore, run_id: str, store_uri: str, lost: int
) -> None:
    with failing(store_uri, "update", times=lost, app=APP, closeConnection=True):
        log(blocking_store, run_id, 2)
    check(blocking_store, run_id, 3)
