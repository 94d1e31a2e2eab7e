"""Sample: a change of documents, in batches."""

from genesis_flow.migrate.base import BaseMigration


class Migration(BaseMigration):
    loses = ""

    def upgrade(self):
        for batch in self.batches("numbers"):
            ids = [document["_id"] for document in batch]
            self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$set": {"doubled": 2}})

    def downgrade(self):
        for batch in self.batches("numbers"):
            ids = [document["_id"] for document in batch]
            self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$unset": {"doubled": ""}})
