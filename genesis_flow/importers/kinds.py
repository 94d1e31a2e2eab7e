"""What can be imported: one table, from which readers, writers, the comparison and the rollback draw.

Every kind has its place in it: its collection, its table in MLflow's SQL schema, what belongs to it. A
*plain* kind says all there is to say of it, column by column: it needs no code of its own but for what is
derived. The comparison reads both sides by this table with code of its own (``verify/plain.py``).
"""

from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
)
from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.issues.documents import IssueFields, issue_entity, keys_of, rank_of
from genesis_flow.areas.judges.documents import ScorerFields
from genesis_flow.areas.judges.texts import endpoint_in, parsed
from genesis_flow.areas.labels.documents import LabelSchemaFields, label_schema_entity
from genesis_flow.areas.logged_models.documents import LoggedModelFields
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.reviews.documents import (
    ReviewQueueFields,
    ReviewQueueItemFields,
    item_entity,
    queue_entity,
)
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, TraceFields
from genesis_flow.areas.webhooks.documents import WebhookFields
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.importers.gateway_kinds import BINDING_OF_SCORER, GATEWAY
from genesis_flow.importers.kind import Child, Kind, Rows, columns
from genesis_flow.importers.registry_kinds import REGISTRIES


def _derive_issue(issue: Document) -> None:
    issue["name_lower"] = issue["name"].lower()
    issue["rank"] = rank_of(issue.get("severity"))
    issue["category_keys"] = keys_of(issue.get("categories") or [])
    issue.setdefault("last_seen", issue["created_time"])
    if "metadata" in issue:
        issue["metadata"] = {escape(key): value for key, value in issue["metadata"].items()}


def _derive_webhook(webhook: Document) -> None:
    webhook.setdefault("last_updated_time", webhook["creation_time"])


def _check_scorer(scorer: Document) -> None:
    for version in scorer["versions"]:
        endpoint_in(parsed(version["text"]))


_TAG = columns("key T, value t")

