"""Background jobs and their locks, beside MLflow's SQL job store."""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.server.jobs.lock_manager import JobLock, JobLockManager
from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from pymongo.database import Database

from genesis_flow.compat.jobs import (
    AbstractJobStore,
    JobProgress,
    JobStatus,
    JobTerminalStateUpdateException,
    JobUpdateStatus,
)
from genesis_flow.sync.jobs import MongoDBJobLockManager, MongoDBJobStore
from tests.contract import policy
from tests.contract.pair import Pair
from tests.contract.policy import Exemption, Rule
from tests.contract.test_signatures import differences, shape
from tests.emptied import empty
from tests.mongod import Mongod

_CLOCK = Exemption(Rule.CLOSE_TIME, "each store reads its clock")
policy.FIELDS.update(
    {
        ("Job", field): _CLOCK
        for field in ("creation_time", "last_update_time", "lease_expires_at", "progress_updated_at")
    }
)

STATUSES = list(JobStatus)
ENDED = [status for status in STATUSES if JobStatus.is_finalized(status)]

# What leads a new job into a status.
WAYS: dict[JobStatus, list[tuple[Any, ...]]] = {
    JobStatus.PENDING: [],
    JobStatus.RUNNING: [("claim_job", 60)],
    JobStatus.NEEDS_RECOVERY: [("claim_job", 60), ("mark_job_needs_recovery",)],
    JobStatus.SUCCEEDED: [("finish_job", '"done"')],
    JobStatus.FAILED: [("fail_job", "broken")],
    JobStatus.TIMEOUT: [("mark_job_timed_out",)],
    JobStatus.CANCELED: [("cancel_job",)],
}

# Every step of a job's life.
STEPS: list[tuple[Any, ...]] = [
    ("claim_job",),
    ("claim_job", 60),
    ("start_job",),
    ("renew_job_lease", 60),
    ("retry_job",),
    ("mark_job_needs_recovery",),
    ("reattach_job",),
    ("reattach_job", 60),
    ("requeue_job",),
    ("report_job_result", JobStatus.SUCCEEDED, "3"),
    ("report_job_result", JobStatus.SUCCEEDED, "3", "error"),
    ("report_job_result", JobStatus.FAILED, None, "error"),
    ("report_job_result", JobStatus.FAILED, "3", "error"),
    ("report_job_result", JobStatus.FAILED),
    ("report_job_result", JobStatus.TIMEOUT),
    ("report_job_result", JobStatus.TIMEOUT, "3"),
    ("report_job_result", JobStatus.CANCELED, "3"),
    ("report_job_result", JobStatus.RUNNING),
    ("reset_job",),
    ("finish_job", "3"),
    ("mark_job_timed_out",),
    ("fail_job", "$broken"),
    ("cancel_job",),
    ("retry_or_fail_job", "passing"),
    ("update_status_details", {"stage": 1, "a.$b": {"$c": [None, 1.5]}}),
    ("update_status_details", {}),
    ("update_job_progress", "$half", JobProgress("phase", 1, 2, "trace")),
    ("update_job_progress", None, JobProgress()),
    ("update_job_progress",),
    ("get_job",),
]


@pytest.fixture
def jobs(
    mongod: Mongod, contract_database: Database[dict[str, Any]], oracle: SqlAlchemyStore
) -> Iterator[Pair]:
    empty(contract_database)
    theirs = SqlAlchemyJobStore(oracle.db_uri)
    yield Pair(MongoDBJobStore(mongod.database_uri(contract_database.name)), theirs)
    SqlAlchemyJobStore._engine_map.pop(oracle.db_uri).dispose()


def led(jobs: Pair, status: JobStatus) -> str:
    """A job that has the status in both stores."""
    job_id: str = jobs.create_job("kind", '{"a": 1}', timeout=5.5, creator="ann").job_id
    for name, *given in WAYS[status]:
        getattr(jobs, name)(job_id, *given)
    return job_id


