"""Traces, their spans, and what people and judges think of them.

A trace is one small document: what its page in the UI shows, what searches filter and sort by. Spans and
assessments are a document each, so a trace may have any number of them. Ids of spans begin with the trace's,
``trace|span``: all spans of a trace are one range of the ``_id`` index.

Spans and assessments copy the experiment and the time of their trace, which is what metrics over them ask
for; whoever changes either in the trace changes the copies.

A trace document may begin as a stub without an experiment: a link from a run can arrive before the trace
itself. Stubs are invisible to everything but the trace that later fills them; see ``KNOWN``.
"""

from typing import Any, ClassVar

from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION
from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.documents.keys import escape, unescape

Document = dict[str, Any]

# Tags and metadata that have a field of their own: those that have an index of their own, and bookkeeping
# that would only bloat the indexes over all tags and all metadata.
TAG_FIELDS = {
    TraceTagKey.TRACE_NAME: "name",
    TraceTagKey.SPANS_LOCATION: "spans_location",
    TraceTagKey.ARCHIVE_LOCATION: "archive_location",
    TraceTagKey.ARCHIVAL_FAILURE: "archival_failure",
    MLFLOW_ARTIFACT_LOCATION: "artifact_location",
}
METADATA_FIELDS = {
    TraceMetadataKey.TRACE_SESSION: "session_id",
    TraceMetadataKey.SOURCE_RUN: "source_run",
    TraceMetadataKey.SIZE_STATS: "size_stats",
    TraceMetadataKey.SIZE_BYTES: "size_bytes",
    TraceMetadataKey.INPUTS: "inputs",
    TraceMetadataKey.OUTPUTS: "outputs",
    TraceMetadataKey.TRACE_INFO_FINALIZED: "finalized",
}

# The condition that a trace is more than a stub.
KNOWN: Document = {"experiment_id": {"$exists": True}}

# A field needs a name; ``escape`` makes no key into this one.
_EMPTY_KEY = "%"


class TraceFields(BaseModel):
    id: str = Field(alias="_id")
    workspace: str
    experiment_id: int | None = None
    request_time: int | None = None
    # Not the duration: a latest end can be kept with $max, whatever the order of arrival.
    end_time: int | None = None
    status: str | None = None
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    tags: dict[str, str | None] = Field(default_factory=dict)
    metadata: dict[str, str | None] = Field(default_factory=dict)
    # Tags and metadata with fields of their own.
    name: str | None = None
    session_id: str | None = None
    source_run: str | None = None
    artifact_location: str | None = None
    spans_location: str | None = None
    archive_location: str | None = None
    archival_failure: str | None = None
    size_stats: str | None = None
    size_bytes: str | None = None
    inputs: str | None = None
    outputs: str | None = None
    finalized: str | None = None
    # By MLflow's names of tokens and costs.
    tokens: dict[str, int] | None = None
    cost: dict[str, float] | None = None
    # Counts the calls that brought spans; what was computed from spans says from how many calls.
    generation: int = 0
    tokens_of: int | None = None
    cost_of: int | None = None
    linked_runs: list[str] = Field(default_factory=list)
    linked_prompts: list[str] = Field(default_factory=list)

    class Settings:
        name = "traces"
        indexes: ClassVar[list[IndexModel]] = [
            # The page of traces: newest first within experiments. The id is the tie-break MLflow uses.
            IndexModel(
                [("experiment_id", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_time",
            ),
            # The same over all experiments, or over too many to merge.
            IndexModel(
                [("workspace", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_workspace",
            ),
            # Counts, latencies and states of traces by name and time, without reading the traces.
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
                [("experiment_id", ASCENDING), ("session_id", ASCENDING), ("request_time", ASCENDING)],
                name="by_session",
                partialFilterExpression={"session_id": {"$exists": True}},
            ),
            # Both ways in which a trace belongs to a run, in the order of the page.
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
        ]
        keep_nulls = False


class SpanFields(BaseModel):
    """A span: what searches and metrics ask of it, and its content as the JSON text that MLflow reads.

    A long content lies in payload documents instead, so that reading many spans stays cheap.
    """

    # The trace and the span: see span_key.
    id: str = Field(alias="_id")
    trace_id: str
    experiment_id: int
    trace_time: int
    parent_id: str | None = None
    name: str | None = None
    type: str | None = None
    status: str
    # Nanoseconds.
    start_time: int
    end_time: int | None = None
    # Milliseconds, as the metrics have it.
    latency: int | None = None
    model_name: str | None = None
    model_provider: str | None = None
    # Tokens and costs of the span itself, or of all below it, by MLflow's names.
    usage: dict[str, int | float] | None = None
    cost: dict[str, float] | None = None
    content: str | None = None
    # The digest and the number of the payload documents; a content that changes has others.
    payload: str | None = None
    chunks: int | None = None

    class Settings:
        name = "spans"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("experiment_id", ASCENDING), ("trace_time", ASCENDING)], name="by_time"),
            # Searches by these need no more than the index.
            IndexModel(
                [("experiment_id", ASCENDING), ("name", ASCENDING), ("trace_id", ASCENDING)], name="by_name"
            ),
            IndexModel(
                [("experiment_id", ASCENDING), ("type", ASCENDING), ("trace_id", ASCENDING)], name="by_type"
            ),
            # Most spans are fine; those that are searched for are not.
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
        ]
        keep_nulls = False


