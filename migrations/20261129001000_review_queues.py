"""Review queues and their items: which traces people shall look at, and what came of it.

Every definition is frozen here: a later change of the documents is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

PAGE_ORDER = [("created_time", DESCENDING), ("_id", ASCENDING)]
QUEUES = [
    IndexModel([("experiment_id", ASCENDING), ("name_key", ASCENDING)], name="name_unique", unique=True),
    IndexModel([("experiment_id", ASCENDING), *PAGE_ORDER], name="by_creation_time"),
    IndexModel([("experiment_id", ASCENDING), ("users", ASCENDING), *PAGE_ORDER], name="by_user"),
]
ITEMS = [
    IndexModel([("queue_id", ASCENDING), *PAGE_ORDER], name="by_queue"),
    IndexModel([("queue_id", ASCENDING), ("status", ASCENDING), *PAGE_ORDER], name="by_status"),
    IndexModel([("item_id", ASCENDING)], name="by_item"),
    IndexModel([("experiment_id", ASCENDING)], name="by_experiment"),
]


class Migration(BaseMigration):
    loses = "review queues"
    compatible = True

    def upgrade(self):
        self.create_collections({"review_queues": QUEUES, "review_queue_items": ITEMS})

    def downgrade(self):
        self.collection("review_queue_items").drop()
        self.collection("review_queues").drop()
