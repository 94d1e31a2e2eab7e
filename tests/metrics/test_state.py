"""The state of a database, and what is told when it cannot be asked."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
from mlflow.entities import Metric

from genesis_flow import MongoDBStore, embedded
from genesis_flow.core.settings import Settings
from genesis_flow.metrics.state import State
from tests.faults import failing
from tests.metrics.samples import Samples
from tests.mongod import Mongod, guarded_mongod, running_mongod
from tests.patience import PATIENCE_SECONDS
from tests.roles import restricted_mongod
from tests.trust.cluster import running_replica_set

CANARY = "p4ssw0rd-canary"
PARTS = {"disk", "schema", "jobs", "reviews"}


def asked(state: State) -> Samples:
    return Samples(state.collect())


def known_parts(found: Samples) -> set[str]:
    return {part for part in PARTS if found.sum("state_part_success", part=part)}


@pytest.fixture
def server() -> Iterator[Mongod]:
    """One that the test may stop and kill."""
    with running_mongod() as running:
        yield running


def wait_until_up_is(value: int, state: State) -> None:
    """A question that was put before may still be under way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while asked(state).values("database_up") != [value]:
        assert time.monotonic() < deadline


def opened(uri: str) -> None:
    """An empty database is brought to head."""
    store = MongoDBStore(uri)
    store.search_experiments()
    store.close()


def test_what_there_is_is_counted(store_uri: str, mongod: Mongod) -> None:
    opened(store_uri)
    with pymongo.MongoClient(store_uri) as client:
        database = client.get_default_database()
        old = int(time.time() * 1000) - 3_600_000
        job = {"workspace": "default", "job_name": "judge", "retry_count": 0, "creation_time": old}
        statuses = ["PENDING", "PENDING", "FAILED"]
        database["jobs"].insert_many([{**job, "_id": str(n), "status": s} for n, s in enumerate(statuses)])
        database["review_queues"].insert_one({"_id": "rq-1", "workspace": "team", "name": "a"})
        item = {"workspace": "team", "queue_id": "rq-1"}
        database["review_queue_items"].insert_many(
            [{**item, "_id": f"rq-1|{n}", "status": "pending"} for n in range(3)]
        )
        state = State(Settings.resolve(store_uri), patience=PATIENCE_SECONDS, kept=0)
        found = asked(state)
        assert found.values("database_up") == [1]
        assert known_parts(found) == PARTS
        assert (found.values("jobs", status="PENDING"), found.values("jobs", status="FAILED")) == ([2], [1])
        assert found.values("jobs", status="RUNNING") == [0]
        assert 3600 <= found.sum("jobs_oldest_pending_age_seconds") < 4200
        assert found.values("review_items", status="pending") == [3]
        assert found.values("review_queues") == [1]
        assert found.sum("schema_steps", state="applied") > 0
        assert found.values("schema_steps", state="pending") == [0]
        assert 0 < found.sum("disk_free_bytes") < found.sum("disk_size_bytes")
        assert found.sum("database_size_bytes") > 0

        # A schema that fits no more is told of, rather than refused.
        newest = max(entry["_id"] for entry in database["schema_migrations"].find())
        database["schema_migrations"].delete_one({"_id": newest})
        database["schema_migrations"].insert_one({"_id": "29990101000000", "state": "applied"})
        later = asked(state)
        assert later.values("schema_steps", state="pending") == [1]
        assert later.values("schema_steps", state="newer") == [1]
        state.close()


def test_counts_are_read_from_the_index(store_uri: str) -> None:
    opened(store_uri)
    with pymongo.MongoClient(store_uri) as client:
        database = client.get_default_database()
        items = {"jobs": {"status": "PENDING"}, "review_queue_items": {"status": "pending", "queue_id": "a"}}
        for name, document in items.items():
            database[name].insert_one({"workspace": "default", "creation_time": 1, **document})
        database.command("profile", 2)
        state = State(Settings.resolve(store_uri), patience=PATIENCE_SECONDS)
        asked(state)
        state.close()
        database.command("profile", 0)
        asked_for = [*database["system.profile"].find({"command.hint": "by_status"})]
    assert sorted(entry["command"]["aggregate"] for entry in asked_for) == ["jobs", "review_queue_items"]
    assert all(entry["planSummary"].startswith("IXSCAN") for entry in asked_for), asked_for
    assert [entry["docsExamined"] for entry in asked_for] == [0, 0]


