"""The order of a search, and the position of a run in it.

Every order is total: what the user asked for, then the newest, then the run id. Missing values come last
in both directions, NaN right before them. A position is the list of the values that decide, and is the
same whichever plan found the run, so the next page may use another plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mlflow.exceptions import MlflowException

from genesis_flow.core.numbers import INT64

START_TIME = "start_time"
NUMBER_RANK, NAN_RANK, MISSING_RANK = range(3)


class Kind(Enum):
    METRIC = "metric"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class OrderKey:
    kind: Kind
    # Where the value is in the run document; for a metric its key.
    field: str
    ascending: bool


def rank(value: Any) -> int:
    if value is None:
        return MISSING_RANK
    return NAN_RANK if isinstance(value, float) and math.isnan(value) else NUMBER_RANK


class _Descending:
    """Text in reverse order."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and self.text == other.text

    def __lt__(self, other: "_Descending") -> bool:
        return other.text < self.text


def sort_key(order: Sequence[OrderKey], position: Sequence[Any]) -> tuple[Any, ...]:
    """``position`` as a tuple that Python compares as the search does."""
    parts: list[Any] = []
    for key, value in zip(order, position[:-1], strict=True):
        parts.append(rank(value))
        if parts[-1] != NUMBER_RANK:
            continue  # the rank says it all, and the next values are compared only among equal ranks
        if key.ascending:
            parts.append(value)
        else:
            parts.append(_Descending(value) if key.kind is Kind.TEXT else -value)
    return (*parts, position[-1])


def parse_position(order: Sequence[OrderKey], position: list[Any]) -> list[Any]:
    """``position``, if a search in this order can have given it out."""
    *values, run_id = position or [None]
    well_formed = (
        isinstance(run_id, str)
        and len(values) == len(order)
        and all(_can_hold(key.kind, value) for key, value in zip(order, values, strict=True))
    )
    if not well_formed:
        raise MlflowException.invalid_parameter_value(
            "Invalid page token: it is not one that this store gave out. Start again without a token."
        )
    return position


def _can_hold(kind: Kind, value: Any) -> bool:
    if value is None:
        return True
    if kind is Kind.TEXT:
        return isinstance(value, str)
    if kind is Kind.METRIC and isinstance(value, float):
        return True
    return type(value) is int and value in INT64
