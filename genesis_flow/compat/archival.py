"""The rules by which old traces go to files."""

from mlflow.store.tracking.utils.trace_archival import (
    _ArchiveNowRequest as ArchiveNowRequest,
    _parse_trace_archival_duration_millis as parse_trace_archival_duration_millis,
    _resolve_effective_trace_archival_retention as resolve_effective_trace_archival_retention,
)

__all__ = [
    "ArchiveNowRequest",
    "parse_trace_archival_duration_millis",
    "resolve_effective_trace_archival_retention",
]
