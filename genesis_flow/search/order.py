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
from mlflow.utils.search_utils import SearchUtils

from genesis_flow.areas.runs.filters import attribute_path, param_path, tag_path
from genesis_flow.core.numbers import INT64
from genesis_flow.search.parsing import parsed

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


NEWEST_FIRST = OrderKey(Kind.NUMBER, START_TIME, ascending=False)


def parse_order(order_by: Sequence[str] | None) -> list[OrderKey]:
    """The keys that decide before the run id does."""
    keys: list[OrderKey] = []
    seen: set[tuple[str, str]] = set()
    for clause in order_by or []:
        kind, name, ascending = parsed(SearchUtils.parse_order_by_for_search_runs, clause, "order_by clause")
        name = SearchUtils.translate_key_alias(name)
        key = _order_key(kind, name, ascending)
        if (kind, name) in seen:
            raise MlflowException(f"`order_by` contains duplicate fields: {order_by}")
        seen.add((kind, name))
        keys.append(key)
    if not any(key.kind is Kind.NUMBER and key.field == START_TIME for key in keys):
        keys.append(NEWEST_FIRST)
    return keys


def _order_key(kind: str, name: str, ascending: bool) -> OrderKey:
    if SearchUtils.is_metric(kind, "="):
        return OrderKey(Kind.METRIC, name, ascending)
    if SearchUtils.is_numeric_attribute(kind, name, "="):
        return OrderKey(Kind.NUMBER, attribute_path(name), ascending)
    if SearchUtils.is_string_attribute(kind, name, "="):
        return OrderKey(Kind.TEXT, attribute_path(name), ascending)
    if SearchUtils.is_param(kind, "="):
        return OrderKey(Kind.TEXT, param_path(name), ascending)
    if SearchUtils.is_tag(kind, "="):
        return OrderKey(Kind.TEXT, tag_path(name), ascending)
    raise MlflowException.invalid_parameter_value(f"Invalid identifier type '{kind}'")


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
