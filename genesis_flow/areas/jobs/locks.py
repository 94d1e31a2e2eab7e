"""What one job, or one of several servers, has for itself.

A lock is a document whose id is its key, so that one of many inserts succeeds; every other change names the
holder that it saw. Times are the database's.

Round trips: a lock two (the job that asks, the lock), four or five where another holds it; its release one; a
lease of a scheduler one or two, its renewal one.
"""

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.jobs.claims import Claims
from genesis_flow.areas.jobs.documents import JobFields, JobLockFields, SchedulerLeaseFields
from genesis_flow.areas.jobs.transitions import CANCELED, ENDED, PENDING, Change, is_past
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, call_token, heartbeat, is_repetition, mutation
from genesis_flow.mongo.scoping import scoped

# A canceled job's worker is still stopping what it began; it gives the lock back itself.
_DONE = {PENDING, *ENDED} - {CANCELED}
# Of its timeout, after which a job has certainly ended.
_SLACK = 1.15


class JobLocks(Claims, Area):
    @mutation
    async def lock_job_key(self, lock_key: str, job_id: str) -> int | None:
        """Let a job have a key for itself: since when it has it, or None if a job that runs has it."""
        jobs, locks = self.database.collection(JobFields), self.database.collection(JobLockFields)
        asking = await entities.find(
            jobs,
            {"_id": job_id},
            entities.unknown(f"Job with ID {job_id} not found"),
            {"timeout": 1, "claim": 1},
        )
        if self._has_lost(asking):  # its lock is that of the next run
            return None
        if asking.get("timeout") is None:
            raise invalid("Exclusive job locks require non-null timeout.")
        fresh = Change({"job_id": job_id}, {"acquired_at": 0})
        try:
            # The job's own lock is taken anew: a job that was taken over has its whole time again.
            return await self._put(locks, scoped({"_id": lock_key, "job_id": job_id}), fresh, upsert=True)
        except DuplicateKeyError:
            held = await locks.find_one(scoped({"_id": lock_key}))
        if held is None:  # given back at this moment: the next to ask gets it
            return None
        holder = await jobs.find_one(scoped({"_id": held["job_id"]}), {"status": 1, "timeout": 1})
        stale = scoped({"_id": lock_key, "job_id": held["job_id"], "acquired_at": held["acquired_at"]})
        if holder is not None and holder["status"] not in _DONE:
            if holder.get("timeout") is None:
                return None
            late = holder["timeout"] * 1000 * _SLACK
            past = is_past("acquired_at", portable=self.settings.portable, milliseconds=late)
            stale = {"$and": [stale, past]}
        return await self._put(locks, stale, fresh)

    @mutation
    async def unlock_job_key(self, lock_key: str, job_id: str, acquired_at: int) -> None:
        """Give a key back, if it is still held since then."""
        locks = self.database.collection(JobLockFields)
        await locks.delete_one(scoped({"_id": lock_key, "job_id": job_id, "acquired_at": acquired_at}))

    @heartbeat
    async def take_scheduler_lease(self, lease_key: str, ttl_seconds: int) -> int | None:
        """Be the one server that does a task for some time: since when, or None if another is."""
        leases = self.database.collection(SchedulerLeaseFields)
        taken = Change({"holder": call_token(), **_lasting(ttl_seconds)}, _times(ttl_seconds))
        ended = {"_id": lease_key, **is_past("expires_at", portable=self.settings.portable)}
        since = await self._put(leases, ended, taken)
        if since is not None:
            return since
        try:
            return await self._put(
                leases, {"_id": lease_key, "holder": {"$exists": False}}, taken, upsert=True
            )
        except DuplicateKeyError:
            if not is_repetition():
                return None
        mine = await leases.find_one({"_id": lease_key, "holder": call_token()})
        return None if mine is None else int(mine["acquired_at"])

    @heartbeat
    async def renew_scheduler_lease(
        self, lease_key: str, acquired_at: int, held_seconds: int, ttl_seconds: int
    ) -> int | None:
        """Stay the one server that does a task, from now on for so long; None if another took it over."""
        leases = self.database.collection(SchedulerLeaseFields)
        lease = {"acquired_at": acquired_at, "ttl_seconds": held_seconds}
        held = {"_id": lease_key, "$or": [lease, {"holder": call_token()}]}
        kept = Change({"holder": call_token(), **_lasting(ttl_seconds)}, _times(ttl_seconds))
        return await self._put(leases, held, kept)

    async def _put(
        self, collection: Collection, query: Document, change: Change, *, upsert: bool = False
    ) -> int | None:
        """Since when what matches the query is held, now that it is changed."""
        found = await collection.find_one_and_update(
            query,
            change.update(portable=self.settings.portable),
            upsert=upsert,
            return_document=ReturnDocument.AFTER,
        )
        return None if found is None else int(found["acquired_at"])


def _lasting(ttl_seconds: int) -> Document:
    if ttl_seconds <= 0:
        raise invalid(f"ttl_seconds must be greater than zero, got {ttl_seconds}")
    return {"ttl_seconds": ttl_seconds}


def _times(ttl_seconds: int) -> dict[str, float]:
    return {"acquired_at": 0, "expires_at": ttl_seconds * 1000}
