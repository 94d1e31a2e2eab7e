"""Spans and traces as clients send them."""

import json
from typing import Any

from mlflow.entities import Span, SpanType, TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.tracing.utils import build_otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

MILLISECOND = 1_000_000
STARTED = 1_700_000_000_000
_STATUS = {
    "OK": otel.StatusCode.OK,
    "ERROR": otel.StatusCode.ERROR,
    "UNSET": otel.StatusCode.UNSET,
}


def span(
    trace_id: str,
    number: int,
    parent: int | None = None,
    *,
    name: str = "step",
    kind: str | None = SpanType.CHAIN,
    status: str = "OK",
    start: float = 0,
    end: float | None = 10,
    attributes: dict[str, Any] | None = None,
    resource: dict[str, Any] | None = None,
) -> Span:
    """Span ``number`` of a trace; times are milliseconds since STARTED."""
    given = {SpanAttributeKey.REQUEST_ID: trace_id, **(attributes or {})}
    if kind is not None:
        given[SpanAttributeKey.SPAN_TYPE] = kind
    trace_number = int(trace_id.removeprefix("tr-"), 16)
    return Span(
        ReadableSpan(
            name=name,
            context=build_otel_context(trace_number, number),
            parent=None if parent is None else build_otel_context(trace_number, parent),
            start_time=int((STARTED + start) * MILLISECOND),
            end_time=None if end is None else int((STARTED + end) * MILLISECOND),
            attributes={key: json.dumps(value, ensure_ascii=False) for key, value in given.items()},
            status=otel.Status(_STATUS[status]),
            resource=None if resource is None else Resource(resource),
        )
    )


def trace_id(number: int) -> str:
    return f"tr-{number:032x}"


def stated(
    identifier: str,
    experiment_id: str = "0",
    *,
    start: int = 0,
    duration: int | None = 10,
    state: TraceState = TraceState.OK,
    **fields: Any,
) -> TraceInfo:
    """A trace as ``start_trace`` takes it."""
    return TraceInfo(
        trace_id=identifier,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=STARTED + start,
        execution_duration=duration,
        state=state,
        **fields,
    )
