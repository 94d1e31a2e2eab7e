"""The search of runs: MLflow's filter and order, and the plans that answer them in pages."""

from genesis_flow.query.runs.filters import RunFilter, parse_filter
from genesis_flow.query.runs.order import OrderKey, parse_order, parse_position
from genesis_flow.query.runs.plans import Found, Question, RunFinder

__all__ = [
    "Found",
    "OrderKey",
    "Question",
    "RunFilter",
    "RunFinder",
    "parse_filter",
    "parse_order",
    "parse_position",
]
