"""Checks of MLflow in its newer registries. Icons have had names of their own for MCP servers only."""

from typing import Any

from mlflow.store.tracking.mcp_server_registry import abstract_mixin
from mlflow.utils.validation import (
    _strip_mcp_icon_response_fields as strip_icon_response_fields,
    _validate_mcp_initial_status as validate_mcp_initial_status,
    _validate_mcp_tool_payloads as validate_mcp_tool_payloads,
)

try:  # since MLflow 3.18, where skills have icons too
    from mlflow.utils.validation import _validate_icon_payloads as validate_icon_payloads
except ImportError:
    from mlflow.utils.validation import _validate_mcp_icon_payloads as validate_icon_payloads

__all__ = [
    "NOT_SET",
    "strip_icon_response_fields",
    "validate_icon_payloads",
    "validate_mcp_initial_status",
    "validate_mcp_tool_payloads",
]

# The default of what is not to be changed, also of skills: MLflow's own object, in the place of any type.
NOT_SET: Any = abstract_mixin.NOT_SET