@pytest.mark.parametrize("status", STATUSES, ids=str)
def test_every_step_from_every_status(jobs: Pair, status: JobStatus) -> None:
    for name, *given in STEPS:
        job_id = led(jobs, status)
        refused = None
        try:
            getattr(jobs, name)(job_id, *given)
        except Exception as error:
            refused = error
        after = jobs.get_job(job_id)
        if name == "get_job":
            assert (after.status, refused) == (status, None)
        if status in ENDED and name in {"update_status_details", "update_job_progress"} and given:
            assert isinstance(refused, JobTerminalStateUpdateException)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_an_unknown_job(jobs: Pair, step: tuple[Any, ...]) -> None:
    name, *given = step
    ours, theirs = jobs.both(name, "00000000-0000-0000-0000-000000000000", *given)
    assert ours.code == theirs.code
    assert ours.code is not None or name == "update_job_progress"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_leases_that_are_none(jobs: Pair, seconds: float) -> None:
    job_id = led(jobs, JobStatus.PENDING)
    jobs.refused("claim_job", job_id, seconds)
    jobs.claim_job(job_id)
    jobs.refused("renew_job_lease", job_id, seconds)
    jobs.refused("renew_job_lease", job_id, None)


def test_a_job_is_tried_until_its_tries_are_used_up(jobs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_JOB_TRANSIENT_ERROR_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY", "0")
    job_id = led(jobs, JobStatus.PENDING)
    found = []
    for _ in range(3):
        jobs.claim_job(job_id, 60)
        found.append(jobs.retry_or_fail_job(job_id, "passing"))
        jobs.get_job(job_id)
    assert found == [1, 2, None]
    assert jobs.get_job(job_id).status == JobStatus.FAILED


def test_a_job_that_waits_for_its_next_try_is_not_claimed(
    jobs: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_JOB_TRANSIENT_ERROR_RETRY_BASE_DELAY", "1000")
    job_id = led(jobs, JobStatus.RUNNING)
    assert jobs.retry_or_fail_job(job_id, "passing") == 1
    assert jobs.claim_job(job_id, 60) == JobUpdateStatus.WRONG_STATE
    jobs.refused("start_job", job_id)
    jobs.reset_job(job_id)
    assert jobs.claim_job(job_id, 60) == JobUpdateStatus.APPLIED


def test_lists(jobs: Pair) -> None:
    made = [
        jobs.create_job(name, params)
        for name in ("one", "two")
        for params in ("{}", '{"a": 1}', '{"a": 1, "b": [1, {"c": null}]}', '{"a": "1"}')
    ]
    jobs.claim_job(made[1].job_id)
    jobs.cancel_job(made[2].job_id)
    # In SQL the order of jobs of one millisecond is open.
    cases: list[dict[str, Any]] = [
        {},
        {"job_name": "one"},
        {"job_name": "none"},
        {"statuses": []},
        {"statuses": [JobStatus.PENDING]},
        {"statuses": [JobStatus.RUNNING, JobStatus.CANCELED], "job_name": "one"},
        {"params": {"a": 1}},
        {"params": {"b": [1, {"c": None}]}, "job_name": "two"},
        {"params": {"a": None}},
        {"params": {}},
        {"begin_timestamp": 1, "end_timestamp": made[-1].creation_time + 60_000},
        {"end_timestamp": 1},
    ]
    for filters in cases:
        ours, theirs = jobs.both("list_jobs", **filters)
        shown = [
            sorted((job.job_name, job.params, str(job.status)) for job in each.result)
            for each in (ours, theirs)
        ]
        assert shown[0] == shown[1], filters
    listed = list(jobs.ours.list_jobs())
    assert [job.creation_time for job in listed] == sorted(job.creation_time for job in listed)
    assert next(jobs.ours.list_jobs(job_name="two")).job_name == "two"


def test_deletion_takes_only_what_has_ended(jobs: Pair) -> None:
    made = {status: led(jobs, status) for status in STATUSES}
    for filters, gone in (
        ({"older_than": 3_600_000}, []),
        ({"job_ids": [made[JobStatus.RUNNING]]}, []),
        ({"job_ids": [made[JobStatus.FAILED]], "older_than": 3_600_000}, []),
        ({"job_ids": [made[JobStatus.FAILED]]}, [JobStatus.FAILED]),
        ({}, [JobStatus.SUCCEEDED, JobStatus.TIMEOUT, JobStatus.CANCELED]),
    ):
        for store in (jobs.ours, jobs.oracle):
            assert sorted(store.delete_jobs(**filters)) == sorted(made[status] for status in gone)
    left = {job.status for job in jobs.ours.list_jobs()}
    assert left == {job.status for job in jobs.oracle.list_jobs()} == set(STATUSES) - set(ENDED)


@pytest.fixture
def locks(jobs: Pair) -> "LockPair":
    return LockPair(jobs)


class LockPair:
    """Both lock managers: the answers, without the times and ids that each draws."""

    def __init__(self, jobs: Pair) -> None:
        self.jobs = jobs
        self.managers: tuple[Any, Any] = (MongoDBJobLockManager(jobs.ours), JobLockManager(jobs.oracle))

    def acquire(self, key: str, job_id: str) -> tuple[JobLock | None, JobLock | None]:
        ours, theirs = (manager.acquire_exclusive_lock(key, job_id) for manager in self.managers)
        for lock in (ours, theirs):
            assert lock is None or (lock.lock_key, lock.job_id) == (key, job_id)
        assert (ours is None) == (theirs is None)
        return ours, theirs

    def release(self, held: tuple[JobLock | None, JobLock | None]) -> None:
        for manager, lock in zip(self.managers, held, strict=True):
            manager.release_exclusive_lock(lock)


@pytest.mark.parametrize("status", STATUSES, ids=str)
def test_a_key_is_its_holders_until_that_has_ended(locks: LockPair, status: JobStatus) -> None:
    holder, other = led(locks.jobs, JobStatus.RUNNING), led(locks.jobs, JobStatus.RUNNING)
    first = locks.acquire("key", holder)
    assert locks.acquire("other key", other)[0]
    assert locks.acquire("key", other) == (None, None)
    assert locks.acquire("key", holder)[0], "its holder takes it anew"
    for name, *given in [("reset_job",), *WAYS[status]]:
        getattr(locks.jobs, name)(holder, *given)
    stolen = locks.acquire("key", other)
    free = status not in {JobStatus.RUNNING, JobStatus.NEEDS_RECOVERY, JobStatus.CANCELED}
    assert (stolen[0] is not None) == free
    if free:
        locks.release(first)  # no longer its own
        locks.jobs.claim_job(holder)
        assert locks.acquire("key", led(locks.jobs, JobStatus.RUNNING)) == (None, None)
        locks.release(stolen)
        assert locks.acquire("key", led(locks.jobs, JobStatus.RUNNING))[0]


def test_a_key_of_a_job_that_runs_too_long_is_free(locks: LockPair) -> None:
    """So is one without a timeout refused, which would never be."""
    endless = locks.jobs.create_job("kind", "{}").job_id
    for manager in locks.managers:
        with pytest.raises(Exception, match="non-null timeout"):
            manager.acquire_exclusive_lock("key", endless)
    short = locks.jobs.create_job("kind", "{}", timeout=1e-6).job_id
    locks.jobs.claim_job(short, 60)
    held = locks.acquire("key", short)[0]
    assert held
    other = led(locks.jobs, JobStatus.RUNNING)
    tried = (locks.managers[0].acquire_exclusive_lock("key", other) for _ in itertools.count())
    assert next(filter(None, tried)).job_id == other


def test_a_lease_of_a_scheduler(locks: LockPair) -> None:
    for manager in locks.managers:
        lease = manager.acquire_scheduler_lease("task", 3600)
        assert lease.ttl_seconds == 3600
        assert manager.acquire_scheduler_lease("task", 3600) is None
        assert manager.acquire_scheduler_lease("other task", 3600)
        renewed = manager.renew_scheduler_lease(lease, 60)
        assert renewed.ttl_seconds == 60
        assert manager.renew_scheduler_lease(lease, 60) is None
        for bad in (0, -1):
            with pytest.raises(MlflowException, match="ttl_seconds must be greater than zero"):
                manager.acquire_scheduler_lease("task", bad)
            with pytest.raises(MlflowException, match="ttl_seconds must be greater than zero"):
                manager.renew_scheduler_lease(renewed, bad)


METHODS = sorted(
    name for name, member in inspect.getmembers(AbstractJobStore, inspect.isfunction) if name[0] != "_"
)


@pytest.mark.parametrize("name", METHODS)
def test_signatures(name: str) -> None:
    ours, theirs = shape(getattr(MongoDBJobStore, name)), shape(getattr(SqlAlchemyJobStore, name))
    assert differences(ours, theirs) == []
    definer = next(cls for cls in MongoDBJobStore.__mro__ if name in vars(cls))
    assert definer is not AbstractJobStore
