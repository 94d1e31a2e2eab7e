"""Collections of its own for a load test, its clients, and their end."""

from __future__ import annotations

import dataclasses
import multiprocessing
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from pymongo.database import Database

from genesis_flow.cli.load.client import process as client_process
from genesis_flow.cli.load.figures import Figures, together
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.settings import Settings
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.files import folder
from genesis_flow.sync.tracking import MongoDBStore

# The time stands in the name, so that a later test can tell what one that was killed has left.
_OURS = re.compile(r"genesis_flow_load_(\d+)_[0-9a-f]{8}_")
_LEFT_BEHIND_SECONDS = 3600
_CALL_SECONDS = 30.0
_END_SECONDS = 3.0
# Each client imports MLflow; with many of them the processors are busy with that first.
_READY_SECONDS, _READY_SECONDS_EACH = 60.0, 10.0


class LoadError(GenesisFlowError):
    """The test was not made, or not to its end."""


@contextmanager
def collections_of_a_test(given: Settings) -> Iterator[Settings]:
    """Settings for collections that nobody else has; they are dropped at the end."""
    prefix = f"genesis_flow_load_{int(time.time())}_{uuid.uuid4().hex[:8]}_"
    settings = dataclasses.replace(
        given,
        prefix=prefix,
        audit=False,
        strict_input=None,
        timeout=min(_CALL_SECONDS, given.timeout),
        artifact_root="file:///genesis_flow_load",
    )
    with opened(MigrateConfig(settings=settings, script_location=folder()), creates=False) as target:
        _drop(target.db, _is_left_behind)
        try:
            yield settings
        finally:
            _drop(target.db, lambda name: name.startswith(prefix))


def _is_left_behind(name: str) -> bool:
    found = _OURS.match(name)
    return found is not None and time.time() - int(found[1]) > _LEFT_BEHIND_SECONDS


def _drop(db: Database[dict[str, Any]], is_meant: Callable[[str], bool]) -> None:
    """Only ever what a test has made."""
    for name in db.list_collection_names():
        if _OURS.match(name) and is_meant(name):
            db.drop_collection(name)


def measure(settings: Settings, clients: int, seconds: float, slice_seconds: float) -> Figures:
    """What so many clients measured in so many seconds, all at the same time."""
    store = MongoDBStore.from_settings(settings)
    try:
        experiment_id = store.create_experiment("load")
        crew = _Crew(settings, experiment_id, clients, slice_seconds)
        try:
            crew.wait(_READY_SECONDS + clients * _READY_SECONDS_EACH)
            crew.tell(seconds)
            # The last call of a client may take as long as calls may.
            return together(crew.wait(seconds + 2 * _CALL_SECONDS))
        finally:
            crew.end()
    finally:
        store.close()


class _Crew:
    """The clients' processes."""

    def __init__(self, settings: Settings, experiment_id: str, clients: int, slice_seconds: float) -> None:
        # A fork would have this process's connections.
        spawning = multiprocessing.get_context("spawn")
        self.wires: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for _ in range(clients):
            ours, theirs = spawning.Pipe()
            process = spawning.Process(
                target=client_process, args=(settings, experiment_id, slice_seconds, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self.wires.append(ours)
            self.processes.append(process)

    def tell(self, word: Any) -> None:
        for wire in self.wires:
            wire.send(word)

    def wait(self, seconds: float) -> list[Any]:
        """What each client says next."""
        until = time.monotonic() + seconds
        return [self._said(wire, until) for wire in self.wires]

    def _said(self, wire: Connection, until: float) -> Any:
        if not wire.poll(max(0.0, until - time.monotonic())):
            raise LoadError("A client did not answer in time: try fewer --clients, or look at the server.")
        try:
            said = wire.recv()
        except (EOFError, ConnectionResetError):
            raise LoadError("A client ended before its time: what it printed says why.") from None
        if isinstance(said, str):
            raise LoadError(f"A client could not begin: {said}")
        return said

    def end(self) -> None:
        for wire in self.wires:
            wire.close()
        until = time.monotonic() + _END_SECONDS
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        for process in self.processes:
            process.terminate()
            process.join()
