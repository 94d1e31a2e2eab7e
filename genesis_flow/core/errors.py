"""The project's errors, and the one way to refuse a bad value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException


class GenesisFlowError(Exception):
    """Base of the errors that genesis_flow raises itself, outside MLflow's own exception."""


def invalid(message: str) -> MlflowException:
    """The error for a value that the user has to change; raise it with the sentence that says how."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