KINDS = (
    # In all bodies experiments are named by text.
    Kind(
        name="experiment",
        declared=ExperimentFields,
        table="experiments",
        key=("experiment_id",),
        own=True,
        of_experiment=False,
        columns=columns(
            "experiment_id I, name T, artifact_location t, lifecycle_stage t",
            "creation_time i, last_update_time i",
        ),
        rows=(Rows("tags", "experiment_tags", ("experiment_id",), _TAG, "map"),),
    ),
    # Whether runs used it or not. ``contexts``: the values of the tag mlflow.data.context under which they
    # did (None: without one); may be empty, since the inputs of runs add theirs.
    Kind(
        name="dataset",
        declared=DatasetFields,
        table="datasets",
        key=("dataset_uuid",),
        own=True,
        columns=columns(
            "name T, digest T, dataset_source_type t source_type, dataset_source t source",
            "dataset_schema t schema, dataset_profile t profile",
        ),
        more=("contexts",),
    ),
    # ``status``: RUNNING, FINISHED …; ``model_inputs``: [model_id]; ``model_outputs``: [[model_id, step]];
    # ``inputs``: [{name, digest, tags: [[key, value]]}], whose datasets are records of their own, in this
    # unit or another. The points of its metrics follow as series.
    Kind(
        name="run",
        declared=RunFields,
        table="runs",
        key=("run_uuid",),
        own=True,
        columns=columns(
            "run_uuid T run_id, name t, user_id t, status T, start_time i, end_time i, lifecycle_stage t",
            "deleted_time i, artifact_uri t",
        ),
        rows=(
            Rows("params", "params", ("run_uuid",), _TAG, "map"),
            Rows("tags", "tags", ("run_uuid",), _TAG, "map"),
        ),
        more=("inputs", "model_inputs", "model_outputs"),
        # Points of models that a run logged go with the models.
        children=(Child("metrics"), Child("latest_metrics")),
        used_by=(("issues", "source_run"),),
    ),
    # ``status``: MLflow's number.
    Kind(
        name="logged_model",
        declared=LoggedModelFields,
        table="logged_models",
        key=("model_id",),
        own=True,
        columns=columns(
            "model_id T, name T, artifact_location T, creation_timestamp_ms I creation_timestamp",
            "last_updated_timestamp_ms I last_updated_timestamp, status I, status_message t",
            "lifecycle_stage t, model_type t, source_run_id t",
        ),
        rows=(
            Rows(
                "params", "logged_model_params", ("model_id",), columns("param_key T, param_value t"), "map"
            ),
            Rows("tags", "logged_model_tags", ("model_id",), columns("tag_key T, tag_value t"), "map"),
            Rows(
                "metrics",
                "logged_model_metrics",
                ("model_id",),
                columns(
                    "run_id T, metric_name T key, metric_value r value, metric_timestamp_ms I timestamp",
                    "metric_step I step, dataset_name t, dataset_digest t",
                ),
                "list",
                order=("metric_name", "metric_timestamp_ms", "metric_step", "run_id"),
            ),
        ),
        children=(Child("logged_model_metrics", "model_id"),),
    ),
    # ``state``: OK, ERROR …; ``linked_runs``: [run_id]; ``linked_prompts``: ["name/version"].
    Kind(
        name="trace",
        declared=TraceFields,
        table="trace_info",
        key=("request_id",),
        own=True,
        columns=columns(
            "request_id T trace_id, timestamp_ms I request_time, execution_time_ms i execution_duration",
            "status T state, client_request_id t, request_preview t, response_preview t",
        ),
        rows=(
            Rows("tags", "trace_tags", ("request_id",), _TAG, "map"),
            Rows("metadata", "trace_request_metadata", ("request_id",), _TAG, "map"),
        ),
        more=("linked_runs", "linked_prompts"),
        children=(Child("span_payloads"), Child("spans"), Child("assessments", "trace_id")),
        used_by=(("review_queue_items", "item_id"),),
    ),
    # ``content``: the JSON text of Span.to_dict(), None where it has gone to an archive. ``model_name``,
    # ``model_provider``, ``cost`` ({input_cost, …}): what the source knows beside the content.
    Kind(
        name="span",
        declared=SpanFields,
        table="spans",
        key=("trace_id", "span_id"),
        within="trace",
        parent="trace_id",
        own=True,
        of_experiment=False,
        columns=columns(
            "trace_id T, span_id T, parent_span_id t, name t, type t, status T, start_time_unix_nano I",
            "end_time_unix_nano i, content t, model_name t, model_provider t",
        ),
        more=("cost",),
    ),
    # ``value``, ``error``, ``metadata``: JSON text.
    Kind(
        name="assessment",
        declared=AssessmentFields,
        table="assessments",
        key=("assessment_id",),
        within="trace",
        parent="trace_id",
        own=True,
        of_experiment=False,
        columns=columns(
            "assessment_id T, trace_id T, name T, assessment_type T kind, value T, error t",
            "created_timestamp I create_time, last_updated_timestamp I last_update_time, source_type T",
            "source_id t, run_id t, span_id t, rationale t, overrides t, valid b",
            "assessment_metadata t metadata",
        ),
    ),
    # ``schema``, ``profile``: JSON text.
    Kind(
        name="evaluation_dataset",
        declared=EvaluationDatasetFields,
        table="evaluation_datasets",
        key=("dataset_id",),
        own=True,
        of_experiment=False,
        columns=columns(
            "dataset_id T, name T, digest t, schema t, profile t, created_time i, last_update_time i",
            "created_by t, last_updated_by t",
        ),
        rows=(Rows("tags", "evaluation_dataset_tags", ("dataset_id",), _TAG, "map"),),
        children=(
            Child("evaluation_dataset_records"),
            Child("entity_associations", "source_id", (("source_type", "evaluation_dataset"),)),
        ),
    ),
    # ``inputs``, ``outputs``, ``expectations``, ``tags``, ``source``: JSON text.
    Kind(
        name="evaluation_record",
        declared=DatasetRecordFields,
        table="evaluation_dataset_records",
        key=("dataset_record_id",),
        within="evaluation_dataset",
        parent="dataset_id",
        own=True,
        of_experiment=False,
        columns=columns(
            "dataset_record_id T record_id, dataset_id T, inputs T, outputs t, expectations t, tags t",
            "source t, source_id t, source_type t, created_time i, last_update_time i, created_by t",
            "last_updated_by t",
        ),
    ),
    Kind(
        name="entity_association",
        declared=EntityAssociationFields,
        table="entity_associations",
        key=("association_id",),
        within="evaluation_dataset",
        own=True,
        of_experiment=False,
        columns=columns(
            "source_type T, source_id T, destination_type T, destination_id T, created_time i",
        ),
    ),
    *GATEWAY,
    Kind(
        name="label_schema",
        declared=LabelSchemaFields,
        table="label_schemas",
        key=("schema_id",),
        columns=columns(
            "name T",
            "type T",
            "input_type T",
            "input_config J input",
            "instruction t",
            "enable_comment b",
            "is_default b",
            "created_by t",
            "created_time I",
            "last_update_time I",
        ),
        unique="name",
        check=label_schema_entity,
        used_by=(("review_queues", "schema_ids"),),
    ),
    Kind(
        name="review_queue",
        declared=ReviewQueueFields,
        table="review_queues",
        key=("queue_id",),
        columns=columns(
            "name T",
            "name_key T",
            "queue_type T type",
            "created_by t",
            "creation_time_ms I created_time",
            "last_update_time_ms I last_update_time",
        ),
        rows=(
            Rows("users", "review_queue_users", ("queue_id",), columns("user_id T"), "values"),
            Rows("schema_ids", "review_queue_label_schemas", ("queue_id",), columns("schema_id T"), "values"),
        ),
        counters=("additions",),
        unique="name_key",
        check=queue_entity,
        children=(Child("review_queue_items"),),
    ),
    Kind(
        name="review_queue_item",
        declared=ReviewQueueItemFields,
        table="review_queue_items",
        key=("queue_id", "item_id"),
        within="review_queue",
        parent="queue_id",
        columns=columns(
            "queue_id T",
            "item_id T",
            "item_type T",
            "status T",
            "completed_by t",
            "completed_time_ms i completed_time",
            "creation_time_ms I created_time",
            "last_update_time_ms I last_update_time",
        ),
        check=item_entity,
    ),
    Kind(
        name="issue",
        declared=IssueFields,
        table="issues",
        key=("issue_id",),
        columns=columns(
            "name T",
            "description T",
            "status T",
            "severity t",
            "root_causes j",
            "source_run_id t source_run",
            "categories j",
            "metadata m",
            "created_by t",
            "created_timestamp I created_time",
            "last_updated_by t",
            "last_updated_timestamp I last_update_time",
            "last_seen_timestamp i last_seen",
        ),
        times=("created_timestamp", "last_updated_timestamp"),
        derive=_derive_issue,
        check=issue_entity,
    ),
    Kind(
        name="scorer",
        declared=ScorerFields,
        table="scorers",
        key=("scorer_id",),
        columns=columns("scorer_name T name"),
        rows=(
            Rows(
                "versions",
                "scorer_versions",
                ("scorer_id",),
                columns("scorer_version I version", "serialized_scorer T text", "creation_time I"),
                "list",
                # The call that registered it: nobody repeats one of another store.
                constants=(("call", "import"),),
            ),
            BINDING_OF_SCORER,
            Rows(
                "online",
                "online_scoring_configs",
                ("scorer_id",),
                columns("online_scoring_config_id T id", "sample_rate R", "filter_string t"),
                "one",
            ),
        ),
        unique="name",
        check=_check_scorer,
    ),
    # Prompts are registered models with MLflow's tag. ``stages``: {version: stage} of the versions that have
    # one; ``last_version``: the highest number given out, to deleted versions too where the source knows it.
    Kind(
        name="registered_model",
        declared=RegisteredModelFields,
        table="registered_models",
        key=("name",),
        own=True,
        of_experiment=False,
        columns=columns("name T, description t, creation_time i, last_updated_time i"),
        rows=(
            Rows("tags", "registered_model_tags", ("name",), _TAG, "map"),
            Rows("aliases", "registered_model_aliases", ("name",), columns("alias T, version I"), "map"),
        ),
        more=("stages", "last_version"),
    ),
    Kind(
        name="model_version",
        declared=ModelVersionFields,
        table="model_versions",
        key=("name", "version"),
        within="registered_model",
        parent="name",
        is_root=True,
        own=True,
        of_experiment=False,
        columns=columns(
            "name T, version I, creation_time i, last_updated_time i, description t, user_id t, source t",
            "storage_location t, run_id t, run_link t, status t, status_message t",
        ),
        rows=(Rows("tags", "model_version_tags", ("name", "version"), _TAG, "map"),),
        # SQL has no column for the logged model that was registered.
        more=("model_id",),
    ),
    *REGISTRIES,
    Kind(
        name="webhook",
        declared=WebhookFields,
        table="webhooks",
        key=("webhook_id",),
        of_experiment=False,
        gone="deleted_timestamp",
        columns=columns(
            "name T, url T, description t, status T, secret x",
            "creation_timestamp i creation_time, last_updated_timestamp i last_updated_time",
        ),
        rows=(Rows("events", "webhook_events", ("webhook_id",), columns("entity T, action T"), "values"),),
        derive=_derive_webhook,
    ),
)

