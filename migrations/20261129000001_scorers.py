"""Scorers, with their versions and their settings for online scoring.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = [
    IndexModel([("experiment_id", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
    IndexModel(
        [("online.sample_rate", ASCENDING)],
        name="by_sample_rate",
        partialFilterExpression={"online.sample_rate": {"$gt": 0}},
    ),
]


class Migration(BaseMigration):
    loses = "scorers"
    compatible = True

    def upgrade(self):
        self.create_collections({"scorers": INDEXES})

    def downgrade(self):
        self.collection("scorers").drop()
