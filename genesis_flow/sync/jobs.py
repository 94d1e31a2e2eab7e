"""The job store and the lock manager that MLflow's server works with, on the tracking store's connection."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from genesis_flow.compat.jobs import AbstractJobStore, Job, JobStatus
from genesis_flow.core.settings import Settings
from genesis_flow.stores.joined import AsyncTrackingStore
from genesis_flow.sync._generated.jobs_locks import SyncJobLocks
from genesis_flow.sync._generated.jobs_methods import SyncJobs

if TYPE_CHECKING:
    from mlflow.server.jobs.lock_manager import JobLock, SchedulerLease


class MongoDBJobStore(SyncJobs, SyncJobLocks, AbstractJobStore):
    """MLflow's job store on MongoDB. Connects at the first call."""

    _async_store: ClassVar = AsyncTrackingStore

    def __init__(self, db_uri: str | None = None) -> None:
        super().__init__(Settings.resolve(db_uri))

    @property
    def db_uri(self) -> str:
        """The URI with its password masked: callers print it."""
        return self._settings.store_uri

    @property
    def supports_workspaces(self) -> bool:
        return True

    def run_of(self, job_id: str) -> str | None:
        """The name of the run of this job that this store has begun and not seen end."""
        store = self._store()
        assert isinstance(store, AsyncTrackingStore)
        return store._claimed.get(job_id)

    def list_jobs(  # type: ignore[override]
        self,
        job_name: str | None = None,
        statuses: list[JobStatus] | None = None,
        begin_timestamp: int | None = None,
        end_timestamp: int | None = None,
        params: dict[str, Any] | None = None,
    ) -> Iterator[Job]:
        """The jobs that match, oldest first; of ``params`` a job may have more."""
        return iter(super().list_jobs(job_name, statuses, begin_timestamp, end_timestamp, params))


class MongoDBJobLockManager:
    """MLflow's lock manager on MongoDB, with its classes of locks and leases."""

    def __init__(self, job_store: MongoDBJobStore) -> None:
        self._store = job_store

    def acquire_exclusive_lock(self, lock_key: str, job_id: str) -> "JobLock | None":
        """The key for this job; None if another job that runs has it."""
        from mlflow.server.jobs.lock_manager import JobLock

        since = self._store.lock_job_key(lock_key, job_id)
        return None if since is None else JobLock(lock_key, job_id, since)

    def release_exclusive_lock(self, job_lock: "JobLock") -> None:
        """Give the key back, if it is still held as the lock says."""
        self._store.unlock_job_key(job_lock.lock_key, job_lock.job_id, job_lock.acquired_at)

    def acquire_scheduler_lease(self, lease_key: str, ttl_seconds: int) -> "SchedulerLease | None":
        """Be the one server that does a task for so long; None if another is."""
        from mlflow.server.jobs.lock_manager import SchedulerLease

        since = self._store.take_scheduler_lease(lease_key, ttl_seconds)
        return None if since is None else SchedulerLease(lease_key, since, ttl_seconds)

    def renew_scheduler_lease(
        self, scheduler_lease: "SchedulerLease", ttl_seconds: int
    ) -> "SchedulerLease | None":
        """Stay the one; None if another took over."""
        from mlflow.server.jobs.lock_manager import SchedulerLease

        key, held = scheduler_lease.lease_key, scheduler_lease.ttl_seconds
        since = self._store.renew_scheduler_lease(key, scheduler_lease.acquired_at, held, ttl_seconds)
        return None if since is None else SchedulerLease(key, since, ttl_seconds)
