"""Things of an SQL fixture that have all of their kind, several times: changes then go to many at once."""

import sqlite3

from tests.importing.registries import SKILL_TABLES, TOOL

COPIES = 6
# MCP servers have the most fields.
COPIES_OF_SERVERS = 18
_RUN = "(SELECT run_uuid FROM runs WHERE name = 'run finished')"
_MODEL = "(SELECT model_id FROM logged_models WHERE name = 'model-0')"
_TRACES = f"('tr-{4096:032x}', 'tr-{8192:032x}')"
_QUESTIONS = "(SELECT dataset_id FROM evaluation_datasets WHERE name = 'questions ü')"
_HOOKS = "(SELECT webhook_id FROM webhooks WHERE name IN ('hook.1', 'secret'))"
_INPUTS = f"(SELECT input_uuid FROM inputs WHERE destination_id = {_RUN})"
_CLASSIFIER = "name = 'Classifier ü'"
# Tables, which of their rows, and the columns that get other values.
COPIED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "input_tags",
        f"input_uuid IN {_INPUTS}",
        ("input_uuid",),
    ),
    ("inputs", f"destination_id = {_RUN}", ("input_uuid", "destination_id")),
    ("inputs", f"source_type LIKE 'RUN_%' AND source_id = {_RUN}", ("input_uuid", "source_id")),
    *(
        (table, f"run_uuid = {_RUN}", ("run_uuid",))
        for table in ("params", "tags", "metrics", "latest_metrics")
    ),
    ("runs", f"run_uuid = {_RUN}", ("run_uuid",)),
    *((table, "key = 'long'", ("key",)) for table in ("metrics", "latest_metrics")),
    ("datasets", "digest = 'abc1' AND experiment_id = 1", ("dataset_uuid", "digest")),
    *(
        (table, f"model_id = {_MODEL}", ("model_id",))
        for table in ("logged_model_params", "logged_model_tags", "logged_model_metrics", "logged_models")
    ),
    *(
        (table, f"request_id IN {_TRACES}", ("request_id",))
        for table in ("trace_tags", "trace_request_metadata", "trace_info")
    ),
    ("spans", f"trace_id IN {_TRACES}", ("trace_id",)),
    ("assessments", f"trace_id IN {_TRACES}", ("assessment_id", "trace_id")),
    ("entity_associations", f"source_id IN {_TRACES}", ("association_id", "source_id")),
    ("entity_associations", f"source_id = {_QUESTIONS}", ("association_id", "source_id")),
    ("evaluation_dataset_records", f"dataset_id = {_QUESTIONS}", ("dataset_record_id", "dataset_id")),
    *(
        (table, f"dataset_id = {_QUESTIONS}", ("dataset_id",))
        for table in ("evaluation_dataset_tags", "evaluation_datasets")
    ),
    *(
        (table, _CLASSIFIER, ("name",))
        for table in (
            "registered_model_tags",
            "registered_model_aliases",
            "model_version_tags",
            "model_versions",
            "registered_models",
        )
    ),
    *(
        (table, "queue_id IN (SELECT queue_id FROM review_queues WHERE name <> 'empty')", own)
        for table, own in (
            ("review_queue_users", ("queue_id",)),
            ("review_queue_label_schemas", ("queue_id",)),
            ("review_queue_items", ("queue_id",)),
            ("review_queues", ("queue_id", "name_key")),
        )
    ),
    ("label_schemas", "1", ("schema_id", "name")),
    ("issues", "1", ("issue_id",)),
    ("endpoint_bindings", "display_name IS NOT NULL", ("resource_id",)),
    ("endpoint_bindings", "display_name IS NULL", ("endpoint_id",)),
    *(
        (table, "1", own)
        for table, own in (
            ("endpoint_tags", ("endpoint_id",)),
            ("guardrail_configs", ("endpoint_id",)),
            ("endpoint_model_mappings", ("endpoint_id", "mapping_id")),
            ("endpoints", ("endpoint_id", "name")),
            ("guardrails", ("guardrail_id",)),
            ("model_definitions", ("model_definition_id", "name")),
            ("secrets", ("secret_id", "secret_name")),
            ("budget_policies", ("budget_policy_id",)),
        )
    ),
    *(
        (table, f"name = '{TOOL}'", ("name",))
        for table in (
            *("mcp_server_tags", "mcp_server_version_tags", "mcp_server_aliases"),
            *("mcp_server_versions", "mcp_servers"),
        )
    ),
    ("mcp_access_endpoints", f"server_name = '{TOOL}'", ("id", "server_name")),
    *((table, "name = 'pdf'", ("name",)) for table in SKILL_TABLES),
    ("online_scoring_configs", "1", ("online_scoring_config_id", "scorer_id")),
    ("scorer_versions", "1", ("scorer_id",)),
    ("scorers", "1", ("scorer_id", "scorer_name")),
    *((table, f"webhook_id IN {_HOOKS}", ("webhook_id",)) for table in ("webhook_events", "webhooks")),
)


def copy_all(path: str) -> None:
    with sqlite3.connect(path) as connection:
        for table, which, own in COPIED:
            _copy(connection, table, which, own)
    connection.close()


def _copy(connection: sqlite3.Connection, table: str, which: str, own: tuple[str, ...]) -> None:
    """Rows once more for each copy, with other ids."""
    names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    copies = []
    for copy in range(COPIES_OF_SERVERS if table.startswith("mcp_") else COPIES):
        values = ", ".join(f"{name} || '-{copy}'" if name in own else name for name in names)
        copies.append(f"SELECT {values} FROM {table} WHERE {which}")
    connection.execute(f"CREATE TEMP TABLE copies AS {' UNION ALL '.join(copies)}")
    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT * FROM copies")
    connection.execute("DROP TABLE copies")
