"""Many runs at once, and a lock that is lost."""

import dataclasses
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from pymongo.collection import Collection
from pymongo.database import Database

from genesis_flow.migrate import command, lock
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.errors import LOCKED, Locked, LockLost
from genesis_flow.migrate.fence import READS, FencedDatabase
from genesis_flow.migrate.lock import Lease
from tests.faults import failing
from tests.migration.helpers import PROCESSES, add_step, database, up_child
from tests.patience import PATIENCE_SECONDS

PROCESS_COUNT = 20
COUNTED = """
    loses = ""

    def upgrade(self):
        self.collection("applications").update_one({"_id": "NAME"}, {"$inc": {"times": 1}}, upsert=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_processes_at_once_apply_each_step_once(config: MigrateConfig, store_uri: str) -> None:
    for number in range(4, 8):
        add_step(
            config.script_location, f"2027010100000{number}", "counted", COUNTED.replace("NAME", str(number))
        )
    barrier = PROCESSES.Barrier(PROCESS_COUNT)
    patient = dataclasses.replace(config, lock_wait=120.0)
    children = [PROCESSES.Process(target=up_child, args=(patient, barrier)) for _ in range(PROCESS_COUNT)]
    for child in children:
        child.start()
    for child in children:
        child.join(200)
    assert [child.exitcode for child in children] == [0] * PROCESS_COUNT
    with database(store_uri) as db:
        assert [found["times"] for found in db["applications"].find()] == [1, 1, 1, 1]
        assert db["schema_history"].count_documents({"action": "up"}) == 7
        assert db["schema_lock"].count_documents({}) == 0


WRITES_SLOWLY = """
    loses = ""

    def upgrade(self):
        import os, time
        for number in range(150):
            self.collection("log").insert_one({"pid": os.getpid(), "number": number})
            time.sleep(0.02)
"""


@pytest.mark.timeout(400)
def test_a_run_that_was_frozen_until_another_took_over_writes_nothing_more(
    config: MigrateConfig, store_uri: str
) -> None:
    add_step(config.script_location, "20270101000004", "slow", WRITES_SLOWLY)
    # Long enough for a process that the machine, not the test, lets wait.
    brief = dataclasses.replace(config, lock_lease=8.0)
    child = PROCESSES.Process(target=up_child, args=(brief,))
    child.start()
    with database(store_uri) as db:
        while db["log"].count_documents({}) < 10:
            assert child.is_alive()
            time.sleep(0.02)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGSTOP)
        try:
            command.up(config)
            before = db["log"].count_documents({"pid": child.pid})
        finally:
            os.kill(child.pid, signal.SIGCONT)
        child.join(150)
        assert child.exitcode == LOCKED
        # A write that had left the process when it was frozen may still arrive; none is begun after that.
        assert db["log"].count_documents({"pid": child.pid}) <= before + 1
        assert db["log"].count_documents({"pid": os.getpid()}) == 150
    assert [step.state for step in command.status(config).steps] == ["applied"] * 4


STEALS = """
    loses = ""

    def upgrade(self):
        import time
        import pymongo
        with pymongo.MongoClient(URI) as client:
            client.get_default_database()["schema_lock"].update_one({}, {"$set": {"holder": "another"}})
        time.sleep(4.5)  # longer than the lease: whether a renewal was in time does not matter
        AFTER
        self.db.client.get_default_database()["survivors"].insert_one({})
"""


@pytest.mark.parametrize(
    "after", ['self.collection("log").insert_one({})', 'self.collection("log").find_one()']
)
def test_a_lock_taken_by_force_stops_the_run(config: MigrateConfig, store_uri: str, after: str) -> None:
    body = STEALS.replace("URI", repr(store_uri)).replace("AFTER", after)
    add_step(config.script_location, "20270101000004", "robbed", body)
    with pytest.raises(LockLost, match="stopped before its next write"):
        command.up(dataclasses.replace(config, lock_lease=4.0))
    with database(store_uri) as db:
        assert {"log", "survivors"}.isdisjoint(db.list_collection_names())
        entry = db["schema_migrations"].find_one({"name": "robbed"})
        assert entry is not None
        assert entry["state"] == "applying", "a run without the lock does not touch the ledger either"


def test_a_lease_that_cannot_be_renewed_is_lost_in_time(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the holder's own clock, before the server would call it expired."""
    now = 0.0
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
    lost = threading.Event()
    appname = "lease-test"
    with pymongo.MongoClient[dict[str, Any]](store_uri, appname=appname) as client:
        lease = Lease(
            client.get_default_database(),
            "",
            seconds=1.0,
            wait=0.0,
            on_lost=lost.set,
        )
        with lease:
            with failing(store_uri, "update", app=appname, errorCode=8):
                now = 0.89
                lease.check()
                assert not lost.is_set()
                now = 0.95
                assert lost.wait(PATIENCE_SECONDS)
            with pytest.raises(LockLost, match="could not be renewed"):
                lease.check()


def test_of_many_that_see_an_expired_lock_one_takes_it(store_uri: str) -> None:
    def attempt(_: int) -> bool:
        try:
            lease = Lease(db, "", seconds=30.0, wait=0.0, on_lost=lambda: None)
            lease._acquire()
        except Locked:
            return False
        return True

    with database(store_uri) as db, ThreadPoolExecutor(10) as pool:
        for _ in range(10):
            dead = {"holder": "dead", "who": "someone@else", "pid": 7, "lease_seconds": 0.0}
            now = {"$currentDate": {"acquired_at": True, "renewed_at": True}}
            db["schema_lock"].update_one({"_id": "migrations"}, {"$set": dead, **now}, upsert=True)
            time.sleep(0.05)
            assert sum(pool.map(attempt, range(10))) == 1


def all_but_reads(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - READS[kind]


def test_every_write_asks_first(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collection, "a_method_of_a_later_driver", lambda self: None, raising=False)

    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    with database(store_uri) as plain:
        fenced = FencedDatabase(plain, check)
        collections = (
            fenced["a"],
            fenced.a,
            fenced["a"]["b"],
            fenced.get_collection("a"),
            fenced["a"].with_options(write_concern=pymongo.WriteConcern(1)),
            fenced.with_options()["a"],
        )
        for collection in collections:
            assert {"insert_one", "aggregate", "drop", "a_method_of_a_later_driver"} <= all_but_reads(
                Collection
            )
            for name in all_but_reads(Collection):
                with pytest.raises(Stop):
                    getattr(collection, name)
            assert collection.find_one() is None
        assert {"command", "create_collection", "drop_collection"} <= all_but_reads(Database)
        for name in all_but_reads(Database):
            with pytest.raises(Stop):
                getattr(fenced, name)
        assert plain.list_collection_names() == []