KIND = {kind.name: kind for kind in KINDS}
PLAIN = {kind.name: kind for kind in KINDS if not kind.own}
# The order in which units are read. What belongs to an experiment comes behind the experiments.
PHASES = tuple(kind.name for kind in KINDS if not kind.within)
# What belongs to the roots of a collection.
CHILDREN = {kind.collection: kind.children for kind in KINDS if kind.children}
# The collections of roots, and what contains others before what is in it.
ROOT_COLLECTIONS = tuple(kind.collection for kind in KINDS if not kind.within or kind.is_root)


def within(name: str) -> tuple[Kind, ...]:
    """The plain kinds that are read in the units of a kind."""
    return tuple(kind for kind in PLAIN.values() if kind.within == name)


Owned = dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]


def _owned() -> Owned:
    of_run = ("run_uuid",), ("run_uuid",)
    owned: Owned = {
        "runs": {"metrics": of_run, "latest_metrics": of_run},
        "inputs": {"input_tags": (("input_uuid",), ("input_uuid",))},
    }
    for kind in KINDS:
        if kind.parent and kind.but is None:
            above = KIND[kind.within]
            owned.setdefault(above.table, {})[kind.table] = ((kind.parent,), above.key)
        for rows in kind.rows:
            if rows.of_items is not None:
                field, column = rows.of_items
                items = next(each for each in kind.rows if each.field == field)
                keys = (*rows.owner, column), (*items.owner, column)
                owned.setdefault(items.table, {})[rows.table] = keys
            elif not rows.where:
                owned.setdefault(kind.table, {})[rows.table] = (rows.owner, kind.key)
    return owned


# By table, those all of whose rows belong to rows of it: with their columns and its key.
OWNED = _owned()

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

# The tables of bookkeeping, and of what is computed from tables that are read.
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
