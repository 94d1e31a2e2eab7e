"""Runners of background jobs that are killed, and some that stop and come back late."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pymongo
import pytest
from pymongo.collection import Collection

from genesis_flow.compat.jobs import JobStatus
from genesis_flow.sync.jobs import MongoDBJobStore
from tests.client.conftest import user_environment
from tests.trust.job_runners import AT_ONCE, KIND
from tests.trust.soak import amount

PATIENCE_SECONDS = 120
# ``genesis-flow server`` sets leases of 30 seconds.
LEASE_SECONDS = 3
RUNNERS = 2
KILLS = amount(3, 20)
WAITING = 4
WORK_SECONDS = 0.4


class Runners:
    """Processes that run jobs; they end with the test."""

    def __init__(self, uri: str) -> None:
        environment = user_environment(
            _MLFLOW_SERVER_FILE_STORE=uri,
            MLFLOW_BACKEND_STORE_URI=uri,
            MLFLOW_SERVER_JOB_LEASE_TTL=str(LEASE_SECONDS),
            MLFLOW_SERVER_UP_TIME="0",
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.trust.job_runners"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("start\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """Its input ends, so it kills what it started."""
        self.process.communicate(timeout=PATIENCE_SECONDS)


@pytest.fixture
def runners(fresh_uri: str) -> Iterator[Runners]:
    with closing(Runners(fresh_uri)) as made:
        yield made


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_jobs_of_killed_and_of_late_runners(runners: Runners, fresh_uri: str) -> None:
    """Each job is done once: no other run of it begins within a lease, and a late one changes nothing."""
    draw = random.Random(21)
    params = f'{{"seconds": {WORK_SECONDS}}}'
    with (
        closing(MongoDBJobStore(fresh_uri)) as store,
        pymongo.MongoClient[dict[str, Any]](fresh_uri) as client,
    ):
        first = store.create_job(KIND, params).job_id
        database = client.get_default_database()
        notes: Collection[dict[str, Any]] = database["notes"]
        with database["jobs"].watch() as changes:
            made: list[str] = []

            def works(pid: int, since: int = 0) -> bool:
                """Whether this runner has begun anything, of which there is always enough."""
                missing = WAITING - len(list(store.list_jobs(statuses=[JobStatus.PENDING])))
                made.extend(store.create_job(KIND, params).job_id for _ in range(missing))
                return notes.count_documents({"pid": pid}) > since

            def is_stopped_at_work(pid: int) -> bool:
                os.kill(pid, signal.SIGSTOP)
                claims = notes.distinct("claim", {"pid": pid})
                if database["jobs"].count_documents({"status": "RUNNING", "claim": {"$in": claims}}):
                    return True
                os.kill(pid, signal.SIGCONT)
                return False

            alive = [runners.start() for _ in range(RUNNERS)]
            stopped: list[int] = []
            for number in range(KILLS):
                victim = alive.pop(0)
                until(lambda pid=victim: works(pid))
                time.sleep(draw.uniform(0, WORK_SECONDS))
                until(lambda pid=victim: is_stopped_at_work(pid))
                if number % 3 == 2:
                    stopped.append(victim)
                else:
                    os.kill(victim, signal.SIGKILL)
                alive.append(runners.start())
            # The late ones come back when all that they had runs elsewhere or has ended.
            until(lambda: _all_done(store, {*made, first}))
            for pid in stopped:
                before = notes.count_documents({"pid": pid})
                os.kill(pid, signal.SIGCONT)
                # It has ended as many as it may have had, and so told of them.
                until(lambda pid=pid, before=before: works(pid, before + 2 * AT_ONCE))
            until(lambda: _all_done(store, set(made)))
            histories = _histories(changes, set(made))
    taken_over = sum(_check(history) for history in histories.values())
    assert taken_over > 0, "no kill has met a run"
    print(f"{KILLS} runners killed or stopped, {taken_over} runs of {len(made)} jobs taken over.")


def _all_done(store: MongoDBJobStore, wanted: set[str]) -> bool:
    return wanted <= {job.job_id for job in store.list_jobs(statuses=[JobStatus.SUCCEEDED])}


def _histories(changes: Any, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """What each job was, one after the other."""
    histories: dict[str, list[dict[str, Any]]] = {each: [] for each in wanted}
    while (change := changes.try_next()) is not None or not _has_ended(histories):
        if change is None:
            continue
        history = histories.get(change["documentKey"]["_id"])
        if history is None:
            continue
        if (whole := change.get("fullDocument")) is None:
            described = change["updateDescription"]
            gone = described["removedFields"]
            whole = {name: value for name, value in history[-1].items() if name not in gone}
            whole |= described["updatedFields"]
        history.append(whole)
    return histories


def _has_ended(histories: dict[str, list[dict[str, Any]]]) -> bool:
    return all(history and history[-1]["status"] == "SUCCEEDED" for history in histories.values())


def _check(history: list[dict[str, Any]]) -> int:
    """How often the job was taken over."""
    taken_over = 0
    claims: set[str] = set()
    for before, after in itertools.pairwise(history):
        step = (before["status"], after["status"])
        if step == ("PENDING", "RUNNING"):
            assert after["claim"] not in claims
            claims.add(after["claim"])
        elif step == ("RUNNING", "PENDING"):
            assert before["lease_expires_at"] <= after["last_update_time"], "within its lease"
            assert "claim" not in after
            taken_over += 1
        elif step == ("RUNNING", "SUCCEEDED"):
            assert after["result"] == f'"{before["claim"]}"', "another run has ended it"
        else:
            assert step == ("RUNNING", "RUNNING"), step
            assert after["claim"] == before["claim"]
    assert history[-1]["status"] == "SUCCEEDED"
    return taken_over
