"""The search of traces: MLflow's filter and order, and how the traces that match are found."""

from genesis_flow.query.traces.filters import TraceFilter, parse_trace_filter
from genesis_flow.query.traces.finder import FoundTrace, TraceFinder
from genesis_flow.query.traces.order import parse_trace_order

__all__ = ["FoundTrace", "TraceFilter", "TraceFinder", "parse_trace_filter", "parse_trace_order"]
