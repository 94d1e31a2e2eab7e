"""What can be imported: one table, from which readers, writers, the comparison and the rollback draw.

Every kind has its place in it: its collection, its table in MLflow's SQL schema, what belongs to it. A
*plain* kind says all there is to say of it, column by column: it needs no code of its own but for what is
derived. The comparison reads both sides by this table with code of its own (``verify/plain.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import children_of, escape
from genesis_flow.documents.plain import Document


class Column(NamedTuple):
    """A column of the source, and the field that keeps it.

    The letter says what its values are: t text, i whole number, r number, b truth, j what JSON text says,
    m a map in JSON text whose keys a user chose; capitals must be there.
    """

    name: str
    letter: str
    field: str


class Rows(NamedTuple):
    """Rows of another table that one field keeps."""

    field: str
    table: str
    # The column that names whose they are.
    owner: str
    columns: tuple[Column, ...]
    # "values" of the only column, sorted; a "list" of documents in the order of the first column;
    # or "one" document.
    shape: str
    # Only rows with these values, and with any value in these columns.
    where: tuple[tuple[str, str], ...] = ()
    filled: tuple[str, ...] = ()
    constants: tuple[tuple[str, Any], ...] = ()

    @property
    def says(self) -> dict[str, tuple[str, ...]]:
        """What the columns of its rows may say."""
        return {name: (value,) for name, value in self.where}


class Child(NamedTuple):
    """A collection with what belongs to roots: where ``field`` names the root, or an id begins with it."""

    collection: str
    field: str | None = None
    where: tuple[tuple[str, str], ...] = ()

    def query(self, roots: list[Any]) -> dict[str, Any]:
        if self.field is None:
            return {"$or": [{"_id": children_of(root)} for root in roots]}
        return {self.field: {"$in": roots}, **dict(self.where)}


def _nothing(document: Document) -> None:
    """Nothing is derived, and the stores read whatever the columns hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    declared: type[Declared]
    # In MLflow's SQL schema: the table, and the columns of the id.
    table: str
    key: tuple[str, ...]
    # The kind in whose unit it is read, and what names that in its body.
    within: str = ""
    parent: str = ""
    # Whether a rollback must know each of them, though it is read within another.
    is_root: bool = False
    children: tuple[Child, ...] = ()
    # What else refers to it, which keeps it from being rolled back: collections and their fields.
    used_by: tuple[tuple[str, str], ...] = ()

    # Of plain kinds alone:
    columns: tuple[Column, ...] = ()
    rows: tuple[Rows, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    # The field that no two of an experiment have in common.
    unique: str = ""
    # The times that say whether one is young enough for --since; none: all are.
    times: tuple[str, ...] = ()
    # Adds what is derived.
    derive: Callable[[Document], None] = _nothing
    # Reads a document as the stores will, so that none is written that they cannot read.
    check: Callable[[Document], Any] = _nothing

    @property
    def collection(self) -> str:
        name: str = self.declared.Settings.name
        return name

    @property
    def body(self) -> tuple[str, ...]:
        """The fields of a record of a plain kind."""
        fields = (*(column.field for column in self.columns), *(rows.field for rows in self.rows))
        return ("id", "experiment_id", *fields)

    @property
    def owned(self) -> dict[str, tuple[str, ...]]:
        """The tables all of whose rows belong to rows of its own, with the columns that name those."""
        parts: dict[str, tuple[str, ...]] = {
            rows.table: (rows.owner,) for rows in self.rows if not rows.where
        }
        return parts | {kind.table: (kind.parent,) for kind in within(self.name)}


def _columns(*texts: str) -> tuple[Column, ...]:
    """From ``"column letter"``, with the field's name behind it where that is another."""
    parts = (text.split() for text in texts)
    return tuple(Column(name, letter, *(renamed or [name])) for name, letter, *renamed in parts)


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
    Kind(
        name="label_schema",
        declared=LabelSchemaFields,
        table="label_schemas",
        key=("schema_id",),
        columns=_columns(
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
        columns=_columns(
            "name T",
            "name_key T",
            "queue_type T type",
            "created_by t",
            "creation_time_ms I created_time",
            "last_update_time_ms I last_update_time",
        ),
        rows=(
            Rows("users", "review_queue_users", "queue_id", _columns("user_id T"), "values"),
            Rows("schema_ids", "review_queue_label_schemas", "queue_id", _columns("schema_id T"), "values"),
        ),
        constants={"additions": 0},
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
        columns=_columns(
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
        columns=_columns(
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
        columns=_columns("scorer_name T name"),
        rows=(
            Rows(
                "versions",
                "scorer_versions",
                "scorer_id",
                _columns("scorer_version I version", "serialized_scorer T text", "creation_time I"),
                "list",
                # The call that registered it: nobody repeats one of another store.
                constants=(("call", "import"),),
            ),
            # The endpoint keeps its id, whether it is imported or not.
            Rows(
                "binding",
                "endpoint_bindings",
                "resource_id",
                _columns("endpoint_id T", "created_at I time"),
                "one",
                # Only what registers scorers gives bindings a name.
                where=(("resource_type", "scorer"),),
                filled=("display_name",),
            ),
            Rows(
                "online",
                "online_scoring_configs",
                "scorer_id",
                _columns("online_scoring_config_id T id", "sample_rate R", "filter_string t"),
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
