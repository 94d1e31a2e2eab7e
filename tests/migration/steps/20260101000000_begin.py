"""Sample: collections with and without indexes, and a view."""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = {
    "experiments": [IndexModel([("name", ASCENDING)], name="name_unique", unique=True)],
    "numbers": [],
}


class Migration(BaseMigration):
    loses = "experiments and numbers"

    def upgrade(self):
        self.create_collections(INDEXES)
        self.create_collection(
            "values", viewOn=self.prefix + "numbers", pipeline=[{"$project": {"value": 1}}]
        )

    def downgrade(self):
        for name in ("values", *reversed(INDEXES)):
            self.collection(name).drop()
