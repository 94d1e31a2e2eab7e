"""What a batch of spans says about their trace, as MLflow reads it. Nothing here talks to the database."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Span, SpanStatusCode
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import (
    MAX_CHARS_IN_TRACE_INFO_METADATA,
    MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE,
    GenAiSemconvKey,
    SpanAttributeKey,
    TraceTagKey,
)
from mlflow.tracing.otel.translation import translate_span_when_storing
from mlflow.tracing.utils import (
    SpanAggregationNode,
    TraceJSONEncoder,
    aggregate_cost_from_span_nodes,
    aggregate_usage_from_span_nodes,
    try_json_loads,
)
from mlflow.tracing.utils.truncation import _get_truncated_preview
from mlflow.utils.validation import _validate_length_limit, _validate_trace_tag

from genesis_flow.documents.keys import SEPARATOR, payload_key, span_key
from genesis_flow.documents.usage import COST_KEYS, TOKEN_KEYS, amount, numbers

Document = dict[str, Any]

_logger = logging.getLogger(__name__)

# Longer contents lie beside the span, so that reading many spans stays cheap.
INLINE_CHARACTERS = 64 * 1024
# At four bytes a character still below the limit of a document.
PIECE_CHARACTERS = 350_000
MODEL_CHARACTERS = 500
_INT64 = range(-(2**63), 2**63)
_NANOSECONDS_PER_MILLISECOND = 1_000_000


@dataclass
class TraceBatch:
    """The spans of one trace that came together."""

    trace_id: str
    # Documents that still lack the experiment and the time of the trace.
    spans: list[Document] = field(default_factory=list)
    payloads: list[Document] = field(default_factory=list)
    start: int = 0
    end: int | None = None
    root_status: str | None = None
    previews: dict[str, str] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether a span spent something."""
        return any("usage" in span or "cost" in span for span in self.spans)


def batches_of(spans: Iterable[Span]) -> list[TraceBatch]:
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    return [_batch(trace_id, of_trace) for trace_id, of_trace in by_trace.items()]


def _batch(trace_id: str, spans: list[Span]) -> TraceBatch:
    batch = TraceBatch(trace_id)
    batch.start = min(span.start_time_ns for span in spans) // _NANOSECONDS_PER_MILLISECOND
    ends = [span.end_time_ns for span in spans if span.end_time_ns is not None]
    batch.end = max(ends) // _NANOSECONDS_PER_MILLISECOND if ends else None
    batch.tags = _resource_tags(spans)
    by_id: dict[str, Document] = {}
    for span in spans:
        stored = translate_span_when_storing(span)
        attributes: dict[str, Any] = stored.get("attributes") or {}
        document, payloads = _span_document(span, stored, attributes)
        by_id[document["_id"]] = document  # of two with one id, the later
        batch.payloads += payloads
        _note_people(batch, attributes)
        if span.parent_id is None:
            _note_root(batch, span, attributes)
    batch.spans = list(by_id.values())
    return batch


def _span_document(span: Span, stored: Document, attributes: Document) -> tuple[Document, list[Document]]:
    """The document of a span, and those of its content if that is long."""
    content = json.dumps(stored, cls=TraceJSONEncoder, ensure_ascii=False)
    start, end = span.start_time_ns, span.end_time_ns
    fields: Document = {
        "_id": span_key(span.trace_id, span.span_id),
        "trace_id": span.trace_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "type": span.span_type,
        "status": span.status.status_code,
        "start_time": start,
        "end_time": end,
        "latency": None if end is None else (end - start) // _NANOSECONDS_PER_MILLISECOND,
        "model_name": _model(attributes.get(SpanAttributeKey.MODEL)),
        "model_provider": _model(attributes.get(SpanAttributeKey.MODEL_PROVIDER)),
        "usage": _usage(attributes.get(SpanAttributeKey.CHAT_USAGE)),
        "cost": _cost(attributes.get(SpanAttributeKey.LLM_COST)),
    }
    payloads: list[Document] = []
    if len(content) <= INLINE_CHARACTERS:
        fields["content"] = content
    else:
        digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]
        payloads = [
            {
                "_id": payload_key(fields["_id"], digest, piece),
                "text": content[at : at + PIECE_CHARACTERS],
            }
            for piece, at in enumerate(range(0, len(content), PIECE_CHARACTERS))
        ]
        fields |= {"payload": digest, "chunks": len(payloads)}
    return {name: value for name, value in fields.items() if value is not None}, payloads


