"""Previews of what went into a trace and came out of it."""

from mlflow.tracing.utils.truncation import _get_truncated_preview as get_truncated_preview

__all__ = ["get_truncated_preview", "without_nul"]


def without_nul(preview: str) -> str:
    """``preview`` with a sign in the place of NUL, which is what MLflow has made of it since 3.18."""
    return preview.replace("\0", "\ufffd")
