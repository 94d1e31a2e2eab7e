"""The order of a search of runs."""

from collections.abc import Sequence

from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils

from genesis_flow.areas.runs.filters import attribute_path, param_path, tag_path
from genesis_flow.search.order import START_TIME, Kind, OrderKey
from genesis_flow.search.parsing import parsed

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
