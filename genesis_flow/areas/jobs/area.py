"""Background jobs. They are calls of the tracking store, whose connection a server has already."""

from genesis_flow.areas.jobs.documents import JobFields, JobLockFields, SchedulerLeaseFields
from genesis_flow.areas.jobs.locks import JobLocks
from genesis_flow.areas.jobs.methods import Jobs
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "jobs", documents=(JobFields, JobLockFields, SchedulerLeaseFields), tracking=(Jobs, JobLocks)
)
