"""Traces, their spans, and what people and judges think of them.

A trace is one small document: what its page in the UI shows, what searches filter and sort by. Spans and
assessments are a document each, so a trace may have any number of them. Ids of spans begin with the trace's,
``trace|span``: all spans of a trace are one range of the ``_id`` index.

Spans and assessments copy the experiment and the time of their trace, which is what metrics over them ask
for; whoever changes either in the trace changes the copies.

A trace document may begin as a stub without an experiment: a link from a run can arrive before the trace
itself. Stubs are invisible to everything but the trace that later fills them; see ``KNOWN``. A trace that is
being deleted has no experiment either, so nobody sees it any more, and nothing fills it; see ``ERASED``.
"""

from typing import Any

from bson.timestamp import Timestamp
from mlflow.tracing.constant import CostKey, TraceMetadataKey, TraceTagKey
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION
from pydantic import ConfigDict, Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import escape, unescape_map
from genesis_flow.documents.plain import Document
from genesis_flow.documents.sharding import ShardKey

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

# Where the traces of calls of the gateway say which endpoint was called, by whom, and what that cost.
GATEWAY_ENDPOINT_PATH = f"metadata.{escape(TraceMetadataKey.GATEWAY_ENDPOINT_ID)}"
AUTH_USERNAME_PATH = f"metadata.{escape(TraceMetadataKey.AUTH_USERNAME)}"
TOTAL_COST_PATH = f"cost.{CostKey.TOTAL_COST}"

# The condition that a trace is more than a stub.
KNOWN: Document = {"experiment_id": {"$exists": True}}

# The part of an update that says when metrics of traces last had to look at the trace. Every update of what
# they see of it carries this, so that sums of traces that readers keep are known to be outdated; a trace that
# is about to leave its hour or to go is announced instead (areas/traces/sums/departures.py).
TOUCH: Document = {"$currentDate": {"touched": {"$type": "timestamp"}}}
# The same in a document that is inserted: the server puts its time in the place of an empty one.
NOW = Timestamp(0, 0)

# Where spans of a trace are that is being deleted. Each write of a trace names the places that it may be in.
ERASED = "ERASED"
# As a condition, for those who delete; it has no experiment any more.
ERASING: Document = {"experiment_id": None, "erasing": {"$exists": True}}


