"""Killed at every database command, then run again: the state of one clean run."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from tests.migration.dumping import Dump, dump
from tests.migration.helpers import (
    PROCESSES,
    SAMPLES,
    killed_child,
    make_config,
    replacing_steps,
    sample_steps,
)
from tests.mongod import Mongod

KILLED = -9
AT_ONCE = 4


class Sweep:
    """Kills one child after the other, in slots that work side by side.

    ``up`` begins with an empty database each time, ``down`` in that of the slot, which is whole again.
    """

    def __init__(
        self, mongod: Mongod, name: str, location: Path, direction: str, moment: str, before: str = ""
    ) -> None:
        self.mongod, self.name, self.location = mongod, name, location
        self.direction, self.moment = direction, moment
        self.before = before
        """The last of the samples that were applied before, where the steps of ``location`` replace them."""

    def config(self, slot: int | str) -> MigrateConfig:
        uri = self.mongod.database_uri(f"{self.name}_{slot}")
        return make_config(uri, self.location, batch_size=2)

    def one(self, slot: int, number: int) -> tuple[int | None, Dump]:
        """How the child that was to be killed at its n-th command ended, and what `up` then made of it."""
        place = slot if self.direction == "down" else f"{slot}_{number}"
        config = self.config(place)
        if self.direction == "down":
            command.up(config)  # nothing to do but the first time: the one before has ended so
        if self.before:
            command.up(dataclasses.replace(config, script_location=SAMPLES), self.before)
        child = PROCESSES.Process(target=killed_child, args=(config, self.direction, number, self.moment))
        child.start()
        child.join(150)
        lock = command.unlock(config, force=True)  # as an operator may, rather than wait for its end
        assert lock is None or lock.pid == child.pid
        command.up(config)
        found = self.dumped(place)
        if self.direction == "up":
            self.drop(place)
        return child.exitcode, found

    def clean(self) -> Dump:
        command.up(self.config("clean"))
        found = self.dumped("clean")
        self.drop("clean")
        return found

    def dumped(self, slot: int | str) -> Dump:
        with pymongo.MongoClient[dict[str, Any]](self.mongod.uri) as client:
            return dump(client[f"{self.name}_{slot}"])

    def drop(self, slot: int | str) -> None:
        with pymongo.MongoClient[dict[str, Any]](self.mongod.uri) as client:
            client.drop_database(f"{self.name}_{slot}")

    def all(self, stride: int) -> int:
        """Kill at every ``stride``-th command until a run ends before; how many were killed."""
        expected = self.clean()
        assert len(expected["numbers"]["documents"]) == 6
        killed = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(1, 500, AT_ONCE * stride):
                numbers = range(first, first + AT_ONCE * stride, stride)
                results = list(pool.map(self.one, range(AT_ONCE), numbers))
                for number, (exitcode, found) in zip(numbers, results, strict=True):
                    assert exitcode in (KILLED, 0), f"command {number} of {self.direction}"
                    assert found == expected, f"killed when command {number} had {self.moment}"
                killed += sum(exitcode == KILLED for exitcode, _ in results)
                if any(exitcode == 0 for exitcode, _ in results):
                    break
        for slot in range(AT_ONCE):
            self.drop(slot)
        return killed


# What a command had done when it succeeded, its successor finds when it starts: a sample will do.
STRIDES = {"started": 1, "succeeded": 1 if os.environ.get("GENESIS_FLOW_LONG") else 6}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("direction", "moment"),
    [("up", "started"), ("up", "succeeded"), ("down", "started"), ("down", "succeeded")],
)
def test_kill_at_every_command_then_up(
    mongod: Mongod, database_name: str, tmp_path: Path, direction: str, moment: str
) -> None:
    location = sample_steps(tmp_path / "steps")
    killed = Sweep(mongod, database_name, location, direction, moment).all(STRIDES[moment])
    assert killed > 30 // STRIDES[moment], "the sweep went over the whole run"
    print(f"{direction}/{moment}: {killed} commands")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("before", ["words", "index"])
def test_kill_at_every_command_of_a_run_that_replaces_steps(
    mongod: Mongod, database_name: str, tmp_path: Path, before: str
) -> None:
    """Of which some had been applied, or all."""
    location = replacing_steps(tmp_path / "steps")
    killed = Sweep(mongod, database_name, location, "up", "started", before).all(1)
    assert killed > 20, "the sweep went over the whole run"
    print(f"after {before}: {killed} commands")
