"""Background jobs: the jobs, their locks, and the leases of servers.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

OLDEST_FIRST = [("creation_time", ASCENDING), ("_id", ASCENDING)]
COLLECTIONS = {
    "jobs": [
        IndexModel([("status", ASCENDING), ("workspace", ASCENDING), *OLDEST_FIRST], name="by_status"),
        IndexModel([("workspace", ASCENDING), ("job_name", ASCENDING), *OLDEST_FIRST], name="by_name"),
        IndexModel([("workspace", ASCENDING), *OLDEST_FIRST], name="by_creation_time"),
    ],
    "job_locks": [IndexModel([("job_id", ASCENDING)], name="by_job")],
    "scheduler_leases": [],
}


class Migration(BaseMigration):
    loses = "background jobs"
    compatible = True

    def upgrade(self):
        self.create_collections(COLLECTIONS)

    def downgrade(self):
        for name in COLLECTIONS:
            self.collection(name).drop()