def test_a_part_that_cannot_be_asked_for_is_missing_and_said_so(store_uri: str, mongod: Mongod) -> None:
    opened(store_uri)
    state = State(Settings.resolve(store_uri), patience=PATIENCE_SECONDS, kept=0)
    with failing(mongod.uri, "dbStats", "aggregate", errorCode=13):
        found = asked(state)
        assert found.values("database_up") == [1]
        assert known_parts(found) == {"schema"}
        assert not found.values("jobs")
        assert not found.values("disk_free_bytes")
    assert known_parts(asked(state)) == PARTS
    state.close()


def test_a_server_with_the_least_rights_lacks_the_disk_alone() -> None:
    """Those of docs/security.md, and then the one that docs/monitoring.md has granted."""
    with restricted_mongod() as restricted:
        state = State(Settings.resolve(restricted.database_uri("metrics")), patience=PATIENCE_SECONDS, kept=0)
        assert known_parts(asked(state)) == PARTS - {"disk"}
        with pymongo.MongoClient(restricted.root_uri("metrics")) as root:
            right = {"resource": {"db": "metrics", "collection": ""}, "actions": ["dbStats"]}
            root["metrics"].command("grantPrivilegesToRole", "mlflowServer", privileges=[right])
        assert known_parts(asked(state)) == PARTS
        state.close()


def test_a_database_that_is_away_is_told_of_in_time(server: Mongod, caplog: pytest.LogCaptureFixture) -> None:
    uri = server.database_uri("away")
    opened(uri)
    state = State(Settings.resolve(uri), patience=1, kept=0)
    wait_until_up_is(1, state)
    assert server.process is not None
    before = threading.enumerate()
    with caplog.at_level(logging.WARNING):
        # It takes connections and says nothing. Many ask at once, and one question is put.
        os.kill(server.process.pid, signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)  # on a busy machine it answers for a moment yet
        try:
            found: list[Samples] = []
            threads = [threading.Thread(target=lambda: found.append(asked(state))) for _ in range(8)]
            for thread in threads:
                thread.start()
            asking = [each for each in threading.enumerate() if each.name == "genesis-flow-state"]
            assert sum(each not in before for each in asking) <= 1
            for thread in threads:
                thread.join(timeout=PATIENCE_SECONDS)
            assert [each.values("database_up") for each in found] == [[0]] * 8
            assert known_parts(found[0]) == set()
            assert len(found[0].values("state_part_success")) == len(PARTS)
            assert not found[0].values("jobs")
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        wait_until_up_is(1, state)
        server.kill()
        wait_until_up_is(0, state)
    state.close()
    told = [record.message for record in caplog.records if "Metrics:" in record.message]
    assert any("is away" in text for text in told)
    assert sum("answers again" in text for text in told) == sum("is away" in text for text in told) - 1


def test_a_password_is_in_no_metric_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with guarded_mongod("ada", CANARY) as guarded, caplog.at_level(logging.DEBUG, "genesis_flow"):
        uri = f"mongodb://ada:{CANARY}x@127.0.0.1:{guarded.port}/m?directConnection=true&authSource=admin"
        state = State(Settings.resolve(uri), patience=PATIENCE_SECONDS, kept=0)
        found = asked(state)
        state.close()
    assert found.values("database_up") == [0]
    assert "Metrics: the database is away" in caplog.text
    assert CANARY not in found.text + caplog.text


def test_an_embedded_server_is_looked_at_and_never_started(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    state = State(Settings.resolve(f"genesis://{directory}"), patience=PATIENCE_SECONDS, kept=0)
    found = asked(state)
    assert (found.values("embedded_server_up"), found.values("database_up")) == ([0], [0])
    assert not directory.exists()
    embedded.start(directory)
    try:
        store = MongoDBStore(f"genesis://{directory}")
        run_id = store.create_run("0", "me", 1, [], None).info.run_id
        store.log_metric(run_id, Metric("loss", 1.0, 1, 1))
        found = asked(state)
        assert (found.values("embedded_server_up"), found.values("database_up")) == ([1], [1])
        assert known_parts(found) == PARTS
        assert len(found.values("disk_free_bytes")) == 1
        store.close()
    finally:
        embedded.stop(directory, force=True)
    assert asked(state).values("embedded_server_up") == [0]
    state.close()


def test_another_primary_is_a_failover() -> None:
    with running_replica_set() as replica_set:
        uri = replica_set.database_uri("metrics")
        opened(uri)
        state = State(Settings.resolve(uri), patience=PATIENCE_SECONDS, kept=0)
        assert asked(state).values("database_failovers_total") == [0]
        replica_set.wait_for_primary().kill()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not asked(state).sum("database_failovers_total"):
            assert time.monotonic() < deadline
        assert asked(state).values("database_up") == [1]
        state.close()
