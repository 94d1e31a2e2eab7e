"""Background jobs: what is stored of them.

One document for each job. Its status is a word, and whatever belongs to a status only (the lease of a run,
the time of the next attempt, the progress) is a field that is there in that status only.
"""

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pymongo import ASCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import unescape

if TYPE_CHECKING:
    from genesis_flow.compat.jobs import Job

OLDEST_FIRST = [("creation_time", ASCENDING), ("_id", ASCENDING)]


class JobFields(Declared):
    """Work that a server does in the background, and how far it is."""

    id: str = Field(alias="_id", description="A UUID.")
    workspace: str = Field(description="Workspace; every query names it.")
    job_name: str = Field(description="Which function it calls.")
    params: str = Field(description="The function's arguments, as JSON.")
    status: str = Field(
        description="`PENDING`, `RUNNING`, `NEEDS_RECOVERY`, `SUCCEEDED`, `FAILED`, `TIMEOUT` or `CANCELED`."
    )
    retry_count: int = Field(description="How often it was tried again.")
    creation_time: int = Field(description="When it was made, by the clock of the database.")
    last_update_time: int = Field(description="When it last changed, by the clock of the database.")
    timeout: float | None = Field(default=None, description="How many seconds it may run.")
    creator: str | None = Field(default=None, description="The user who was logged in and made it.")
    executor_backend: str | None = Field(default=None, description="What runs it, if that was chosen.")
    result: str | None = Field(default=None, description="What it returned, as JSON, or its error.")
    lease_expires_at: int | None = Field(
        default=None, description="Until when a running job is known to be alive; then others take it over."
    )
    claim: str | None = Field(
        default=None, description="Which run of it this is: one whose lease was taken over changes no other."
    )
    next_attempt_at: int | None = Field(default=None, description="Before this it is not tried again.")
    status_message: str | None = Field(default=None, description="What a running job says of itself.")
    progress: dict[str, Any] | None = Field(
        default=None, description="How far it is: `phase`, `completed`, `total`, `unit`."
    )
    progress_updated_at: int | None = Field(default=None, description="When it last said so.")
    status_details: dict[str, str] | None = Field(
        default=None, description="What it tells of its steps: JSON by escaped key."
    )
    change: str | None = Field(
        default=None,
        description="The call that changed it last, which knows its change if it is repeated.",
    )

    class Settings(CollectionSettings):
        name = "jobs"
        indexes = [
            Index(
                [("status", ASCENDING), ("workspace", ASCENDING), *OLDEST_FIRST],
                name="by_status",
                serves="The jobs that wait, each second; those that run, for their leases.",
            ),
            Index(
                [("workspace", ASCENDING), ("job_name", ASCENDING), *OLDEST_FIRST],
                name="by_name",
                serves="The jobs of a kind, oldest first.",
            ),
            Index(
                [("workspace", ASCENDING), *OLDEST_FIRST],
                name="by_creation_time",
                serves="All jobs, oldest first.",
            ),
        ]
        keep_nulls = False


class JobLockFields(Declared):
    """A key that one running job has for itself."""

    id: str = Field(alias="_id", description="The key: the job's kind and a hash of its arguments.")
    workspace: str = Field(description="Workspace of the job.")
    job_id: str = Field(description="The job that has it.")
    acquired_at: int = Field(description="Since when, by the clock of the database.")

    class Settings(CollectionSettings):
        name = "job_locks"
        indexes = [
            Index([("job_id", ASCENDING)], name="by_job", serves="The locks of jobs that are deleted.")
        ]
        refers = {"job_id": "jobs"}
        goes_with = {"job_id": "jobs"}


class SchedulerLeaseFields(Declared):
    """What one of several servers does for all of them, and until when it is that one's."""

    id: str = Field(alias="_id", description="The task.")
    acquired_at: int = Field(description="Since when, by the clock of the database.")
    ttl_seconds: int = Field(description="For how long.")
    expires_at: int = Field(description="Until when.")
    holder: str = Field(description="The call that took it, which knows it again if it is repeated.")

    class Settings(CollectionSettings):
        name = "scheduler_leases"


def job_entity(document: dict[str, Any]) -> "Job":
    # Imported here: a client that logs metrics does not need it.
    from genesis_flow.compat.jobs import Job, JobStatus

    details = document.get("status_details")
    times: dict[str, Any] = {
        name: None if document.get(name) is None else int(document[name])
        for name in ("lease_expires_at", "progress_updated_at")
    }
    return Job(  # type: ignore[abstract]  # MLflow's class is none
        job_id=document["_id"],
        creation_time=int(document["creation_time"]),
        job_name=document["job_name"],
        params=document["params"],
        timeout=document.get("timeout"),
        status=JobStatus.from_str(document["status"]),
        result=document.get("result"),
        retry_count=int(document["retry_count"]),
        last_update_time=int(document["last_update_time"]),
        workspace=document["workspace"],
        executor_backend=document.get("executor_backend"),
        status_message=document.get("status_message"),
        progress=document.get("progress"),
        **times,
        status_details=details
        if details is None
        else {unescape(key): json.loads(value) for key, value in details.items()},
        creator=document.get("creator"),
    )
