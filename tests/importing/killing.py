"""Imports in processes that die in the middle."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pymongo
from pymongo import monitoring

from genesis_flow.importers import loader
from genesis_flow.importers.engine import Options, run_import
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig, load_config
from genesis_flow.stores.areas import DECLARED

# Children are forked from a server process that has no threads and no clients yet.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.importing.killing", "genesis_flow.importers.tree", "genesis_flow.importers.sql", "beanie"]
)

# So small that even a small source makes many batches.
BATCH_WRITES = 15


def config_for(uri: str) -> MigrateConfig:
    # A busy machine must not make a living import lose its lock; that of a killed one is taken away.
    return dataclasses.replace(load_config(uri, environ={}), lock_lease=60.0, lock_wait=120.0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class CommandCounter(monitoring.CommandListener):
    """Counts commands, and dies at one: before it is sent, or once it is answered."""

    def __init__(self, number: int = 0, moment: str = "") -> None:
        self.number = number
        self.moment = moment
        self.seen = {"started": 0, "answered": 0}
        self._lock = threading.Lock()

    def _count(self, moment: str) -> None:
        with self._lock:
            self.seen[moment] += 1
            if moment == self.moment and self.seen[moment] == self.number:
                _die()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self._count("started")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._count("answered")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._count("answered")


def import_small(uri: str, source: str, options: dict[str, Any]) -> int:
    """Import in small batches; how many problems there were."""
    loader.BATCH_WRITES = BATCH_WRITES
    return run_import(config_for(uri), source, Options(**options)).problems


def counted_child(uri: str, source: str, options: dict[str, Any], answer: Any) -> None:
    """The body of a process that imports, and tells how many commands that took."""
    counter = CommandCounter()
    monitoring.register(counter)
    import_small(uri, source, options)
    answer.send(counter.seen["started"])


def killed_child(
    uri: str, source: str, options: dict[str, Any], number: int, moment: str, seconds: float | None
) -> None:
    """The body of a process that dies at a command, or after so many seconds."""
    if seconds is None:
        monitoring.register(CommandCounter(number, moment))
    else:
        timer = threading.Timer(seconds, _die)
        timer.daemon = True
        timer.start()
    import_small(uri, source, options)


class WriteAwaited(monitoring.CommandListener):
    """Dies at the first write to a collection: before it is sent, or once it is answered."""

    def __init__(self, collection: str, moment: str) -> None:
        self.collection = collection
        self.moment = moment
        self.request: int | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        name = event.command_name
        # Updates of many are marks, not what is imported.
        is_mark = event.command.get("updates", [{}])[0].get("multi")
        if name in ("insert", "update") and event.command[name] == self.collection and not is_mark:
            self.request = event.request_id
            if self.moment == "started":
                _die()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.request_id == self.request:
            _die()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """A write that fails is made again."""


def killed_at_a_write(uri: str, source: str, collection: str, moment: str) -> None:
    """The body of a process that dies at its first write to a collection."""
    monitoring.register(WriteAwaited(collection, moment))
    import_small(uri, source, {})


def run_child(target: Any, *arguments: Any) -> int | None:
    child = PROCESSES.Process(target=target, args=arguments)
    child.start()
    child.join(120)
    return child.exitcode


def take_lock_away(uri: str) -> None:
    command.unlock(config_for(uri), force=True)


# When things happened, by whom, and what is of no import.
_VOLATILE = {
    "import_journals": {"created_time", "last_update_time", "sessions", "state", "merged"},
    "schema_migrations": None,
    "counters": {"updated"},
    "traces": {"touched"},
    # Notes for readers who keep sums: when traces changed, by the server's clock.
    "trace_sums": None,
    # Who counted, or was about to change what is counted.
    **{each.Settings.name: set(each.Settings.derived) for each in DECLARED if each.Settings.derived},
}


def dump(uri: str, artifacts: Path | None = None) -> dict[str, Any]:
    """All that an import left in the target, without times of its own."""
    found: dict[str, Any] = {}
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for each in database.list_collections(filter={"type": "collection"}):
            name = each["name"]
            left_out = _VOLATILE.get(name, set())
            if left_out is None or name.startswith(("system.", "migration", "schema_")):
                continue
            found[name] = {
                str(document["_id"]): {
                    key: _plain(value) for key, value in document.items() if key not in left_out
                }
                for document in database[name].find()
            }
    if artifacts is not None:
        found["files"] = {
            path.relative_to(artifacts).as_posix(): path.read_bytes()
            for path in artifacts.rglob("*")
            if path.is_file()
        }
    return {name: content for name, content in found.items() if content}


def _plain(value: Any) -> Any:
    """NaN equals nothing, so it is told by its name."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
