"""The version of the MLflow that runs."""

from mlflow.version import VERSION

from genesis_flow.compat.packages import release

__all__ = ["RELEASE", "SPANS_COMPARED", "VERSION"]

RELEASE = release(VERSION)

# tests/unit/test_stored_span.py says what to look at before a version comes into this list.
SPANS_COMPARED = frozenset({"3.17.0", "3.17.1", "3.17.2", "3.18.0"})
