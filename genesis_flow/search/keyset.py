"""Continue a sorted read behind a known entry."""

from collections.abc import Container
from typing import Any

from pymongo import ASCENDING


def behind(sort: list[tuple[str, int]], position: list[Any], nullable: Container[str] = ()) -> dict[str, Any]:
    """The condition for what sorts behind ``position``, the values of the sorted fields.

    None of the fields may be null or missing in any document, but for those in ``nullable``.
    """
    branches = []
    for depth, (field, direction) in enumerate(sort):
        ties = {name: value for (name, _), value in zip(sort[:depth], position, strict=False)}
        tests = _later(position[depth], direction, nullable=field in nullable)
        branches += [{**ties, field: test} for test in tests]
    return {"$or": branches}


def _later(value: Any, direction: int, *, nullable: bool) -> list[Any]:
    """The tests for what is later. Null is the least, and no range includes it."""
    if direction == ASCENDING:
        return [{"$ne": None} if value is None else {"$gt": value}]
    if value is None:
        return []
    return [{"$lt": value}, None] if nullable else [{"$lt": value}]
