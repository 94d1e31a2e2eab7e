"""Killed at every database command, then run again: the state of one clean run."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from tests.migration.dumping import Dump, dump
from tests.migration.helpers import PROCESSES, add_step, killed_child, make_config, real_steps
from tests.mongod import Mongod

KILLED = -9
AT_ONCE = 4

FILL = """
    loses = "the numbers"

    def upgrade(self):
        for number in range(40):
            self.collection("numbers").update_one({"_id": number}, {"$set": {"value": 1}}, upsert=True)

    def downgrade(self):
        self.collection("numbers").drop()
"""
CHANGE = """
    loses = ""

    def upgrade(self):
        for batch in self.batches("numbers"):
            ids = [document["_id"] for document in batch]
            self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$set": {"doubled": 2}})

    def downgrade(self):
        for batch in self.batches("numbers"):
            ids = [document["_id"] for document in batch]
            self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$unset": {"doubled": ""}})
"""


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """The real steps, and two that write documents, one of them in batches."""
    folder = real_steps(tmp_path / "steps")
    add_step(folder, "20270101000001", "fill", FILL.replace("range(40)", "range(6)"))
    add_step(folder, "20270101000002", "change", CHANGE)
    return folder


class Sweep:
    """Kills one child after the other, in slots that work side by side.

    ``up`` begins with an empty database each time, ``down`` in that of the slot, which is whole again.
    """

    def __init__(self, mongod: Mongod, name: str, location: Path, direction: str, moment: str) -> None:
        self.mongod, self.name, self.location = mongod, name, location
        self.direction, self.moment = direction, moment

    def config(self, slot: int | str) -> MigrateConfig:
        uri = self.mongod.database_uri(f"{self.name}_{slot}")
        return make_config(uri, self.location, batch_size=2)

    def one(self, slot: int, number: int) -> tuple[int | None, Dump]:
        """How the child that was to be killed at its n-th command ended, and what `up` then made of it."""
        place = slot if self.direction == "down" else f"{slot}_{number}"
        config = self.config(place)
        if self.direction == "down":
            command.up(config)  # nothing to do but the first time: the one before has ended so
        child = PROCESSES.Process(target=killed_child, args=(config, self.direction, number, self.moment))
        child.start()
        child.join(60)
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


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("direction", "moment"),
    [("up", "started"), ("up", "succeeded"), ("down", "started"), ("down", "succeeded")],
)
def test_kill_at_every_command_then_up(
    mongod: Mongod, database_name: str, location: Path, direction: str, moment: str
) -> None:
    # What a command had done when it succeeded, its successor finds when it starts: a sample will do.
    stride = 1 if moment == "started" or os.environ.get("GENESIS_FLOW_LONG") else 6
    sweep = Sweep(mongod, database_name, location, direction, moment)
    expected = sweep.clean()
    assert len(expected["numbers"]["documents"]) == 6
    killed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(1, 500, AT_ONCE * stride):
            numbers = range(first, first + AT_ONCE * stride, stride)
            results = list(pool.map(sweep.one, range(AT_ONCE), numbers))
            for number, (exitcode, found) in zip(numbers, results, strict=True):
                assert exitcode in (KILLED, 0), f"command {number} of {direction}"
                assert found == expected, f"killed when command {number} of {direction} had {moment}"
            killed += sum(exitcode == KILLED for exitcode, _ in results)
            if any(exitcode == 0 for exitcode, _ in results):
                break
    for slot in range(AT_ONCE):
        sweep.drop(slot)
    assert killed > 30 // stride, "the sweep went over the whole run"
    print(f"{direction}/{moment}: {killed} commands")
