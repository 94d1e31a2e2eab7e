"""Token usage and cost of traces and spans: what MLflow writes as JSON, as numbers."""

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

from mlflow.tracing.constant import CostKey, TokenUsageKey, TraceMetadataKey

from genesis_flow.core.numbers import INT64

TOKEN_KEYS: tuple[str, ...] = tuple(TokenUsageKey.all_keys())
COST_KEYS = (CostKey.INPUT_COST, CostKey.OUTPUT_COST, CostKey.TOTAL_COST)

# Where a trace keeps the numbers of these metadata keys, and which there are.
NUMBER_FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    TraceMetadataKey.TOKEN_USAGE: ("tokens", TOKEN_KEYS),
    TraceMetadataKey.COST: ("cost", COST_KEYS),
}


def token_count(value: Any) -> int | None:
    """A whole number that fits 64 bits, or None."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if not number.is_finite() or number != number.to_integral_value():
        return None
    count = int(number)
    return count if count in INT64 else None


def amount(value: Any) -> float | None:
    """A finite number, or None."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def numbers(field: str, values: dict[str, Any]) -> dict[str, Any]:
    """The usable numbers among ``values`` for the field ``tokens`` or ``cost`` of a trace."""
    keys, read = (TOKEN_KEYS, token_count) if field == "tokens" else (COST_KEYS, amount)
    return {key: number for key in keys if key in values and (number := read(values[key])) is not None}


def json_object(value: Any) -> dict[str, Any]:
    """The object that ``value`` is or spells; an empty one for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def number_metadata(trace: dict[str, Any]) -> dict[str, str]:
    """Token usage and cost of a trace as the metadata that MLflow gives out."""
    metadata = {}
    for key, (field, names) in NUMBER_FIELDS.items():
        stored = trace.get(field) or {}
        read = int if field == "tokens" else float
        if values := {name: read(stored[name]) for name in names if stored.get(name) is not None}:
            metadata[key] = json.dumps(values)
    return metadata


def assessed_number(value: Any) -> tuple[float | None, bool]:
    """What an assessment's value counts as in metrics, and whether it is a number itself."""
    if isinstance(value, bool):
        return float(value), False
    if isinstance(value, int | float):
        number = amount(value)
        return number, number is not None
    if isinstance(value, str) and (answer := value.strip().lower()) in ("yes", "no"):
        return float(answer == "yes"), False
    return None, False
