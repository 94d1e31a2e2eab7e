"""Orders of MLflow's newer registries: each key once, and a last one that makes the order total."""

from collections.abc import Mapping, Sequence

from pymongo import ASCENDING, DESCENDING

from genesis_flow.compat.search import order_key
from genesis_flow.core.errors import invalid
from genesis_flow.search.parsing import parsed

Sort = list[tuple[str, int]]


def parsed_orders(
    order_by: list[str] | None, fields: Mapping[str, Sequence[str]], last: Sequence[str]
) -> Sort:
    """``order_by`` as the fields of documents, which ``fields`` has by MLflow's keys, and then ``last``."""
    seen: set[str] = set()
    order: dict[str, int] = {}
    for clause in order_by or ():
        key, ascending = parsed(order_key, clause, "order_by")
        if key not in fields:
            raise invalid(f"Invalid order_by key '{key}'. Valid keys: {sorted(fields)}")
        if key in seen:
            raise invalid(f"Duplicate order_by field: '{key}'")
        seen.add(key)
        for field in fields[key]:
            order.setdefault(field, ASCENDING if ascending else DESCENDING)
    for field in last:
        order.setdefault(field, ASCENDING)
    return list(order.items())
