"""Model registry: registered models, model versions, webhooks.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = {
    "registered_models": [
        IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
        IndexModel(
            [("workspace", ASCENDING), ("is_prompt", ASCENDING), ("name", ASCENDING)],
            name="by_name",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("is_prompt", ASCENDING),
                ("last_updated_time", DESCENDING),
                ("name", ASCENDING),
            ],
            name="by_update",
        ),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
    ],
    "model_versions": [
        IndexModel(
            [("workspace", ASCENDING), ("name", ASCENDING), ("version", DESCENDING)],
            name="by_name",
        ),
        IndexModel(
            [("workspace", ASCENDING), ("name", ASCENDING), ("aliases", ASCENDING)],
            name="by_alias",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("is_prompt", ASCENDING),
                ("last_updated_time", DESCENDING),
                ("name", ASCENDING),
                ("version", DESCENDING),
            ],
            name="by_update",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("is_prompt", ASCENDING),
                ("name", ASCENDING),
                ("version", DESCENDING),
            ],
            name="by_kind_and_name",
        ),
        IndexModel([("workspace", ASCENDING), ("run_id", ASCENDING)], name="by_run"),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
    ],
    "webhooks": [
        IndexModel(
            [("workspace", ASCENDING), ("creation_time", DESCENDING), ("_id", ASCENDING)],
            name="by_creation_time",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("events", ASCENDING),
                ("creation_time", DESCENDING),
                ("_id", ASCENDING),
            ],
            name="by_event",
        ),
    ],
}


class Migration(BaseMigration):
    loses = "all registered models, model versions, prompts and webhooks"
    compatible = True

    def upgrade(self):
        for name, indexes in INDEXES.items():
            self.create_collection(name)
            self.collection(name).create_indexes(indexes)

    def downgrade(self):
        for name in reversed(INDEXES):
            self.collection(name).drop()
