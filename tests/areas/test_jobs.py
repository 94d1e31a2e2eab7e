"""Background jobs: many who claim one, runners that are gone, and what lists cost."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.jobs.documents import JobFields, JobLockFields, SchedulerLeaseFields
from genesis_flow.compat.jobs import (
    JobProgress,
    JobStatus,
    JobTerminalStateUpdateException,
    JobUpdateStatus,
)
from genesis_flow.core.settings import ENV_JOB_RUN
from genesis_flow.plugins import job_hooks
from genesis_flow.sync.jobs import MongoDBJobStore
from tests.areas.explain import profiled

CLAIMS = 64
STORES = 4
JOBS = 2_000


@pytest.fixture
async def stores(store_uri: str) -> AsyncIterator[list[MongoDBStore]]:
    made = [MongoDBStore(f"{store_uri}&appName=runner{number}") for number in range(STORES)]
    yield made
    for store in made:
        await store.close()


async def test_of_many_claims_of_one_job_one_succeeds(stores: list[MongoDBStore]) -> None:
    job = await stores[0].create_job("kind", "{}")
    claims = [stores[number % STORES].claim_job(job.job_id, 60) for number in range(CLAIMS)]
    found = await asyncio.gather(*claims)
    assert found.count(JobUpdateStatus.APPLIED) == 1
    assert found.count(JobUpdateStatus.WRONG_STATE) == CLAIMS - 1


async def test_of_many_who_take_a_job_over_one_does(stores: list[MongoDBStore]) -> None:
    """Whose lease lasts is let alone."""
    lost, alive = [(await stores[0].create_job("kind", "{}")).job_id for _ in range(2)]
    for job_id in (lost, alive):
        await stores[0].claim_job(job_id, 3600)
    assert await stores[1].list_lost_jobs() == []
    jobs = stores[0].database.collection(JobFields)
    await jobs.update_one({"_id": lost}, {"$set": {"lease_expires_at": 1}})
    assert await stores[1].list_lost_jobs() == [lost]
    found = await asyncio.gather(*(stores[number % STORES].take_over_job(lost) for number in range(CLAIMS)))
    assert found.count(JobUpdateStatus.APPLIED) == 1
    assert await stores[1].take_over_job(alive) == JobUpdateStatus.WRONG_STATE
    assert (await stores[2].get_job(lost)).status == JobStatus.PENDING
    assert (await stores[2].get_job(alive)).status == JobStatus.RUNNING


STEPS_OF_RUNNERS: list[tuple[Any, ...]] = [
    ("report_job_result", JobStatus.SUCCEEDED, "1"),
    ("finish_job", "1"),
    ("fail_job", "broken"),
    ("mark_job_timed_out",),
    ("retry_job",),
    ("retry_or_fail_job", "passing"),
    ("cancel_job",),
]


WORDS_OF_RUNNERS: list[tuple[Any, ...]] = [
    ("update_job_progress", "half", JobProgress(phase="late")),
    ("update_status_details", {"stage": "late"}),
]


async def test_a_late_runner_changes_nothing_of_the_next_run(stores: list[MongoDBStore]) -> None:
    """It is told that the job is canceled, and what it has to say comes too late."""
    late, other, server = stores[:3]
    job_id = (await late.create_job("kind", "{}")).job_id
    await late.claim_job(job_id, 3600)
    jobs = late.database.collection(JobFields)
    await jobs.update_one({"_id": job_id}, {"$set": {"lease_expires_at": 1}})
    assert await other.take_over_job(job_id) == JobUpdateStatus.APPLIED
    for _ in ("while it waits", "while it runs elsewhere"):
        before = await jobs.find_one({"_id": job_id})
        assert (await late.get_job(job_id)).status == JobStatus.CANCELED
        assert await late.renew_job_lease(job_id, 3600) == JobUpdateStatus.WRONG_STATE
        assert await late.mark_job_needs_recovery(job_id) == JobUpdateStatus.WRONG_STATE
        for name, *given in (*STEPS_OF_RUNNERS, *WORDS_OF_RUNNERS):
            with pytest.raises(MlflowException):
                await getattr(late, name)(job_id, *given)
        assert await jobs.find_one({"_id": job_id}) == before
        await other.claim_job(job_id, 3600)
    assert (await server.get_job(job_id)).status == JobStatus.RUNNING
    await other.report_job_result(job_id, JobStatus.SUCCEEDED, "2")
    assert (await server.get_job(job_id)).result == "2"
    assert (await other.get_job(job_id)).status == JobStatus.SUCCEEDED


async def test_the_last_try_of_a_late_runner_does_not_end_the_next_run(
    stores: list[MongoDBStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does that of one that has begun without a lease."""
    monkeypatch.setenv("MLFLOW_SERVER_JOB_TRANSIENT_ERROR_MAX_RETRIES", "0")
    late, other = stores[:2]
    for begin in ("start_job", "claim_job"):
        job_id = (await late.create_job("kind", "{}")).job_id
        await getattr(late, begin)(job_id)
        jobs = late.database.collection(JobFields)
        await jobs.update_one({"_id": job_id}, {"$set": {"last_update_time": 1, "lease_expires_at": 1}})
        assert await other.take_over_job(job_id) == JobUpdateStatus.APPLIED
        await other.claim_job(job_id, 3600)
        with pytest.raises(MlflowException, match="another server has taken the job over"):
            await late.retry_or_fail_job(job_id, "passing")
        assert (await other.get_job(job_id)).status == JobStatus.RUNNING
        assert await other.retry_or_fail_job(job_id, "passing") is None
        assert (await other.get_job(job_id)).status == JobStatus.FAILED


