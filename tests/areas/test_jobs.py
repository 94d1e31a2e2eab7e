"""Background jobs: many who claim one, runners that are gone, and what lists cost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.jobs.documents import JobFields, JobLockFields, SchedulerLeaseFields
from genesis_flow.compat.jobs import JobStatus, JobUpdateStatus
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