class TraceFields(Declared):
    """A trace: what its page shows and what searches filter and sort by."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    id: str = Field(alias="_id", description="Trace id, `tr-…`.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int | None = Field(
        default=None,
        description="Its experiment; absent in a stub, which a link from a run made before the trace came.",
    )
    request_time: int | None = Field(default=None, description="Start.")
    end_time: int | None = Field(
        default=None,
        description=(
            "Latest end of its spans. Not the duration: an end can be kept with `$max`, whatever the "
            "order of arrival."
        ),
    )
    status: str | None = Field(
        default=None, description="`OK`, `ERROR`, `IN_PROGRESS` or `STATE_UNSPECIFIED`."
    )
    client_request_id: str | None = Field(default=None, description="Id that the client gave.")
    request_preview: str | None = Field(default=None, description="Beginning of the request.")
    response_preview: str | None = Field(default=None, description="Beginning of the response.")
    tags: dict[str, str | None] = Field(
        default_factory=dict, description="Values by escaped key, but those that have a field of their own."
    )
    metadata: dict[str, str | None] = Field(
        default_factory=dict, description="Values by escaped key, but those that have a field of their own."
    )
    name: str | None = Field(default=None, description="The tag `mlflow.traceName`.")
    session_id: str | None = Field(default=None, description="The metadata `mlflow.trace.session`.")
    source_run: str | None = Field(
        default=None, description="The metadata `mlflow.sourceRun`: the run in which it was made."
    )
    artifact_location: str | None = Field(default=None, description="The tag `mlflow.artifactLocation`.")
    spans_location: str | None = Field(
        default=None, description="The tag that says where the spans are: here, or archived."
    )
    archive_location: str | None = Field(
        default=None, description="The tag that says where archived spans are."
    )
    archival_failure: str | None = Field(default=None, description="The tag that says why archiving failed.")
    size_stats: str | None = Field(default=None, description="The metadata about sizes.")
    size_bytes: str | None = Field(default=None, description="The metadata `mlflow.trace.sizeBytes`.")
    inputs: str | None = Field(default=None, description="The metadata `mlflow.traceInputs`.")
    outputs: str | None = Field(default=None, description="The metadata `mlflow.traceOutputs`.")
    finalized: str | None = Field(
        default=None, description="Set when the client has stated the whole trace, whose times then stay."
    )
    tokens: dict[str, int] | None = Field(default=None, description="Sums of tokens by MLflow's names.")
    cost: dict[str, float] | None = Field(default=None, description="Sums of cost by MLflow's names.")
    generation: int = Field(default=0, description="Counts the calls that brought spans.")
    tokens_of: int | None = Field(default=None, description="The generation that `tokens` was computed from.")
    cost_of: int | None = Field(default=None, description="The generation that `cost` was computed from.")
    touched: Timestamp | None = Field(
        default=None,
        description="When what metrics see of it was last written, by the clock of the servers; ADR 13.",
    )
    linked_runs: list[str] = Field(default_factory=list, description="Runs it was linked to.")
    erasing: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Set while it is deleted: the experiment that it was in, which it has lost, and the call that "
            "deletes it; ADR 18."
        ),
    )
    linked_prompts: list[str] = Field(default_factory=list, description="Prompt versions it was linked to.")
    linked_mcp_servers: list[str] = Field(
        default_factory=list, description="Versions of MCP servers it was linked to, `name/version`."
    )

    class Settings(CollectionSettings):
        name = "traces"
        shard = ShardKey("_id", "A trace is written and opened by its id.", beginning="tr-")
        refers = {
            "experiment_id": "experiments",
            "source_run": "runs",
            "linked_runs": "runs",
        }
        indexes = [
            Index(
                [("experiment_id", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_time",
                serves=(
                    "The page of traces: newest first within experiments. The id is the tie-break MLflow "
                    "uses."
                ),
            ),
            Index(
                [("workspace", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_workspace",
                serves="The same over all experiments, or over too many to merge.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("experiment_id", ASCENDING),
                    ("request_time", ASCENDING),
                    ("end_time", ASCENDING),
                    ("status", ASCENDING),
                    ("name", ASCENDING),
                ],
                name="metrics",
                serves="Counts, latencies and states of traces by name and time, without reading the traces.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("experiment_id", ASCENDING),
                    ("touched", ASCENDING),
                    ("request_time", ASCENDING),
                ],
                name="touched",
                partialFilterExpression={"touched": {"$exists": True}},
                serves="Which days have changed since their traces were summed up.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("session_id", ASCENDING), ("request_time", ASCENDING)],
                name="by_session",
                partialFilterExpression={"session_id": {"$exists": True}},
                serves="The traces of a session, and the list of sessions.",
            ),
            Index(
                [("source_run", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_source_run",
                partialFilterExpression={"source_run": {"$exists": True}},
                serves="The traces that were made in a run, in the order of the page.",
            ),
            Index(
                [("linked_runs", ASCENDING), ("request_time", DESCENDING), ("_id", ASCENDING)],
                name="by_linked_run",
                partialFilterExpression={"linked_runs": {"$exists": True}},
                serves="The traces that were linked to a run, in the order of the page.",
            ),
            Index(
                [("linked_prompts", ASCENDING)],
                name="by_prompt",
                sparse=True,
                serves="The traces of a prompt version.",
            ),
            Index(
                [
                    (GATEWAY_ENDPOINT_PATH, ASCENDING),
                    ("request_time", ASCENDING),
                    (AUTH_USERNAME_PATH, ASCENDING),
                    ("workspace", ASCENDING),
                    ("experiment_id", ASCENDING),
                    (TOTAL_COST_PATH, ASCENDING),
                ],
                name="gateway_costs",
                partialFilterExpression={GATEWAY_ENDPOINT_PATH: {"$exists": True}},
                serves="What calls of the gateway have cost in some time, without reading the traces.",
            ),
            Index([("tags.$**", ASCENDING)], name="tags", serves="Filters by a tag."),
            Index([("metadata.$**", ASCENDING)], name="metadata", serves="Filters by metadata."),
        ]
        keep_nulls = False


class SpanFields(Declared):
    """A span: what searches and metrics ask of it, and its content as the JSON text that MLflow reads.

    A long content lies in payload documents instead, so that reading many spans stays cheap.
    """

    id: str = Field(alias="_id", description="`trace|span`.")
    trace_id: str = Field(description="Its trace.")
    experiment_id: int = Field(description="Copy of the trace's.")
    trace_time: int = Field(description="Copy of the trace's `request_time`.")
    parent_id: str | None = Field(default=None, description="The span that it is part of.")
    name: str | None = Field(default=None, description="Name.")
    type: str | None = Field(default=None, description="Type, such as `LLM` or `TOOL`.")
    status: str = Field(description="`OK`, `ERROR` or `UNSET`.")
    start_time: int = Field(description="Start, in nanoseconds since 1970.")
    end_time: int | None = Field(default=None, description="End, in nanoseconds since 1970.")
    latency: int | None = Field(default=None, description="Duration in milliseconds, as the metrics have it.")
    model_name: str | None = Field(default=None, description="Model that was called.")
    model_provider: str | None = Field(default=None, description="Provider of that model.")
    usage: dict[str, int | float] | None = Field(
        default=None, description="Tokens of the span itself, or of all below it, by MLflow's names."
    )
    cost: dict[str, float] | None = Field(default=None, description="Cost, likewise.")
    content: str | None = Field(
        default=None,
        description=(
            "The span as the JSON text that MLflow reads, up to 64 kB; longer ones are in `span_payloads`."
        ),
    )
    payload: str | None = Field(
        default=None,
        description="Digest of a longer content, part of the ids of its pieces: another content has others.",
    )
    chunks: int | None = Field(default=None, description="Number of pieces.")

    class Settings(CollectionSettings):
        name = "spans"
        shard = ShardKey("_id", "The spans of a trace lie together.", beginning="tr-")
        refers = {"trace_id": "traces", "experiment_id": "experiments"}
        indexes = [
            Index(
                [("experiment_id", ASCENDING), ("trace_time", ASCENDING)],
                name="by_time",
                serves="Metrics over the spans of some time.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("name", ASCENDING), ("trace_id", ASCENDING)],
                name="by_name",
                serves="Searches by span name; they need no more than the index.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("type", ASCENDING), ("trace_id", ASCENDING)],
                name="by_type",
                serves="Searches by span type; they need no more than the index.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("trace_id", ASCENDING)],
                name="errors",
                partialFilterExpression={"status": "ERROR"},
                serves="Searches for failed spans. Most spans are fine; those that are searched for are not.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("start_time", ASCENDING)],
                name="costs",
                partialFilterExpression={"cost": {"$exists": True}},
                serves="Metrics over costs.",
            ),
        ]
        keep_nulls = False


class SpanPayloadFields(Declared):
    """A piece of a long span content."""

    id: str = Field(alias="_id", description="`trace|span|digest of the whole|number of the piece`.")
    text: str = Field(description="The piece.")

    class Settings(CollectionSettings):
        name = "span_payloads"
        shard = ShardKey("_id", "The contents of a span lie together.", beginning="tr-")


class AssessmentFields(Declared):
    """Feedback, an expectation or an issue of a trace."""

    id: str = Field(alias="_id", description="Assessment id, `a-…`.")
    trace_id: str = Field(description="Its trace.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Copy of the trace's.")
    trace_time: int = Field(description="Copy of the trace's `request_time`.")
    kind: str = Field(description="`feedback`, `expectation` or `issue`.")
    name: str = Field(description="What was assessed.")
    value: str = Field(
        description="JSON text: values are whatever a judge returns, and filters compare the text."
    )
    error: str | None = Field(default=None, description="Why there is no value, as JSON text.")
    number: float | None = Field(
        default=None, description="The value as a number, if it is one or means one (`yes`)."
    )
    is_number: bool = Field(default=False, description="Whether the value is a number itself.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")
    source_type: str = Field(description="`HUMAN`, `LLM_JUDGE` or `CODE`.")
    source_id: str | None = Field(default=None, description="Who or what judged.")
    run_id: str | None = Field(default=None, description="The run that it was logged in.")
    span_id: str | None = Field(default=None, description="The span that it is about.")
    rationale: str | None = Field(default=None, description="Why.")
    overrides: str | None = Field(default=None, description="The assessment that it takes the place of.")
    valid: bool = Field(default=True, description="False once another overrides it.")
    metadata: str | None = Field(
        default=None, description="JSON text; what is asked of it has fields of its own."
    )
    source_run: str | None = Field(default=None, description="The run that found it, from its metadata.")
    of_session: bool = Field(
        default=False, description="Whether it speaks about the whole session of its trace."
    )

    class Settings(CollectionSettings):
        name = "assessments"
        shard = ShardKey("trace_id", "A trace is shown with its assessments.", beginning="tr-")
        refers = {
            "trace_id": "traces",
            "experiment_id": "experiments",
            "run_id": "runs",
            "source_run": "runs",
            "overrides": "assessments",
        }
        indexes = [
            Index(
                [("trace_id", ASCENDING), ("created_time", ASCENDING), ("_id", ASCENDING)],
                name="by_trace",
                serves="The assessments of a trace, oldest first.",
            ),
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("kind", ASCENDING),
                    ("name", ASCENDING),
                    ("trace_id", ASCENDING),
                ],
                name="by_name",
                serves="Searches for traces by an assessment.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("kind", ASCENDING), ("name", ASCENDING)],
                name="of_sessions",
                partialFilterExpression={"of_session": True},
                serves=(
                    "Those that also count for the other traces of a session: few, but every filter asks for "
                    "them."
                ),
            ),
            Index(
                [("experiment_id", ASCENDING), ("trace_time", ASCENDING)],
                name="by_time",
                serves="Metrics over the assessments of some time.",
            ),
            Index(
                [("source_run", ASCENDING)],
                name="by_source_run",
                sparse=True,
                serves="Deleting a run deletes what it found.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("kind", ASCENDING),
                    ("name", ASCENDING),
                    ("trace_id", ASCENDING),
                ],
                name="of_issues",
                partialFilterExpression={"kind": "issue"},
                serves="How many traces have an issue: counted from the index alone.",
            ),
        ]
        keep_nulls = False


def tag_path(key: str) -> str:
    """Where a trace keeps the tag."""
    return TAG_FIELDS.get(key) or f"tags.{escape(key)}"


def metadata_path(key: str) -> str:
    """Where a trace keeps the metadata; token usage and cost are asked for in other ways."""
    return METADATA_FIELDS.get(key) or f"metadata.{escape(key)}"


def tags_of(trace: Document) -> dict[str, Any]:
    return _all_of(trace, "tags", TAG_FIELDS)


def metadata_of(trace: Document) -> dict[str, Any]:
    """All metadata but token usage and cost."""
    return _all_of(trace, "metadata", METADATA_FIELDS)


def _all_of(trace: Document, field: str, own_fields: dict[str, str]) -> dict[str, Any]:
    values = unescape_map(trace.get(field))
    return values | {key: trace[name] for key, name in own_fields.items() if name in trace}
