"""The tables of MLflow's SQL schema: which are read, which only repeat others, what belongs to what.

A table that is in none of the lists is counted as one that the target has no place for; a test goes over
those of the installed MLflow.
"""

from genesis_flow.importers.kinds import KINDS, OWNED, PLAIN

# The tables of parts of plain kinds, with the kind.
PARTS = tuple((kind, rows) for kind in PLAIN.values() for rows in kind.rows)
_KIND_OF = {rows.table: kind.name for kind, rows in PARTS} | {
    kind.table: kind.name for kind in PLAIN.values()
}

# Read by this package.
READ = frozenset(
    {
        *(kind.table for kind in PLAIN.values()),
        *(rows.table for _, rows in PARTS),
        "experiments",
        "experiment_tags",
        "runs",
        "params",
        "tags",
        "metrics",
        "latest_metrics",
        "datasets",
        "inputs",
        "input_tags",
        "logged_models",
        "logged_model_params",
        "logged_model_tags",
        "logged_model_metrics",
        "trace_info",
        "trace_tags",
        "trace_request_metadata",
        "spans",
        "assessments",
        "entity_associations",
        "evaluation_datasets",
        "evaluation_dataset_tags",
        "evaluation_dataset_records",
        "registered_models",
        "registered_model_tags",
        "registered_model_aliases",
        "model_versions",
        "model_version_tags",
        "webhooks",
        "webhook_events",
    }
)

# Bookkeeping, and what is computed from tables that are read.
DERIVED = frozenset(
    {
        "alembic_version",
        "alembic_version_auth",
        "trace_metrics",
        "span_metrics",
        "sql_trace_metric_daily_rollups",
        "sql_span_cost_daily_rollups",
        "sql_assessment_daily_rollups",
        "sql_trace_rollup_rebuild_queue",
        "job_locks",
        "scheduler_leases",
        "issue_categories",
    }
)

# What the target has no place for: the rows are counted, and the import is not complete with them.
NOT_YET = frozenset(
    {
        "jobs",
        "workspaces",  # but for the one that every database has
    }
)

# A child's table and columns, the parent's, and the kind that a child counts as. A child without its parent
# is reported, since nothing leads to it.
PARENTS: tuple[tuple[str, tuple[str, ...], str, tuple[str, ...], str], ...] = (
    ("experiment_tags", ("experiment_id",), "experiments", ("experiment_id",), "experiment"),
    ("params", ("run_uuid",), "runs", ("run_uuid",), "run"),
    ("tags", ("run_uuid",), "runs", ("run_uuid",), "run"),
    ("metrics", ("run_uuid",), "runs", ("run_uuid",), "metric"),
    ("latest_metrics", ("run_uuid",), "runs", ("run_uuid",), "metric"),
    ("input_tags", ("input_uuid",), "inputs", ("input_uuid",), "run"),
    ("logged_model_params", ("model_id",), "logged_models", ("model_id",), "logged_model"),
    ("logged_model_tags", ("model_id",), "logged_models", ("model_id",), "logged_model"),
    ("logged_model_metrics", ("model_id",), "logged_models", ("model_id",), "logged_model"),
    ("trace_tags", ("request_id",), "trace_info", ("request_id",), "trace"),
    ("trace_request_metadata", ("request_id",), "trace_info", ("request_id",), "trace"),
    ("spans", ("trace_id",), "trace_info", ("request_id",), "span"),
    ("assessments", ("trace_id",), "trace_info", ("request_id",), "assessment"),
    (
        "evaluation_dataset_tags",
        ("dataset_id",),
        "evaluation_datasets",
        ("dataset_id",),
        "evaluation_dataset",
    ),
    (
        "evaluation_dataset_records",
        ("dataset_id",),
        "evaluation_datasets",
        ("dataset_id",),
        "evaluation_record",
    ),
    ("registered_model_tags", ("name",), "registered_models", ("name",), "registered_model"),
    ("registered_model_aliases", ("name",), "registered_models", ("name",), "registered_model"),
    ("model_versions", ("name",), "registered_models", ("name",), "model_version"),
    ("model_version_tags", ("name", "version"), "model_versions", ("name", "version"), "model_version"),
    ("webhook_events", ("webhook_id",), "webhooks", ("webhook_id",), "webhook"),
    *(
        (table, columns, owner, key, _KIND_OF[table])
        for owner, owned in OWNED.items()
        for table, (columns, key) in owned.items()
    ),
)

# The same for tables whose rows belong to things of several kinds: the child's table and key, what its rows
# must say to belong to this parent, the parent's table and key, and the kind.
LINKS: tuple[tuple[str, str, dict[str, tuple[str, ...]], str, str, str], ...] = (
    ("inputs", "destination_id", {"destination_type": ("RUN",)}, "runs", "run_uuid", "run"),
    ("inputs", "source_id", {"source_type": ("RUN_INPUT", "RUN_OUTPUT")}, "runs", "run_uuid", "run"),
    (
        "entity_associations",
        "source_id",
        {"source_type": ("trace",), "destination_type": ("run", "prompt_version")},
        "trace_info",
        "request_id",
        "trace",
    ),
    (
        "entity_associations",
        "source_id",
        {"source_type": ("evaluation_dataset",)},
        "evaluation_datasets",
        "dataset_id",
        "evaluation_dataset",
    ),
)

# With which kinds those are told that are no phase of their own.
PHASE_OF = {"metric": "run"} | {kind.name: kind.within for kind in KINDS if kind.within}

# The table of each phase, and the column of its ids.
ROOTS = {kind.name: (kind.table, kind.key[-1]) for kind in KINDS if not kind.within}
