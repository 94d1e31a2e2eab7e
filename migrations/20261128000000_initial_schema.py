"""Initial schema: every collection with its indexes, and the views params and tags for queries by hand.

It stands in place of the eight steps that led here before there was a release. A database that has all of
those has it; one that has some of them gets the rest by it.

Every definition is frozen here: a later change of the documents is a later step.
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
    "traces": [
        IndexModel(
            [("experiment_id", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
            name="by_time",
        ),
        IndexModel(
            [("workspace", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
            name="by_workspace",
        ),
        IndexModel(
            [("experiment_id", ASCENDING), ("session_id", ASCENDING), ("request_time", ASCENDING)],
            name="by_session",
            partialFilterExpression={"session_id": {"$exists": True}},
        ),
        IndexModel(
            [("source_run", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
            name="by_source_run",
            partialFilterExpression={"source_run": {"$exists": True}},
        ),
        IndexModel(
            [("linked_runs", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
            name="by_linked_run",
            partialFilterExpression={"linked_runs": {"$exists": True}},
        ),
        IndexModel([("linked_prompts", ASCENDING)], name="by_prompt", sparse=True),
        IndexModel([("tags.$**", ASCENDING)], name="tags"),
        IndexModel([("metadata.$**", ASCENDING)], name="metadata"),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("experiment_id", ASCENDING),
                ("request_time", ASCENDING),
                ("end_time", ASCENDING),
                ("status", ASCENDING),
                ("name", ASCENDING),
            ],
            name="metrics",
        ),
        IndexModel(
            [
                ("workspace", ASCENDING),
                ("experiment_id", ASCENDING),
                ("touched", ASCENDING),
                ("request_time", ASCENDING),
            ],
            name="touched",
            partialFilterExpression={"touched": {"$exists": True}},
        ),
    ],
    "spans": [
        IndexModel([("experiment_id", ASCENDING), ("trace_time", ASCENDING)], name="by_time"),
        IndexModel(
            [("experiment_id", ASCENDING), ("name", ASCENDING), ("trace_id", ASCENDING)], name="by_name"
        ),
        IndexModel(
            [("experiment_id", ASCENDING), ("type", ASCENDING), ("trace_id", ASCENDING)], name="by_type"
        ),
        IndexModel(
            [("experiment_id", ASCENDING), ("trace_id", ASCENDING)],
            name="errors",
            partialFilterExpression={"status": "ERROR"},
        ),
        IndexModel(
            [("experiment_id", ASCENDING), ("start_time", ASCENDING)],
            name="costs",
            partialFilterExpression={"cost": {"$exists": True}},
        ),
    ],
    "span_payloads": [],
    "assessments": [
        IndexModel(
            [("trace_id", ASCENDING), ("created_time", ASCENDING), ("_id", ASCENDING)], name="by_trace"
        ),
        IndexModel(
            [
                ("experiment_id", ASCENDING),
                ("kind", ASCENDING),
                ("name", ASCENDING),
                ("trace_id", ASCENDING),
            ],
            name="by_name",
        ),
        IndexModel(
            [("experiment_id", ASCENDING), ("kind", ASCENDING), ("name", ASCENDING)],
            name="of_sessions",
            partialFilterExpression={"of_session": True},
        ),
        IndexModel([("experiment_id", ASCENDING), ("trace_time", ASCENDING)], name="by_time"),
        IndexModel([("source_run", ASCENDING)], name="by_source_run", sparse=True),
    ],
    "trace_sums": [],
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
    "import_journals": [],
    "import_units": [],
    "import_items": [],
    "import_problems": [],
    "import_artifacts": [],
    "audit": [
        IndexModel([("time", ASCENDING)], name="by_record_time"),
        IndexModel([("target.$**", ASCENDING)], name="by_target"),
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
    loses = "all experiments, runs, models, traces, evaluation datasets, import journals and the audit trail"
    replaces = (
        "20261121000000",
        "20261121000100",
        "20261121000200",
        "20261121000300",
        "20261121000400",
        "20261121000500",
        "20261121000600",
        "20261121000700",
    )

    def upgrade(self):
        self.create_collections(INDEXES)
        for field in ("params", "tags"):
            self.create_collection(field, viewOn=self.prefix + "runs", pipeline=_key_value_view(field))

    def downgrade(self):
        for name in ("params", "tags", *reversed(INDEXES)):
            self.collection(name).drop()
