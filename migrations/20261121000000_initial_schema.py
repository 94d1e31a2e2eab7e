"""Initial schema: experiments, runs, metrics, datasets, and the ad-hoc views over params and tags.

Creates the collections experiments, counters, runs, latest_metrics, metrics and datasets with the indexes
below, and the views params and tags.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = {
    "experiments": [
        IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("lifecycle_stage", ASCENDING),
                ("creation_time", DESCENDING),
                ("_id", ASCENDING),
            ],
            name="by_creation_time",
        ),
    ],
    "counters": [],
    "runs": [
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("lifecycle_stage", ASCENDING),
                ("start_time", DESCENDING),
                ("_id", ASCENDING),
            ],
            name="by_start_time",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("lifecycle_stage", ASCENDING),
                ("start_time", DESCENDING),
                ("_id", ASCENDING),
            ],
            name="by_workspace",
        ),
        IndexModel([("params.$**", ASCENDING)], name="params"),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
        IndexModel([("inputs.name", ASCENDING)], name="by_dataset"),
        IndexModel([("deleted_time", ASCENDING)], name="by_deleted_time"),
    ],
    "latest_metrics": [
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("key", ASCENDING),
                ("latest.value", ASCENDING),
                ("start_time", DESCENDING),
                ("run_uuid", ASCENDING),
            ],
            name="by_value",
        )
    ],
    "metrics": [],
    "datasets": [
        IndexModel(
            [("experiment_id", ASCENDING), ("name", ASCENDING), ("digest", ASCENDING)],
            name="name_digest_unique",
            unique=True,
        )
    ],
}


def _unescaped(expression):
    for escaped, plain in (("%24", "$"), ("%2E", "."), ("%25", "%")):
        expression = {
            "$replaceAll": {"input": expression, "find": escaped, "replacement": {"$literal": plain}}
        }
    return expression


def _key_value_view(field):
    return [
        {"$project": {"pair": {"$objectToArray": f"${field}"}}},
        {"$unwind": "$pair"},
        {
            "$project": {
                "_id": 0,
                "run_uuid": "$_id",
                "key": _unescaped("$pair.k"),
                "value": "$pair.v",
            }
        },
    ]


class Migration(BaseMigration):
    loses = "all experiments, runs, metrics and datasets"

    def upgrade(self):
        for name, indexes in INDEXES.items():
            self.create_collection(name)
            if indexes:
                self.collection(name).create_indexes(indexes)
        for field in ("params", "tags"):
            self.create_collection(field, viewOn=self.prefix + "runs", pipeline=_key_value_view(field))

    def downgrade(self):
        for name in ("params", "tags", *reversed(INDEXES)):
            self.collection(name).drop()