def _model(value: Any) -> str | None:
    name = _text(value)
    return name[:MODEL_CHARACTERS] if isinstance(name, str) else None


def _text(value: Any) -> Any:
    """The string that JSON text spells; anything else as it is."""
    parsed = try_json_loads(value)
    return parsed if isinstance(parsed, str) else value


def _usage(value: Any) -> Document | None:
    usage = try_json_loads(value)
    if not isinstance(usage, dict):
        return None
    return {key: usage[key] for key in TOKEN_KEYS if _is_number(usage.get(key))}


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and (
        isinstance(value, float) or (isinstance(value, int) and value in _INT64)
    )


def _cost(value: Any) -> dict[str, float] | None:
    cost = try_json_loads(value)
    if not isinstance(cost, dict):
        return None
    return {key: number for key in COST_KEYS if (number := amount(cost.get(key))) is not None}


def _note_people(batch: TraceBatch, attributes: Document) -> None:
    """The first session and user that a span names, in MLflow's words or OpenTelemetry's."""
    if batch.session_id is None and (
        session := attributes.get(SpanAttributeKey.SESSION_ID)
        or attributes.get(GenAiSemconvKey.CONVERSATION_ID)
    ):
        batch.session_id = checked_session(str(_text(session)))
    if batch.user_id is None and (user := attributes.get("user.id")):
        batch.user_id = str(_text(user))


def _note_root(batch: TraceBatch, span: Span, attributes: Document) -> None:
    if batch.root_status is None:
        failed = span.status.status_code == SpanStatusCode.ERROR
        batch.root_status = (TraceState.ERROR if failed else TraceState.OK).value
    for name, key, role in (
        ("request_preview", SpanAttributeKey.INPUTS, "user"),
        ("response_preview", SpanAttributeKey.OUTPUTS, "assistant"),
    ):
        if (value := attributes.get(key)) and (preview := _preview(value, role)) is not None:
            batch.previews[name] = preview
    prefix = SpanAttributeKey.TRACE_TAG_PREFIX
    for key, value in attributes.items():
        if key.startswith(prefix):
            _add_tag(batch.tags, key[len(prefix) :], str(_text(value)))


def _preview(value: Any, role: str) -> str | None:
    try:
        return _get_truncated_preview(value, role)
    except (TypeError, ValueError, AttributeError, LookupError):
        _logger.debug("No preview can be made of a span's %s message", role, exc_info=True)
        return None


def _resource_tags(spans: list[Span]) -> dict[str, str]:
    """Attributes of the OpenTelemetry resource that the spans come from, as tags of the trace."""
    tags: dict[str, str] = {}
    for span in spans:
        resource = getattr(span._span, "resource", None)
        if resource is not None and resource.attributes:
            for key, value in resource.attributes.items():
                # MLflow's own tags are not for clients to set in this way.
                if not key.startswith(("telemetry.sdk.", "mlflow.")):
                    _add_tag(tags, key, value if isinstance(value, str) else json.dumps(value))
            break
    return tags


def _add_tag(tags: dict[str, str], key: str, value: str) -> None:
    """Add a tag that arrived with a span; a span is worth more than a tag that breaks a rule."""
    try:
        key, value = _validate_trace_tag(key, value)
        if key == TraceTagKey.TRACE_NAME:
            checked_name(value)
    except MlflowException:
        _logger.debug("A span's attribute %r cannot be a tag of its trace", key)
        return
    tags[key] = value


def checked_name(value: str | None) -> str | None:
    name: str | None = _validate_length_limit("Trace name", MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE, value)
    return name


def checked_session(value: Any) -> str | None:
    session: str | None = _validate_length_limit("Session ID", MAX_CHARS_IN_TRACE_INFO_METADATA, value)
    return session


def spent(spans: Iterable[Document]) -> dict[str, dict[str, Any]]:
    """``tokens`` and ``cost`` of a trace from all its spans: parents may already speak for their children."""
    usage_nodes, cost_nodes = [], []
    for span in spans:
        span_id = span["_id"].rpartition(SEPARATOR)[2]
        parent = span.get("parent_id")
        usage_nodes.append(SpanAggregationNode(span_id, parent, span.get("usage")))
        cost_nodes.append(SpanAggregationNode(span_id, parent, span.get("cost")))
    return {
        "tokens": numbers("tokens", aggregate_usage_from_span_nodes(usage_nodes) or {}),
        "cost": numbers("cost", aggregate_cost_from_span_nodes(cost_nodes) or {}),
    }
