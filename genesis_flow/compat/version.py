"""The MLflow that is installed, and the versions that were compared with us."""

import re

from mlflow.version import VERSION

__all__ = ["RELEASE", "SPANS_COMPARED", "VERSION"]

# Those on which all tests ran.
TESTED = ("3.17.2", "3.18.0")

# tests/unit/test_stored_span.py says what to look at before a version comes into this list.
SPANS_COMPARED = frozenset({"3.17.0", "3.17.1", "3.17.2", "3.18.0"})

# Of pre-releases too, which have the rules of what they precede.
RELEASE = tuple(map(int, re.findall(r"\d+", VERSION)[:2]))
