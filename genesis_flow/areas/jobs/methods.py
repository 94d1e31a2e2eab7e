"""Background jobs of MLflow's server.

A job is one document, and each step of its life is one update whose condition is the status that it leaves:
of several servers that claim a job one succeeds. A repeated call knows the change that its first try made, so
that no claim is lost with its answer. Times are the database's (``transitions.py``).

A store that has begun a run of a job (``claims.py``) changes no other run of it. One that lost it to another
reads that the job is canceled, and MLflow's runners then end their work.

Round trips: create, get, list one (a list fetches no pages), each step one, and one more where it is refused;
a try after a failure two, since the delay depends on how many there were; delete two, and one for the locks.
"""

import json
import math
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from pymongo import ReturnDocument

from genesis_flow.areas.jobs.claims import Claims
from genesis_flow.areas.jobs.documents import OLDEST_FIRST, JobFields, JobLockFields, job_entity
from genesis_flow.areas.jobs.transitions import (
    CANCELED,
    ENDED,
    FAILED,
    LIVE,
    NEEDS_RECOVERY,
    NOW,
    PENDING,
    RUNNING,
    SUCCEEDED,
    TIMEOUT,
    Change,
    ended,
    is_past,
    present,
    waiting,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import (
    Area,
    call_token,
    heartbeat,
    is_repetition,
    long_mutation,
    mutation,
    operation,
)
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from genesis_flow.compat.jobs import Job, JobProgress, JobStatus, JobUpdateStatus


# How long a job may run without a lease: whoever starts one without gives it a lease at once.
WITHOUT_LEASE_MILLISECONDS = 60_000


class Jobs(Claims, Area):
    @property
    def _jobs(self) -> Collection:
        return self.database.collection(JobFields)

    @mutation
    async def create_job(
        self,
        job_name: str,
        params: str,
        timeout: float | None = None,
        creator: str | None = None,
        executor_backend: str | None = None,
    ) -> "Job":
        """Make a job, which waits until somebody claims it."""
        job_id = str(uuid.UUID(call_token()))
        declared = JobFields(
            _id=job_id,
            workspace=current_workspace(),
            job_name=job_name,
            params=params,
            status=PENDING,
            retry_count=0,
            creation_time=0,
            last_update_time=0,
            timeout=timeout,
            creator=creator,
            executor_backend=executor_backend,
        )
        document = declared.model_dump(by_alias=True, exclude_none=True)
        times = ("creation_time", "last_update_time")
        if self.settings.portable:
            now = present()
            return job_entity(await insert_once(self._jobs, document | dict.fromkeys(times, now)))
        # An update that inserts, since an insert cannot ask the database for the time. What is there stays:
        # a repetition finds its job as others have left it.
        whole = {"$mergeObjects": [{"$literal": document}, dict.fromkeys(times, NOW), "$$ROOT"]}
        made: Document = await self._jobs.find_one_and_update(  # type: ignore[assignment]
            scoped({"_id": job_id}),
            [{"$replaceWith": whole}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return job_entity(made)

    @operation
    async def get_job(self, job_id: str) -> "Job":
        """The job with this id; canceled, for the store whose run of it another has taken over."""
        found = await self._found(job_id)
        return job_entity({**found, "status": CANCELED} if self._has_lost(found) else found)

    @operation
    async def list_jobs(
        self,
        job_name: str | None = None,
        statuses: "list[JobStatus] | None" = None,
        begin_timestamp: int | None = None,
        end_timestamp: int | None = None,
        params: dict[str, Any] | None = None,
    ) -> "list[Job]":
        """The jobs that match, oldest first; of ``params`` a job may have more."""
        query: Document = {}
        if job_name is not None:
            query["job_name"] = job_name
        if statuses:
            query["status"] = {"$in": [str(status) for status in statuses]}
        bounds = {"$gte": begin_timestamp, "$lte": end_timestamp}
        if made := {bound: at for bound, at in bounds.items() if at is not None}:
            query["creation_time"] = made
        cursor = self._jobs.find(scoped(query), sort=OLDEST_FIRST, batch_size=BATCH)
        found = await cursor.to_list()
        return [job_entity(document) for document in found if not params or _has(document, params)]

    @mutation
    async def claim_job(self, job_id: str, lease_duration: float | None = None) -> "JobUpdateStatus":
        """Begin a job that waits, for whoever is the first to ask."""
        return await self._begun(job_id, PENDING, lease_duration, self._is_due())

    @mutation
    async def start_job(self, job_id: str) -> None:
        """Begin a job that waits, or refuse."""
        await self._must(job_id, "start", (PENDING,), _run_for(None), self._is_due())
        self._claimed[job_id] = call_token()

    @heartbeat
    async def renew_job_lease(self, job_id: str, lease_duration: float) -> "JobUpdateStatus":
        """Say that a job still runs."""
        if lease_duration is None:
            raise invalid("`lease_duration` must be provided when renewing a job lease.")
        return _status(await self._moved(job_id, (RUNNING,), _leased(lease_duration), self._own(job_id)))

    @mutation
    async def retry_job(self, job_id: str) -> int:
        """Let a job that runs wait for another try; the number of tries after the first."""
        change = Change(waiting().values, counted=("retry_count",))
        return int((await self._by_runner(job_id, "retry", (RUNNING,), change))["retry_count"])

    @mutation
    async def mark_job_needs_recovery(self, job_id: str) -> "JobUpdateStatus":
        """Say of a running job that nobody watches it any more."""
        change = Change({"status": NEEDS_RECOVERY, "lease_expires_at": None})
        return _status(await self._moved(job_id, (RUNNING,), change, self._own(job_id)))

    @mutation
    async def reattach_job(self, job_id: str, lease_duration: float | None = None) -> "JobUpdateStatus":
        """Watch a job again that nobody watched."""
        return await self._begun(job_id, NEEDS_RECOVERY, lease_duration)

    @mutation
    async def requeue_job(self, job_id: str) -> "JobUpdateStatus":
        """Let a job that nobody watched wait for somebody to run it."""
        moved = await self._moved(job_id, (NEEDS_RECOVERY,), waiting())
        self._forget(job_id, moved[0])
        return _status(moved)

    @mutation
    async def report_job_result(
        self,
        job_id: str,
        status: "JobStatus",
        result: str | None = None,
        error_message: str | None = None,
        is_transient_error: bool = False,
    ) -> None:
        """End a job that runs with what came of it."""
        # Callers decide about another try before they report.
        payload = _payload(str(status), result, error_message)
        statuses = (RUNNING, NEEDS_RECOVERY)
        await self._by_runner(job_id, "report result", statuses, ended(str(status), payload))

    @mutation
    async def reset_job(self, job_id: str) -> None:
        """Let a job that has not ended wait again."""
        await self._must(job_id, "reset", LIVE, waiting())
        self._forget(job_id)

    @mutation
    async def finish_job(self, job_id: str, result: str) -> None:
        """End a job with its result."""
        await self._by_runner(job_id, "finish", LIVE, ended(SUCCEEDED, result))

    @mutation
    async def mark_job_timed_out(self, job_id: str) -> None:
        """End a job that ran too long."""
        await self._by_runner(job_id, "time out", LIVE, ended(TIMEOUT, None))

    @mutation
    async def fail_job(self, job_id: str, error: str) -> None:
        """End a job with its error."""
        await self._by_runner(job_id, "fail", LIVE, ended(FAILED, error))

    @mutation
    async def cancel_job(self, job_id: str) -> "Job":
        """End a job that nobody wants any more."""
        return job_entity(await self._by_runner(job_id, "cancel", LIVE, ended(CANCELED, None)))

    @mutation
    async def retry_or_fail_job(self, job_id: str, error: str) -> int | None:
        """Let a job wait for another try, or end it after the last; gives the number of the try, or None."""
        from genesis_flow.compat.jobs import most_retries, retry_delay_seconds

        before = await self._found(job_id)
        tried = int(before["retry_count"])
        if is_repetition() and before.get("change") == call_token():
            self._forget(job_id)
            return None if before["status"] == FAILED else tried
        if tried >= most_retries():
            await self._by_runner(job_id, "fail", (RUNNING,), ended(FAILED, error))
            return None
        change = Change(
            waiting(retry_count=tried + 1).values,
            times={"next_attempt_at": retry_delay_seconds(tried + 1) * 1000},
        )
        moved = await self._by_runner(job_id, "fail", (RUNNING,), change, {"retry_count": tried})
        return int(moved["retry_count"])

    @mutation
    async def update_status_details(self, job_id: str, status_details: dict[str, Any]) -> None:
        """Add to what a job tells of its steps; an entry of the same key is replaced."""
        details = {escape(key): json.dumps(value) for key, value in status_details.items()}
        await self._tell(job_id, Change(details=details))

    @mutation
    async def update_job_progress(
        self, job_id: str, message: str | None = None, progress: "JobProgress | None" = None
    ) -> None:
        """Say how far a job is."""
        if message is None and progress is None:
            return
        if progress is not None and not all(
            isinstance(text, str | None) for text in (progress.phase, progress.unit)
        ):
            raise invalid("The phase and the unit of a job's progress must be texts.")
        said = {"status_message": message, "progress": progress and progress.to_dict()}
        values = {name: value for name, value in said.items() if value is not None}
        await self._tell(job_id, Change(values, times={"progress_updated_at": 0}))

    @long_mutation
    async def delete_jobs(self, older_than: int = 0, job_ids: list[str] | None = None) -> list[str]:
        """Remove jobs that have ended: all, the old ones, or those with these ids; which that were."""
        query: Document = {"status": {"$in": list(ENDED)}}
        if job_ids:
            query["_id"] = {"$in": job_ids}
        if older_than > 0:
            query |= is_past("creation_time", portable=self.settings.portable, milliseconds=older_than)
        found = await self._jobs.find(scoped(query), {"_id": 1}, batch_size=BATCH).to_list()
        ids = [document["_id"] for document in found]
        locks = self.database.collection(JobLockFields)
        for first in range(0, len(ids), BATCH):
            some = {"$in": ids[first : first + BATCH]}
            await locks.delete_many(scoped({"job_id": some}))
            await self._jobs.delete_many(scoped({"_id": some}))
        return ids

    @operation
    async def list_lost_jobs(self) -> list[str]:
        """The ids of jobs whose runner is gone, which their lease shows."""
        query = {"status": {"$in": [RUNNING, NEEDS_RECOVERY]}, **self._is_lost()}
        found = await self._jobs.find(scoped(query), {"_id": 1}, batch_size=BATCH).to_list()
        return [document["_id"] for document in found]

    @mutation
    async def take_over_job(self, job_id: str) -> "JobUpdateStatus":
        """Let a job wait again whose runner is gone; of several servers one does it."""
        return _status(await self._moved(job_id, (RUNNING, NEEDS_RECOVERY), waiting(), self._is_lost()))

    def _is_lost(self) -> Document:
        portable = self.settings.portable
        unwatched = is_past("last_update_time", portable=portable, milliseconds=WITHOUT_LEASE_MILLISECONDS)
        return {
            "$or": [
                is_past("lease_expires_at", portable=portable),
                {"status": RUNNING, "lease_expires_at": None, **unwatched},
                {"status": NEEDS_RECOVERY},
            ]
        }

    def _is_due(self) -> Document:
        return {
            "$or": [
                {"next_attempt_at": None},
                is_past("next_attempt_at", portable=self.settings.portable),
            ]
        }

    async def _found(self, job_id: str) -> Document:
        return await entities.find(self._jobs, {"_id": job_id}, _unknown(job_id))

    async def _changed(self, job_id: str, change: Change, condition: Document) -> Document | None:
        """The job after the change; None if the condition does not hold."""
        whole = Change(
            {**change.values, "change": call_token()},
            {"last_update_time": 0, **change.times},
            change.counted,
            change.details,
        )
        found: Document | None = await self._jobs.find_one_and_update(
            scoped({"_id": job_id, **condition}),
            whole.update(portable=self.settings.portable),
            return_document=ReturnDocument.AFTER,
        )
        return found

    async def _moved(
        self, job_id: str, statuses: Iterable[str], change: Change, condition: Document | None = None
    ) -> tuple[bool, Document]:
        """Whether the job had one of the statuses and was changed, and what it is now."""
        condition = {"status": {"$in": list(statuses)}, **(condition or {})}
        changed = await self._changed(job_id, change, condition)
        if changed is not None:
            return True, changed
        found = await self._found(job_id)
        return is_repetition() and found.get("change") == call_token(), found

    async def _begun(
        self, job_id: str, status: str, seconds: float | None, condition: Document | None = None
    ) -> "JobUpdateStatus":
        moved = await self._moved(job_id, (status,), _run_for(seconds), condition)
        if moved[0]:
            self._claimed[job_id] = call_token()
        return _status(moved)

    async def _by_runner(
        self,
        job_id: str,
        action: str,
        statuses: tuple[str, ...],
        change: Change,
        condition: Document | None = None,
    ) -> Document:
        """End a run, unless another has taken it over."""
        done, found = await self._moved(job_id, statuses, change, {**(condition or {}), **self._own(job_id)})
        if not done:
            if self._has_lost(found) and found["status"] in statuses:
                raise invalid(
                    f"This run of job {job_id} cannot {action}: its lease ended, "
                    "and another server has taken the job over."
                )
            _refuse(found, action, statuses)
        self._forget(job_id)
        return found

    async def _must(
        self,
        job_id: str,
        action: str,
        statuses: tuple[str, ...],
        change: Change,
        condition: Document | None = None,
    ) -> Document:
        done, found = await self._moved(job_id, statuses, change, condition)
        if not done:
            _refuse(found, action, statuses)
        return found

    async def _tell(self, job_id: str, change: Change) -> None:
        from genesis_flow.compat.jobs import JobTerminalStateUpdateException

        done, found = await self._moved(job_id, LIVE, change, self._own(job_id))
        if not done:
            raise JobTerminalStateUpdateException(
                job_id, CANCELED if self._has_lost(found) else found["status"]
            )


def _unknown(job_id: str) -> entities.Refusal:
    return entities.unknown(f"Job with ID {job_id} not found")


def _refuse(job: Document, action: str, statuses: tuple[str, ...]) -> NoReturn:
    job_id, status = job["_id"], job["status"]
    if status in ENDED:
        raise invalid(f"The Job {job_id} is already finalized with status: {status}, it can't be updated.")
    raise invalid(f"Job {job_id} is in {status} state, cannot {action} (must be {', '.join(statuses)})")


def _status(moved: tuple[bool, Document]) -> "JobUpdateStatus":
    from genesis_flow.compat.jobs import JobUpdateStatus

    return JobUpdateStatus.APPLIED if moved[0] else JobUpdateStatus.WRONG_STATE


def _leased(seconds: float | None) -> Change:
    """A job runs, and is known to be alive for so long."""
    if seconds is None:
        return Change({"status": RUNNING, "lease_expires_at": None})
    if not math.isfinite(seconds) or seconds <= 0:
        raise invalid("`lease_duration` must be a finite positive number.")
    return Change({"status": RUNNING}, times={"lease_expires_at": seconds * 1000})


def _run_for(seconds: float | None) -> Change:
    """A run of a job begins."""
    leased = _leased(seconds)
    return Change({**leased.values, "claim": call_token()}, leased.times)


def _has(document: Document, params: dict[str, Any]) -> bool:
    given = json.loads(document["params"])
    return all(name in given and given[name] == value for name, value in params.items())


def _payload(status: str, result: str | None, error_message: str | None) -> str | None:
    """What is kept of a report."""
    if status == SUCCEEDED:
        if error_message is not None:
            raise invalid("Succeeded job results must leave `error_message` unset.")
        return result
    if status == FAILED:
        if error_message is None or result is not None:
            raise invalid("Failed job results must set `error_message` and leave `result` unset.")
        return error_message
    if status == TIMEOUT:
        if result is not None:
            raise invalid("Timed-out job results must leave `result` unset; `error_message` is optional.")
        return error_message
    if status != CANCELED:
        raise invalid("`report_job_result()` requires a terminal JobStatus.")
    return None