async def test_words_of_a_late_run_are_not_kept_while_the_next_begins(stores: list[MongoDBStore]) -> None:
    """They come all the time, before, while and after another takes the job over."""
    late, other, server = stores[:3]
    job_id = (await late.create_job("kind", "{}")).job_id
    await late.claim_job(job_id, 3600)
    jobs = late.database.collection(JobFields)
    await jobs.update_one({"_id": job_id}, {"$set": {"lease_expires_at": 1}})
    said, refused, next_run_spoke = asyncio.Event(), list[JobTerminalStateUpdateException](), asyncio.Event()

    async def speak() -> None:
        """Until the next run has spoken, and once more."""
        is_last = False
        while not is_last:
            is_last = next_run_spoke.is_set()
            try:
                await late.update_job_progress(job_id, "late", JobProgress(phase="late"))
            except JobTerminalStateUpdateException as error:
                refused.append(error)
            said.set()

    speaking = [asyncio.create_task(speak()) for _ in range(4)]
    await said.wait()
    assert await other.take_over_job(job_id) == JobUpdateStatus.APPLIED
    assert await other.claim_job(job_id, 3600) == JobUpdateStatus.APPLIED
    await other.update_job_progress(job_id, "next")
    next_run_spoke.set()
    await asyncio.gather(*speaking)
    found = await server.get_job(job_id)
    assert (found.status_message, found.progress) == ("next", None)
    assert len(refused) >= len(speaking)


