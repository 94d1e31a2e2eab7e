"""Previews of what went into a trace and came out of it."""

from mlflow.tracing.utils.truncation import (
    _get_truncated_preview as get_truncated_preview,
)

__all__ = [
    "get_truncated_preview",
]
