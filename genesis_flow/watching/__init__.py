"""Runs as they change: typed events from one change stream for each database and process; see ADR 35."""

from genesis_flow.watching.events import (
    Event,
    MetricLogged,
    Point,
    RunChanged,
    RunCreated,
    RunDeleted,
    RunFound,
)
from genesis_flow.watching.watch import Watch

__all__ = [
    "Event",
    "MetricLogged",
    "Point",
    "RunChanged",
    "RunCreated",
    "RunDeleted",
    "RunFound",
    "Watch",
]
