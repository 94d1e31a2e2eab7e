"""Places in which steps of many metrics wait to become part of the metrics' heads and blocks; ADR 36.

A place is a document among the heads of its run: a list of metrics, and rows of points that name their metric
by its position in that list. Here is what a row means. ``wide.py`` writes and folds them.

Whoever reads heads lays the rows of the run's places over them. A place is read before the heads, which are
read before the blocks: a point on its way is then seen twice, which is once in a set, and never missed.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, repeat
from operator import itemgetter
from typing import Any, NamedTuple

from mlflow.entities import Metric
from pymongo import UpdateOne

from genesis_flow.areas.metrics.documents import BLOCK_FROM
from genesis_flow.areas.metrics.heads import Points, append
from genesis_flow.areas.metrics.points import (
    Point,
    distinct,
    latest,
    latest_of,
    pack,
    pack_columns,
    step_order,
)
from genesis_flow.documents.keys import block_id, children_of, head_id
from genesis_flow.documents.plain import Document

# The ``key`` of a place. No metric can have this name, and its id comes before those of all heads of the run.
PLACE = "\t"
# A place that has so many rows is folded, and one that has so many metrics takes no others.
ROWS = 128
KEYS = 2_000
# What a reader of heads projects besides, to lay the waiting rows over them.
WAITING = {"keys": 1, "rows": 1}

# An aggregation that is after latest points needs less: of the rows that have a point of each metric, all
# at one time, only the latest. Mostly that is one row.
_IS_COMPLETE: Document = {
    "$and": [
        {"$isNumber": "$$this.timestamps"},
        {"$isNumber": "$$this.steps"},
        {"$eq": [{"$type": "$$this.keys"}, "missing"]},
        {"$eq": ["$$this.n", {"$size": "$keys"}]},
    ]
}
_WHEN: Document = {"step": "$$this.steps", "timestamp": "$$this.timestamps"}
_COMPLETE: Document = {"$filter": {"input": "$rows", "cond": _IS_COMPLETE}}
_LATEST_ROWS: Document = {
    "$let": {
        "vars": {"top": {"$max": {"$map": {"input": _COMPLETE, "in": _WHEN}}}},
        "in": {
            "$filter": {
                "input": "$rows",
                "cond": {"$or": [{"$not": [_IS_COMPLETE]}, {"$gte": [_WHEN, "$$top"]}]},
            }
        },
    }
}
LATEST_WAITING: Document = {
    "keys": 1,
    "rows": {"$cond": [{"$isArray": "$rows"}, _LATEST_ROWS, "$$REMOVE"]},
}

_NUMBER_BYTES = 8
_INDEX = "I"


def place_id(run_id: str, token: str) -> str:
    return block_id(run_id, PLACE, token)


def places_of(run_id: str) -> dict[str, str]:
    """The condition on ``_id`` of the places of a run."""
    return children_of(head_id(run_id, PLACE))


def row_of(indexes: dict[str, int], metrics: Sequence[Metric]) -> Document | None:
    """A step as a row of the place with these metrics; None if it has points that a row cannot hold."""
    try:
        keys = array(_INDEX, [indexes[metric.key] for metric in metrics])
        timestamps = array("q", [metric.timestamp for metric in metrics])
        steps = array("q", [metric.step for metric in metrics])
        values = array("d", [metric.value for metric in metrics])
    except (ArithmeticError, TypeError, ValueError):
        return None
    count = len(keys)
    row: Document = {
        "n": count,
        "timestamps": _column(timestamps),
        "steps": _column(steps),
        "values": struct.pack(f"<{count}d", *values),
    }
    if keys != array(_INDEX, range(count)):
        row["keys"] = struct.pack(f"<{count}{_INDEX}", *keys)
    return row


def points_of(keys: Sequence[str], row: Document) -> Iterator[tuple[str, Point]]:
    """The points of a row of a place that has these metrics, each with the name of its metric.

    This is what a new row in a place means for whoever follows the changes of the collection.
    """
    for index, point in _points(row):
        yield keys[index], point


def waiting_points(place: Document, key: str) -> list[Point]:
    """The points of one metric that wait in a place."""
    wanted = place["keys"].index(key) if key in place["keys"] else None
    return [point for row in place["rows"] for point in _points_at(row, wanted)]


def waiting_latest(place: Document) -> dict[str, Point]:
    """The latest waiting point of each metric that has some in a place."""
    keys, found = place["keys"], dict[str, Point]()
    complete: tuple[int, int] | None = None
    for top, row in sorted(((_top(row), row) for row in place["rows"]), key=itemgetter(0), reverse=True):
        if complete is not None and top < complete:
            break  # an earlier row had a later point of every metric
        for key, point in points_of(keys, row):
            known = found.get(key)
            if known is None or step_order(point) > step_order(known):
                found[key] = point
        if _is_complete(row, len(keys)):
            complete = top
    return found


def laid_over(documents: Iterable[Document]) -> list[Document]:
    """The heads among documents of one run, each with the latest of its own points and the waiting ones.

    The documents have ``key`` and ``latest``, and places their ``WAITING`` fields.
    """
    documents = list(documents)
    places = [document for document in documents if document["key"] == PLACE]
    if not places:
        return documents
    heads = {document["key"]: document for document in documents if document["key"] != PLACE}
    for place in places:
        for key, point in waiting_latest(place).items():
            if (head := heads.get(key)) is not None:
                heads[key] = {**head, "latest": later(head["latest"], point)}
    return list(heads.values())


def later(known: Document, point: Point) -> Document:
    """The later of the latest point of a head and another one."""
    own = (known["timestamp"], known["step"], known["value"])
    return latest([point]) if step_order(point) > step_order(own) else known


class Fold(NamedTuple):
    """What makes rows part of heads and blocks: the blocks go first.

    Both say that their points are not new, to whoever follows the changes of the collections.
    """

    keys: list[str]
    blocks: list[Document]
    updates: list[UpdateOne]

    def add(self, run_id: str, key: str, change: Document, block: Document | None) -> None:
        self.keys.append(key)
        if block is not None:
            self.blocks.append({**block, "folded": True})
        counted = {**change.get("$inc", {}), "folds": 1}
        self.updates.append(UpdateOne({"_id": head_id(run_id, key)}, {**change, "$inc": counted}))


def fold_of(run_id: str, keys: Sequence[str], rows: Sequence[Document]) -> Fold:
    """How rows of a place with these metrics become part of heads and blocks."""
    fold = Fold([], [], [])
    if (columns := _shared_columns(rows)) is not None:
        timestamps, steps, by_key = columns
        for key, values in zip(keys, by_key, strict=False):
            top = latest([latest_of(timestamps, steps, values)])
            change = {"$max": {"latest": top}, "$inc": {"packed": 1}}
            fold.add(run_id, key, change, pack_columns(run_id, key, timestamps, steps, values))
        return fold
    for key, points in _by_key(keys, rows).items():
        block = pack(run_id, key, points) if len(points) >= BLOCK_FROM else None
        fold.add(run_id, key, append(points), block)
    return fold


def _by_key(keys: Sequence[str], rows: Iterable[Document]) -> Points:
    points: Points = {}
    for row in rows:
        for key, point in points_of(keys, row):
            points.setdefault(key, []).append(point)
    return {key: distinct(each) for key, each in points.items()}


def _shared_columns(
    rows: Sequence[Document],
) -> "tuple[array[int], array[int], Iterator[array[float]]] | None":
    """The columns of the metrics, if the rows are of the same metrics, each at one time, one after the other.

    A row that was sent twice is once among them.
    """
    if not rows or not all(_is_complete(row, rows[0]["n"]) for row in rows):
        return None
    once = list({(row["timestamps"], row["steps"], row["values"]): row for row in rows}.values())
    once.sort(key=_time)
    if len(once) < BLOCK_FROM or any(_time(one) == _time(next_one) for one, next_one in pairwise(once)):
        return None
    count = once[0]["n"]
    values = struct.unpack(f"<{count * len(once)}d", b"".join(row["values"] for row in once))
    return (
        array("q", [row["timestamps"] for row in once]),
        array("q", [row["steps"] for row in once]),
        (array("d", values[index::count]) for index in range(count)),
    )


def _column(numbers: "array[int]") -> int | bytes:
    """One number where all are the same, as in a step that is logged at one time."""
    if numbers.count(numbers[0]) == len(numbers):
        return numbers[0]
    return struct.pack(f"<{len(numbers)}q", *numbers)


def _numbers(column: Any, count: int) -> Iterable[int]:
    return struct.unpack(f"<{count}q", column) if isinstance(column, bytes) else repeat(int(column), count)


def _points(row: Document) -> Iterator[tuple[int, Point]]:
    count = row["n"]
    keys = struct.unpack(f"<{count}{_INDEX}", row["keys"]) if "keys" in row else range(count)
    timestamps, steps = _numbers(row["timestamps"], count), _numbers(row["steps"], count)
    values = struct.unpack(f"<{count}d", row["values"])
    return zip(keys, zip(timestamps, steps, values, strict=True), strict=True)


def _points_at(row: Document, wanted: int | None) -> Iterator[Point]:
    if wanted is None:
        return
    if _is_complete(row, row["n"]):
        if wanted < row["n"]:
            (value,) = struct.unpack_from("<d", row["values"], wanted * _NUMBER_BYTES)
            yield int(row["timestamps"]), int(row["steps"]), value
        return
    yield from (point for index, point in _points(row) if index == wanted)


def _is_complete(row: Document, count: int) -> bool:
    """Whether a row has one point of each of the first ``count`` metrics, all at one time."""
    is_at_one_time = not isinstance(row["timestamps"], bytes) and not isinstance(row["steps"], bytes)
    return is_at_one_time and "keys" not in row and row["n"] == count


def _top(row: Document) -> tuple[int, int]:
    """The greatest step of a row, with its greatest time."""
    if not isinstance(row["timestamps"], bytes) and not isinstance(row["steps"], bytes):
        return row["steps"], row["timestamps"]
    count = row["n"]
    return max(zip(_numbers(row["steps"], count), _numbers(row["timestamps"], count), strict=True))


def _time(row: Document) -> tuple[int, int]:
    return row["timestamps"], row["steps"]
