"""Sample: another collection, made by the single calls that a step may also make."""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = [
    IndexModel([("word", ASCENDING)], name="by_word"),
    IndexModel([("tags.$**", ASCENDING)], name="tags"),
]


class Migration(BaseMigration):
    loses = "words"
    compatible = True

    def upgrade(self):
        self.create_collection("words")
        self.collection("words").create_indexes(INDEXES)

    def downgrade(self):
        self.collection("words").drop()
