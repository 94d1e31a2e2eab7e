"""Label schemas: the questions that people answer about traces.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = [
    IndexModel([("experiment_id", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
    IndexModel(
        [("experiment_id", ASCENDING), ("created_time", DESCENDING), ("_id", ASCENDING)],
        name="by_creation_time",
    ),
]


class Migration(BaseMigration):
    loses = "label schemas"
    compatible = True

    def upgrade(self):
        self.create_collections({"label_schemas": INDEXES})

    def downgrade(self):
        self.collection("label_schemas").drop()
