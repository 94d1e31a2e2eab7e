"""The tables of MLflow's SQL schema: which are read, which only repeat others, what belongs to what."""

# Read by this package.
READ = frozenset(
    {
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
        "workspaces",
        "job_locks",
        "scheduler_leases",
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
)

# With which kinds those are told that are no phase of their own.
PHASE_OF = {
    "metric": "run",
    "span": "trace",
    "assessment": "trace",
    "evaluation_record": "evaluation_dataset",
    "model_version": "registered_model",
}

# The table of each phase, and the column of its ids.
ROOTS = {
    "experiment": ("experiments", "experiment_id"),
    "dataset": ("datasets", "dataset_uuid"),
    "run": ("runs", "run_uuid"),
    "logged_model": ("logged_models", "model_id"),
    "trace": ("trace_info", "request_id"),
    "evaluation_dataset": ("evaluation_datasets", "dataset_id"),
    "registered_model": ("registered_models", "name"),
    "webhook": ("webhooks", "webhook_id"),
}
