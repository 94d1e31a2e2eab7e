"""Whoever uses an embedded MongoDB brings it back when it died, whatever of it died."""

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore, embedded
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.embedded import held
from genesis_flow.embedded.layout import layout_of
from tests.embedded.helpers import PATIENCE, has_ended, uri_of, wait_until

THREADS = 3
KILLS = 3
PROGRESS = 15
VICTIMS = [("keeper",), ("pid",), ("keeper", "pid")]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than a server needs to start; a call that is not helped fails after it."""
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "100")


@pytest.fixture
def store(directory: Path) -> Iterator[MongoDBStore]:
    made = MongoDBStore(uri_of(directory))
    yield made
    made.close()


def state_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "server.json").read_text())
    return found


def kill(directory: Path, victims: tuple[str, ...]) -> None:
    """As the kernel does when memory runs out: without a word to anybody."""
    state = state_of(directory)
    for victim in victims:
        os.kill(state[victim], signal.SIGKILL)
    for victim in victims:
        wait_until(lambda pid=state[victim]: has_ended(pid))  # type: ignore[misc]


@pytest.mark.parametrize("victims", VICTIMS)
def test_the_process_that_uses_it_brings_it_back(
    store: MongoDBStore, directory: Path, victims: tuple[str, ...]
) -> None:
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    for number in range(2):
        kill(directory, victims)
        store.log_metric(run_id, Metric("m", number, number, number))
    history = store.get_metric_history(run_id, "m")
    assert [point.value for point in history] == [0, 1]
    kill(directory, victims)
    other = MongoDBStore(uri_of(directory))
    assert other.get_run(run_id).data.metrics == {"m": 1}
    other.close()


async def test_asynchronous_callers_bring_it_back(directory: Path) -> None:
    async with AsyncStore(uri_of(directory)) as store:
        run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
        kill(directory, ("keeper", "pid"))
        points = [Metric(f"m{number}", 1, 1, 1) for number in range(20)]
        await asyncio.gather(*(store.log_metric(run_id, point) for point in points))
        assert len((await store.get_run(run_id)).data.metrics) == 20


def test_calls_under_way_go_on_and_nothing_acknowledged_is_lost(store: MongoDBStore, directory: Path) -> None:
    """The calls send one command, several, and transactions; all threads may be waiting at once."""
    acknowledged: list[tuple[str, int]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def work(run_id: str) -> None:
        number = 0
        try:
            while not done.is_set():
                number += 1
                store.log_metric(run_id, Metric("m", number, number, number))
                store.log_batch(run_id, [Metric(f"new {number}", 1, 1, 1)], [Param(f"p{number}", "x")], [])
                acknowledged.append((run_id, number))
        except BaseException as error:
            failures.append(error)

    runs = [store.create_run("0", "me", 1, [], None).info.run_id for _ in range(THREADS)]
    threads = [threading.Thread(target=work, args=(run_id,), daemon=True) for run_id in runs]
    for thread in threads:
        thread.start()

    def wait_for_progress() -> None:
        goal = len(acknowledged) + PROGRESS
        wait_until(lambda: len(acknowledged) >= goal or bool(failures))

    try:
        for turn in range(KILLS):
            wait_for_progress()
            kill(directory, VICTIMS[turn])
        wait_for_progress()
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert failures == []
    for run_id in runs:
        stored = store.get_run(run_id).data
        history = {point.step for point in store.get_metric_history(run_id, "m")}
        for number in (number for run, number in acknowledged if run == run_id):
            assert number in history
            assert stored.metrics[f"new {number}"] == 1
            assert stored.params[f"p{number}"] == "x"


def test_a_call_that_waits_in_the_driver_has_it_started(directory: Path) -> None:
    """Nobody else makes a call here, and the driver alone would wait for ever."""
    server = embedded.hold(directory)
    patience = {"serverSelectionTimeoutMS": 100_000, "connectTimeoutMS": 100_000}
    with pymongo.MongoClient[dict[str, Any]](server.uri, **server.client_options(), **patience) as mongo:
        mongo.db.things.insert_one({"_id": 1})
        kill(directory, ("keeper", "pid"))
        wait_until(lambda: not mongo.topology_description.has_readable_server())
        assert mongo.db.things.find_one() == {"_id": 1}


def test_an_idle_client_starts_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for a lost server twice at once, and again after ten seconds."""
    monkeypatch.setattr(held, "_WITHIN_SECONDS", 3600.0)  # however long this test takes
    server = embedded.hold(directory)
    waker = server.client_options()["event_listeners"][0]
    for _ in range(5):
        waker.failed(None)
    assert waker._thread is None, "its keeper is there"
    embedded.stop(directory, force=True)
    waker._looks.clear()
    for _ in range(2):
        waker.failed(None)
    assert waker._thread is None
    waker.failed(None)
    waker._thread.join(PATIENCE)
    assert embedded.status(directory).running


def test_the_next_call_starts_one_that_was_made_to_stop(store: MongoDBStore, directory: Path) -> None:
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    assert not embedded.stop(directory, force=True).running
    assert store.get_run(run_id).info.run_id == run_id


def removal_of(directory: Path) -> None:
    """Whatever the server makes in it meanwhile."""

    def is_gone() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    wait_until(is_gone)


def test_a_directory_removed_while_in_use_is_started_anew(store: MongoDBStore, directory: Path) -> None:
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    before = embedded.status(directory).pid
    removal_of(directory)
    wait_until(lambda: has_ended(before))
    with pytest.raises(MlflowException, match="not found"):
        store.log_metric(run_id, Metric("m", 1, 1, 1))
    again = store.create_run("0", "me", 1, [], None).info.run_id
    assert MongoDBStore(uri_of(directory)).get_run(again).info.run_id == again
    assert layout_of(directory).data.is_dir()
