"""The audit trail: a collection that stays empty unless auditing is switched on.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = [
    IndexModel([("time", ASCENDING)], name="by_record_time"),
    IndexModel([("target.$**", ASCENDING)], name="by_target"),
]


class Migration(BaseMigration):
    loses = "the audit trail"
    compatible = True

    def upgrade(self):
        self.create_collection("audit")
        self.collection("audit").create_indexes(INDEXES)

    def downgrade(self):
        self.collection("audit").drop()