async def test_the_process_of_a_job_speaks_for_its_run(
    stores: list[MongoDBStore], store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner's environment tells it the run; the store that it makes is told of the next one's begin."""
    runner, other = stores[:2]
    job_id = (await runner.create_job("kind", "{}")).job_id
    await runner.claim_job(job_id, 3600)
    jobs = runner.database.collection(JobFields)
    begun = await jobs.find_one({"_id": job_id})
    assert begun is not None
    monkeypatch.setenv(ENV_JOB_RUN, f"{job_id} {begun['claim']}")
    async with MongoDBStore(f"{store_uri}&appName=process") as process:
        await process.update_job_progress(job_id, "half")
        assert (await other.get_job(job_id)).status_message == "half"
        await jobs.update_one({"_id": job_id}, {"$set": {"lease_expires_at": 1}})
        await other.take_over_job(job_id)
        await other.claim_job(job_id, 3600)
        with pytest.raises(JobTerminalStateUpdateException, match="CANCELED"):
            await process.update_job_progress(job_id, "late")
        assert (await process.get_job(job_id)).status == JobStatus.CANCELED
    assert (await other.get_job(job_id)).status_message is None


async def test_a_late_runner_does_not_give_back_the_key_of_the_next_run(stores: list[MongoDBStore]) -> None:
    late, other, third = stores[:3]
    ids = [(await late.create_job("kind", "{}", timeout=3600)).job_id for _ in range(2)]
    await late.claim_job(ids[0], 3600)
    jobs = late.database.collection(JobFields)
    await jobs.update_one({"_id": ids[0]}, {"$set": {"lease_expires_at": 1}})
    await other.take_over_job(ids[0])
    await other.claim_job(ids[0], 3600)
    assert await other.lock_job_key("key", ids[0]) is not None
    assert await late.lock_job_key("key", ids[0]) is None
    await third.claim_job(ids[1], 3600)
    assert await third.lock_job_key("key", ids[1]) is None


async def test_a_runner_that_has_ended_its_run_may_begin_the_next(stores: list[MongoDBStore]) -> None:
    runner, server = stores[:2]
    job_id = (await runner.create_job("kind", "{}")).job_id

    async def requeue(job_id: str) -> None:
        await runner.mark_job_needs_recovery(job_id)
        await runner.requeue_job(job_id)

    for end in (runner.retry_job, runner.reset_job, requeue):
        await runner.claim_job(job_id, 3600)
        await end(job_id)
        assert (await runner.get_job(job_id)).status == JobStatus.PENDING
        await server.claim_job(job_id, 3600)
        assert (await runner.get_job(job_id)).status == JobStatus.RUNNING
        await server.reset_job(job_id)
    await runner.claim_job(job_id, 3600)
    await runner.finish_job(job_id, "3")
    assert (await runner.get_job(job_id)).result == "3"


def test_of_two_servers_one_does_a_task_in_each_period(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [MongoDBJobStore(f"{store_uri}&appName=server{number}") for number in range(2)]
    here, ran = threading.local(), list[int]()
    monkeypatch.setattr(job_hooks, "server_job_store", lambda: here.store)
    archive = job_hooks.archived_once(lambda settings: ran.append(1))
    settings, together = SimpleNamespace(interval_seconds=3600), threading.Barrier(8)

    def poll(number: int) -> None:
        here.store = servers[number % 2]
        together.wait()
        archive(settings=settings)

    for _ in range(2):
        threads = [threading.Thread(target=poll, args=(number,)) for number in range(together.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ran) == 1
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        (lease,) = client.get_default_database()["scheduler_leases"].find()
    assert lease["_id"] == "trace-archival"
    assert job_hooks.MINUTE_SECONDS < lease["ttl_seconds"] <= 3590
    for server in servers:
        server.close()


async def test_a_lease_that_is_renewed_stays(stores: list[MongoDBStore]) -> None:
    since = await stores[0].take_scheduler_lease("task", 3600)
    assert since is not None
    again = await stores[0].renew_scheduler_lease("task", since, 3600, 1800)
    assert again is not None
    assert await stores[1].renew_scheduler_lease("task", since - 1, 3600, 60) is None
    assert await stores[1].take_scheduler_lease("task", 60) is None


async def test_a_job_without_a_lease_has_a_minute(stores: list[MongoDBStore]) -> None:
    job_id = (await stores[0].create_job("kind", "{}")).job_id
    await stores[0].start_job(job_id)
    assert await stores[0].list_lost_jobs() == []
    jobs = stores[0].database.collection(JobFields)
    await jobs.update_one({"_id": job_id}, {"$set": {"last_update_time": 1}})
    assert await stores[0].list_lost_jobs() == [job_id]


async def test_one_of_many_has_a_lease_or_a_key(stores: list[MongoDBStore]) -> None:
    ids = [(await stores[0].create_job("kind", "{}", timeout=3600)).job_id for _ in range(CLAIMS)]
    for job_id in ids:
        await stores[0].claim_job(job_id, 3600)
    locks = await asyncio.gather(
        *(stores[number % STORES].lock_job_key("key", each) for number, each in enumerate(ids))
    )
    leases = await asyncio.gather(
        *(stores[number % STORES].take_scheduler_lease("task", 3600) for number in range(CLAIMS))
    )
    for taken, declared in ((locks, JobLockFields), (leases, SchedulerLeaseFields)):
        (since,) = [each for each in taken if each is not None]
        (document,) = await stores[0].database.collection(declared).find().to_list()
        assert document["acquired_at"] == since


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"statuses": [JobStatus.PENDING]}, 10),
        ({"statuses": [JobStatus.PENDING, JobStatus.RUNNING]}, 20),
        ({"job_name": "rare"}, 10),
        ({"begin_timestamp": JOBS - 10}, 10),
    ],
    ids=str,
)
async def test_lists_read_what_they_return(
    stores: list[MongoDBStore], filters: dict[str, Any], found: int
) -> None:
    await _fill(stores[0])
    async with profiled(stores[0].database) as queries:
        assert len(await stores[0].list_jobs(**filters)) == found
    (query,) = queries
    assert not query.blocking_sort
    assert query.documents == found
    assert query.keys <= found + 2


async def test_looking_for_lost_jobs_reads_those_that_run(stores: list[MongoDBStore]) -> None:
    await _fill(stores[0])
    async with profiled(stores[0].database) as queries:
        await stores[0].list_lost_jobs()
    (query,) = queries
    assert query.documents <= 10


async def _fill(store: MongoDBStore) -> None:
    await store.get_experiment("0")
    statuses = ["PENDING"] * 10 + ["RUNNING"] * 10
    await store.database.collection(JobFields).insert_many(
        [
            {
                "_id": f"job-{number:05}",
                "workspace": "default",
                "job_name": "rare" if number % (JOBS // 10) == 0 else "kind",
                "params": "{}",
                "status": statuses[number] if number < len(statuses) else "SUCCEEDED",
                "retry_count": 0,
                "creation_time": number,
                "last_update_time": number,
                "lease_expires_at": 1,
            }
            for number in range(JOBS)
        ]
    )
