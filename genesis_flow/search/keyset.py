"""Continue a sorted read behind a known entry."""

from typing import Any

from pymongo import ASCENDING


def behind(sort: list[tuple[str, int]], position: list[Any]) -> dict[str, Any]:
    """The condition for what sorts behind ``position``, the values of the sorted fields.

    None of the fields may be null or missing in any document.
    """
    branches = []
    for depth, (field, direction) in enumerate(sort):
        ties = {name: value for (name, _), value in zip(sort[:depth], position, strict=False)}
        step = "$gt" if direction == ASCENDING else "$lt"
        branches.append({**ties, field: {step: position[depth]}})
    return {"$or": branches}