class SpanPayloadFields(BaseModel):
    """A piece of a long span content."""

    # The trace, the span, the digest of the whole and the number of the piece: see payload_key.
    id: str = Field(alias="_id")
    text: str

    class Settings:
        name = "span_payloads"
        indexes: ClassVar[list[IndexModel]] = []


class AssessmentFields(BaseModel):
    id: str = Field(alias="_id")
    trace_id: str
    workspace: str
    experiment_id: int
    trace_time: int
    # feedback, expectation or issue.
    kind: str
    name: str
    # JSON text: values are whatever a judge returns, and filters compare the text.
    value: str
    error: str | None = None
    # The value as a number, if it is one or means one ("yes").
    number: float | None = None
    is_number: bool = False
    created_time: int
    last_update_time: int
    source_type: str
    source_id: str | None = None
    run_id: str | None = None
    span_id: str | None = None
    rationale: str | None = None
    overrides: str | None = None
    valid: bool = True
    # JSON text; what is asked of it has fields of its own.
    metadata: str | None = None
    source_run: str | None = None
    # Whether it speaks about the whole session of its trace.
    of_session: bool = False

    class Settings:
        name = "assessments"
        indexes: ClassVar[list[IndexModel]] = [
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
            # Those that also count for the other traces of a session: few, but every filter asks for them.
            IndexModel(
                [("experiment_id", ASCENDING), ("kind", ASCENDING), ("name", ASCENDING)],
                name="of_sessions",
                partialFilterExpression={"of_session": True},
            ),
            IndexModel([("experiment_id", ASCENDING), ("trace_time", ASCENDING)], name="by_time"),
            # Deleting a run deletes what it found.
            IndexModel([("source_run", ASCENDING)], name="by_source_run", sparse=True),
        ]
        keep_nulls = False


def map_field(key: str) -> str:
    """The name of a tag or of metadata in its map."""
    return escape(key) or _EMPTY_KEY


def tag_path(key: str) -> str:
    """Where a trace keeps the tag."""
    return TAG_FIELDS.get(key) or f"tags.{map_field(key)}"


def metadata_path(key: str) -> str:
    """Where a trace keeps the metadata; token usage and cost are asked for in other ways."""
    return METADATA_FIELDS.get(key) or f"metadata.{map_field(key)}"


def tags_of(trace: Document) -> dict[str, Any]:
    return _all_of(trace, "tags", TAG_FIELDS)


def metadata_of(trace: Document) -> dict[str, Any]:
    """All metadata but token usage and cost."""
    return _all_of(trace, "metadata", METADATA_FIELDS)


def _all_of(trace: Document, field: str, own_fields: dict[str, str]) -> dict[str, Any]:
    values = {
        "" if name == _EMPTY_KEY else unescape(name): value
        for name, value in (trace.get(field) or {}).items()
    }
    return values | {key: trace[name] for key, name in own_fields.items() if name in trace}
