"""Sample: documents, one at a time."""

from genesis_flow.migrate.base import BaseMigration


class Migration(BaseMigration):
    loses = "the numbers"

    def upgrade(self):
        for number in range(6):
            self.collection("numbers").update_one({"_id": number}, {"$set": {"value": 1}}, upsert=True)

    def downgrade(self):
        self.collection("numbers").delete_many({})
