"""Orders that no index has: the best positions among all matching runs."""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.plain import Document
from genesis_flow.search.order import OrderKey, sort_key

Position = list[Any]

# MongoDB sorts by at most 32 fields; a key takes two, and the run id one.
LONGEST_PIPELINE_ORDER = 15


def first_positions(
    order: Sequence[OrderKey], positions: Iterable[Position], after: Position | None, limit: int
) -> list[Position]:
    """The first ``limit`` positions behind ``after``, in order."""

    def key(position: Position) -> tuple[Any, ...]:
        return sort_key(order, position)

    if after is not None:
        bound = key(after)
        positions = (position for position in positions if key(position) > bound)
    return heapq.nsmallest(limit, positions, key=key)


def top_pipeline(
    order: Sequence[OrderKey], match: Document, after: Position | None, limit: int
) -> list[Document]:
    """The first positions as MongoDB finds them, for orders without metrics: ``{_id, v0, v1, ...}``."""
    values: Document = {}
    sort: dict[str, int] = {}
    for index, key in enumerate(order):
        values[f"v{index}"] = f"${key.field}"
        values[f"missing{index}"] = {"$eq": [{"$ifNull": [f"${key.field}", None]}, None]}
        sort[f"missing{index}"] = ASCENDING
        sort[f"v{index}"] = ASCENDING if key.ascending else DESCENDING
    behind = [] if after is None else [{"$match": _behind(order, after)}]
    return [
        {"$match": match},
        {"$project": values},
        *behind,
        {"$sort": {**sort, "_id": ASCENDING}},
        {"$limit": limit},
        {"$project": {f"missing{index}": 0 for index in range(len(order))}},
    ]


def _behind(order: Sequence[OrderKey], after: Position) -> Document:
    *values, run_id = after
    ties: Document = {}
    branches: list[Document] = []
    for index, (key, value) in enumerate(zip(order, values, strict=True)):
        if value is not None:
            step = "$gt" if key.ascending else "$lt"
            branches.append({**ties, f"v{index}": {step: value}})
            branches.append({**ties, f"missing{index}": True})
        ties = {**ties, f"v{index}": value}
    branches.append({**ties, "_id": {"$gt": run_id}})
    return {"$or": branches}
