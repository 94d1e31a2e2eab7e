"""One comparison of MLflow's filter language as a MongoDB condition."""

import re
from collections.abc import Collection
from typing import Any

from mlflow.exceptions import MlflowException

from genesis_flow.core.numbers import storable

EQUALITY = ("=", "!=")
TEXT = (*EQUALITY, "LIKE", "ILIKE")
NUMBER = (*EQUALITY, "<", "<=", ">", ">=")
_RANGE = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def condition(comparator: str, value: Any) -> Any:
    """The condition on a field. As in SQL, a field without a value satisfies no comparison, not even !=."""
    match comparator:
        case "=":
            return value
        case "!=":
            return {"$nin": [value, None]}
        case "IN":
            return {"$in": list(value)}
        case "NOT IN":
            return {"$nin": [*value, None]}
        case "LIKE":
            return {"$regex": like_regex(value), "$options": "s"}
        case "ILIKE":
            return {"$regex": like_regex(value), "$options": "si"}
        case "IS NULL":
            return {"$exists": False}
        case "IS NOT NULL":
            return {"$exists": True}
        case _ if comparator in _RANGE:
            return {_RANGE[comparator]: value}
    raise MlflowException.invalid_parameter_value(f"Invalid comparator '{comparator}'.")


def holds(condition: Any, number: float) -> bool:
    """Whether a number satisfies a condition, as MongoDB judges; NaN equals itself, and nothing else."""
    if not isinstance(condition, dict):
        return _equals(number, condition)
    ((operator_name, operand),) = condition.items()
    match operator_name:
        case "$nin":
            return not any(_equals(number, each) for each in operand)
        case "$lt":
            return bool(number < operand)
        case "$lte":
            return bool(number < operand) or _equals(number, operand)
        case "$gt":
            return bool(number > operand)
        case "$gte":
            return bool(number > operand) or _equals(number, operand)
    raise ValueError(f"{operator_name} is no condition on a number")


def _equals(number: float, other: float | None) -> bool:
    return other is not None and (number == other or (number != number and other != other))


def allow(comparator: str, allowed: Collection[str], what: str) -> None:
    """Refuse a comparator that MLflow has not for ``what``."""
    if comparator not in allowed:
        raise MlflowException.invalid_parameter_value(f"Invalid comparator for {what}: {comparator}")


def whole_number(key: str, value: Any, *, quoted: bool = True) -> float:
    """A numeric attribute is compared with it. In some of its messages MLflow does not quote numbers."""
    try:
        if isinstance(value, float):
            raise ValueError("not a whole number")
        return storable(int(value))
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value for numeric attribute '{key}': {(str(value) if quoted else value)!r}"
        ) from error


def like_regex(pattern: str) -> str:
    """A regular expression for a SQL LIKE pattern whose cost stays proportional to the text.

    The first place where a piece between two ``%`` fits is as good as any later one, so each piece is an
    atomic group that never gives back what it took; only the last is pinned to the end of the text. Plain
    ``.*`` between the pieces would try every combination of places.
    """
    first, *pieces = re.split("%+", pattern)
    if not pieces:
        return f"^{_literal(first)}\\z"
    *middle, last = pieces
    between = "".join(f"(?>.*?{_literal(piece)})" for piece in middle)
    end = f".*{_literal(last)}\\z" if last else ""
    return f"^{_literal(first)}{between}{end}"


def _literal(piece: str) -> str:
    # The server takes a NUL for the end of the expression, so it is written as an escape.
    return ".".join(re.escape(part).replace("\0", r"\x00") for part in piece.split("_"))
