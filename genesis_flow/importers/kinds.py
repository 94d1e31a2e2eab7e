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


def _check_scorer(scorer: Document) -> None:
    for version in scorer["versions"]:
        endpoint_in(parsed(version["text"]))


KINDS = (
    Kind(name="experiment", declared=ExperimentFields, table="experiments", key=("experiment_id",)),
    Kind(name="dataset", declared=DatasetFields, table="datasets", key=("dataset_uuid",)),
    Kind(
        name="run",
        declared=RunFields,
        table="runs",
        key=("run_uuid",),
        # Points of models that a run logged go with the models.
        children=(Child("metrics"), Child("latest_metrics")),
        used_by=(("issues", "source_run"),),
    ),
    Kind(
        name="logged_model",
        declared=LoggedModelFields,
        table="logged_models",
        key=("model_id",),
        children=(Child("logged_model_metrics", "model_id"),),
    ),
    Kind(
        name="trace",
        declared=TraceFields,
        table="trace_info",
        key=("request_id",),
        children=(Child("span_payloads"), Child("spans"), Child("assessments", "trace_id")),
        used_by=(("review_queue_items", "item_id"),),
    ),
    Kind(
        name="span",
        declared=SpanFields,
        table="spans",
        key=("trace_id", "span_id"),
        within="trace",
        parent="trace_id",
    ),
    Kind(
        name="assessment",
        declared=AssessmentFields,
        table="assessments",
        key=("assessment_id",),
        within="trace",
        parent="trace_id",
    ),
    Kind(
        name="evaluation_dataset",
        declared=EvaluationDatasetFields,
        table="evaluation_datasets",
        key=("dataset_id",),
        children=(
            Child("evaluation_dataset_records"),
            Child("entity_associations", "source_id", (("source_type", "evaluation_dataset"),)),
        ),
    ),
    Kind(
        name="evaluation_record",
        declared=DatasetRecordFields,
        table="evaluation_dataset_records",
        key=("dataset_record_id",),
        within="evaluation_dataset",
        parent="dataset_id",
    ),
    Kind(
        name="entity_association",
        declared=EntityAssociationFields,
        table="entity_associations",
        key=("association_id",),
        within="evaluation_dataset",
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
    Kind(name="registered_model", declared=RegisteredModelFields, table="registered_models", key=("name",)),
    Kind(
        name="model_version",
        declared=ModelVersionFields,
        table="model_versions",
        key=("name", "version"),
        within="registered_model",
        parent="name",
        is_root=True,
    ),
    *REGISTRIES,
    Kind(name="webhook", declared=WebhookFields, table="webhooks", key=("webhook_id",)),
)

KIND = {kind.name: kind for kind in KINDS}
PLAIN = {kind.name: kind for kind in KINDS if kind.columns}
# The order in which units are read. What belongs to an experiment comes behind the experiments.
PHASES = tuple(kind.name for kind in KINDS if not kind.within)
# What belongs to the roots of a collection.
CHILDREN = {kind.collection: kind.children for kind in KINDS if kind.children}
# The collections of roots, and what contains others before what is in it.
ROOT_COLLECTIONS = tuple(kind.collection for kind in KINDS if not kind.within or kind.is_root)


def within(name: str) -> tuple[Kind, ...]:
    """The plain kinds that are read in the units of a kind."""
    return tuple(kind for kind in PLAIN.values() if kind.within == name)


def _owned() -> dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    owned: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for kind in PLAIN.values():
        if kind.within and kind.but is None:
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
