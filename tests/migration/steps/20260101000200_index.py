"""Sample: an index of a collection that is there."""

from pymongo import ASCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration


class Migration(BaseMigration):
    loses = ""
    compatible = True

    def upgrade(self):
        self.collection("words").create_indexes([IndexModel([("length", ASCENDING)], name="by_length")])

    def downgrade(self):
        self.drop_index("words", "by_length")
