"""The MLflow that is installed, and the versions that were compared with us."""

from mlflow.version import VERSION

__all__ = ["SPANS_COMPARED", "VERSION"]

# tests/unit/test_stored_span.py says what to look at before a version comes into this list.
SPANS_COMPARED = frozenset({"3.17.0", "3.17.1", "3.17.2"})
