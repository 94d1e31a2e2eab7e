"""A summary of a batch of spans for their trace, as MLflow reads it. Nothing here talks to the database."""

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
from mlflow.tracing.utils import TraceJSONEncoder

from genesis_flow.areas.traces.spans import NANOSECONDS_PER_MILLISECOND, SpanCore, span_document, spelled
from genesis_flow.areas.traces.writing.stored_span import certain_form, stored_span
from genesis_flow.compat.previews import get_truncated_preview, without_nul
from genesis_flow.compat.validation import validate_length_limit, validate_trace_tag
from genesis_flow.documents.keys import stored_text
from genesis_flow.documents.plain import Document

_logger = logging.getLogger(__name__)

# A tenth of a millisecond each, for which the event loop can wait.
_FEW = 50
_ENCODER = TraceJSONEncoder(ensure_ascii=False)
_STATUS = {code.to_otel_proto_status_code_name(): code.value for code in SpanStatusCode}


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


def batches_at_once(spans: list[Span]) -> list[TraceBatch] | None:
    """The batches, if that is little work for which MLflow need not be asked; it may ask the network."""
    if len(spans) > _FEW:
        return None
    forms = []
    for span in spans:
        form = certain_form(span)
        if form is None:
            return None
        forms.append(form)
    return _batches(zip(spans, forms, strict=True))


def batches_of(spans: Iterable[Span]) -> list[TraceBatch]:
    return _batches((span, stored_span(span)) for span in spans)


def _batches(spans: Iterable[tuple[Span, Document]]) -> list[TraceBatch]:
    by_trace: dict[str, list[tuple[Span, Document]]] = {}
    for span, stored in spans:
        by_trace.setdefault(span.trace_id, []).append((span, stored))
    return [_batch(trace_id, of_trace) for trace_id, of_trace in by_trace.items()]


def _batch(trace_id: str, forms: list[tuple[Span, Document]]) -> TraceBatch:
    batch, spans = TraceBatch(trace_id), [span for span, _ in forms]
    batch.start = min(span.start_time_ns for span in spans) // NANOSECONDS_PER_MILLISECOND
    ends = [span.end_time_ns for span in spans if span.end_time_ns is not None]
    batch.end = max(ends) // NANOSECONDS_PER_MILLISECOND if ends else None
    batch.tags = _resource_tags(spans)
    by_id: dict[str, Document] = {}
    for span, stored in forms:
        attributes: dict[str, Any] = stored.get("attributes") or {}
        core = _core(span, stored)
        document, payloads = span_document(core, attributes, _ENCODER.encode(stored))
        by_id[document["_id"]] = document  # of two with one id, the later
        batch.payloads += payloads
        _note_people(batch, attributes)
        if core.parent_id is None:
            _note_root(batch, core, attributes)
    batch.spans = list(by_id.values())
    return batch


def _core(span: Span, stored: Document) -> SpanCore:
    """``stored`` is what the span was made into: its properties convert anew each time."""
    return SpanCore(
        span.trace_id,
        span.span_id,
        span.parent_id,
        stored["name"],
        span.span_type,
        _STATUS[stored["status"]["code"]],
        stored["start_time_unix_nano"],
        stored["end_time_unix_nano"],
    )


def _note_people(batch: TraceBatch, attributes: Document) -> None:
    """The first session and user that a span names, in MLflow's words or OpenTelemetry's."""
    if batch.session_id is None and (
        session := attributes.get(SpanAttributeKey.SESSION_ID)
        or attributes.get(GenAiSemconvKey.CONVERSATION_ID)
    ):
        batch.session_id = checked_session(str(spelled(session)))
    if batch.user_id is None and (user := attributes.get("user.id")):
        batch.user_id = str(spelled(user))


def _note_root(batch: TraceBatch, span: SpanCore, attributes: Document) -> None:
    if batch.root_status is None:
        failed = span.status == SpanStatusCode.ERROR
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
            _add_tag(batch.tags, key[len(prefix) :], str(spelled(value)))


def _preview(value: Any, role: str) -> str | None:
    try:
        preview: str | None = get_truncated_preview(value, role)
        return None if preview is None else without_nul(preview)
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
        key, value = validate_trace_tag(key, value)
        if key == TraceTagKey.TRACE_NAME:
            checked_name(value)
    except MlflowException:
        _logger.debug("A span's attribute %r cannot be a tag of its trace", key)
        return
    tags[key] = value


def checked_name(value: Any) -> str | None:
    text = stored_text(value)
    name: str | None = validate_length_limit("Trace name", MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE, text)
    return name


def checked_session(value: Any) -> str | None:
    text = stored_text(value)
    session: str | None = validate_length_limit("Session ID", MAX_CHARS_IN_TRACE_INFO_METADATA, text)
    return session
