"""Logged models and their metrics, evaluation datasets and their records, entity associations.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = {
    "logged_models": [
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("lifecycle_stage", ASCENDING),
                ("creation_timestamp", DESCENDING),
                ("_id", ASCENDING),
            ],
            name="by_creation_time",
        ),
        IndexModel([("source_run_id", ASCENDING)], name="by_run"),
        IndexModel([("params.$**", ASCENDING)], name="params"),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("lifecycle_stage", ASCENDING),
                ("last_updated_timestamp", ASCENDING),
            ],
            name="by_last_update",
        ),
    ],
    "logged_model_metrics": [
        IndexModel(
            [
                ("model_id", ASCENDING),
                ("key", ASCENDING),
                ("timestamp", DESCENDING),
                ("step", DESCENDING),
                ("run_id", ASCENDING),
            ],
            name="by_model",
        ),
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("key", ASCENDING),
                ("value", ASCENDING),
                ("model_id", ASCENDING),
            ],
            name="by_value",
        ),
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("dataset_name", ASCENDING),
                ("dataset_digest", ASCENDING),
                ("model_id", ASCENDING),
            ],
            name="by_dataset",
            partialFilterExpression={"dataset_name": {"$exists": True}},
        ),
    ],
    "evaluation_datasets": [
        IndexModel(
            [("workspace", ASCENDING), ("created_time", DESCENDING), ("_id", DESCENDING)],
            name="by_creation_time",
        ),
        IndexModel([("workspace", ASCENDING), ("name", ASCENDING), ("_id", DESCENDING)], name="by_name"),
        IndexModel(
            [("workspace", ASCENDING), ("last_update_time", DESCENDING), ("_id", DESCENDING)],
            name="by_last_update",
        ),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
    ],
    "evaluation_dataset_records": [
        IndexModel(
            [("dataset_id", ASCENDING), ("created_time", ASCENDING), ("record_id", ASCENDING)],
            name="by_creation_time",
        ),
    ],
    "entity_associations": [
        IndexModel(
            [
                ("source_type", ASCENDING),
                ("source_id", ASCENDING),
                ("destination_type", ASCENDING),
                ("created_time", ASCENDING),
                ("destination_id", ASCENDING),
                ("_id", ASCENDING),
            ],
            name="by_source",
        ),
        IndexModel(
            [
                ("destination_type", ASCENDING),
                ("destination_id", ASCENDING),
                ("source_type", ASCENDING),
                ("created_time", ASCENDING),
                ("source_id", ASCENDING),
                ("_id", ASCENDING),
            ],
            name="by_destination",
        ),
    ],
}


class Migration(BaseMigration):
    loses = "all logged models with their metrics, evaluation datasets with their records, and associations"
    compatible = True

    def upgrade(self):
        for name, indexes in INDEXES.items():
            self.create_collection(name)
            self.collection(name).create_indexes(indexes)

    def downgrade(self):
        for name in reversed(INDEXES):
            self.collection(name).drop()
