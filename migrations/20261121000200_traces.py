"""Traces, spans and assessments.

Creates the collections traces, spans, span_payloads and assessments with the indexes below.

Every definition is frozen here: a later change of the models is a later migration.
"""

from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.migrate.base import BaseMigration

INDEXES = {
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
}


class Migration(BaseMigration):
    loses = "all traces, spans and assessments"
    compatible = True

    def upgrade(self):
        for name, indexes in INDEXES.items():
            self.create_collection(name)
            if indexes:
                self.collection(name).create_indexes(indexes)

    def downgrade(self):
        for name in reversed(INDEXES):
            self.collection(name).drop()
