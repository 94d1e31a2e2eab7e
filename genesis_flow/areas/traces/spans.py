"""Spans as documents: their content, and what searches and metrics ask of it."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from mlflow.tracing.constant import SpanAttributeKey
from mlflow.tracing.utils import (
    SpanAggregationNode,
    aggregate_cost_from_span_nodes,
    aggregate_usage_from_span_nodes,
    try_json_loads,
)

from genesis_flow.areas.traces.usage import COST_KEYS, TOKEN_KEYS, amount, numbers
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.keys import SEPARATOR, payload_key, span_key
from genesis_flow.documents.plain import Document

# Longer contents lie beside the span, so that reading many spans stays cheap.
INLINE_CHARACTERS = 64 * 1024
# At four bytes a character still below the limit of a document.
PIECE_CHARACTERS = 350_000
MODEL_CHARACTERS = 500
NANOSECONDS_PER_MILLISECOND = 1_000_000


class SpanCore(NamedTuple):
    """A span but for its content; times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str | None
    type: str | None
    status: str
    start_time: int
    end_time: int | None


def span_document(span: SpanCore, attributes: Document, content: str) -> tuple[Document, list[Document]]:
    """The document of a span, without what it copies from its trace, and those of its content if it is long.

    Without a content, which has gone to an archive, the document tells what is known beside it.
    """
    start, end = span.start_time, span.end_time
    fields: Document = {
        "_id": span_key(span.trace_id, span.span_id),
        "trace_id": span.trace_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "type": span.type,
        "status": span.status,
        "start_time": start,
        "end_time": end,
        "latency": None if end is None else (end - start) // NANOSECONDS_PER_MILLISECOND,
        "model_name": _model(attributes.get(SpanAttributeKey.MODEL)),
        "model_provider": _model(attributes.get(SpanAttributeKey.MODEL_PROVIDER)),
        "usage": _usage(attributes.get(SpanAttributeKey.CHAT_USAGE)),
        "cost": _cost(attributes.get(SpanAttributeKey.LLM_COST)),
    }
    payloads: list[Document] = []
    if 0 < len(content) <= INLINE_CHARACTERS:
        fields["content"] = content
    elif content:
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
    name = spelled(value)
    return name[:MODEL_CHARACTERS] if isinstance(name, str) else None


def spelled(value: Any) -> Any:
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
        isinstance(value, float) or (isinstance(value, int) and value in INT64)
    )


def _cost(value: Any) -> dict[str, float] | None:
    cost = try_json_loads(value)
    if not isinstance(cost, dict):
        return None
    return {key: number for key in COST_KEYS if (number := amount(cost.get(key))) is not None}


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
