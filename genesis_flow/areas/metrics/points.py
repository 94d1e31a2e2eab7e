"""Metric points: their order, their identity, and how many of them are packed into one document.

A history is a set: the same point (step, timestamp and value) logged twice is one point. Appending is
therefore safe to repeat, and whatever was stored twice by a retry or a race is one again when read.
"""

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import lt
from typing import Any, overload

from genesis_flow.areas.metrics.packing import Columns, Packed, encode, from_little_endian, little_endian
from genesis_flow.documents.keys import block_id, is_open

# (timestamp, step, value): the order in which MLflow returns a history.
Point = tuple[int, int, float]

# Of new blocks; blocks of the first format do not say theirs.
FORMAT = 2


def history_order(point: Point) -> tuple[int, int, bool, float]:
    """By timestamp, step and value; NaN before the numbers, as MongoDB orders it."""
    timestamp, step, value = point
    return timestamp, step, value == value, value


def step_order(point: Point) -> tuple[int, int, bool, float]:
    """By step, timestamp and value: the last one is the latest."""
    timestamp, step, value = point
    return step, timestamp, value == value, value


def distinct(points: Iterable[Point]) -> list[Point]:
    """The set of ``points`` in the order of a history."""
    points = list(points)
    if len(points) == 1:
        return points
    ordered: list[Point] = []
    last = None
    for point in sorted(points, key=history_order):
        identity = point if point[2] == point[2] else (point[0], point[1], None)
        if identity != last:
            ordered.append(point)
        last = identity
    return ordered


def identities(points: Iterable[Point]) -> set[Any]:
    """What makes points one: NaN equals itself here."""
    return {point if point[2] == point[2] else (point[0], point[1], None) for point in points}


def merged(first: list[Point], second: list[Point]) -> list[Point]:
    """Two sets of points, each in the order of a history, as one; sets that follow each other just join."""
    if not first or not second:
        return first or second
    if first[-1][0] < second[0][0]:
        return first + second
    if second[-1][0] < first[0][0]:
        return second + first
    return distinct([*first, *second])


def latest(points: Sequence[Point]) -> dict[str, Any]:
    """The latest of ``points`` as a head stores it; the order of the fields matters (LatestPoint)."""
    timestamp, step, value = points[0] if len(points) == 1 else max(points, key=step_order)
    return {"step": step, "timestamp": timestamp, "value": value}


def latest_of(timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> Point:
    """The latest of points that come as columns."""
    top = max(steps)
    if steps[-1] == top and steps.count(top) == 1:
        return timestamps[-1], steps[-1], values[-1]
    return max(
        (point for point in zip(timestamps, steps, values, strict=True) if point[1] == top), key=step_order
    )


def pack(run_id: str, key: str, points: list[Point]) -> dict[str, Any]:
    """A block of ``points``. Its id comes from its content, so writing it again is no second block."""
    points = distinct(points)
    timestamps, steps, values = zip(*points, strict=True)
    return pack_columns(run_id, key, array("q", timestamps), array("q", steps), array("d", values))


def pack_columns(
    run_id: str, key: str, timestamps: "array[int]", steps: "array[int]", values: "array[float]"
) -> dict[str, Any]:
    """A block of points in columns: distinct ones, in the order of a history."""
    content = b"".join(little_endian(column) for column in (timestamps, steps, values))
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    # Ordered by first timestamp, so that a history can be read without sorting all of it. The digest is that
    # of the points, not of the bytes: a block has the same name in every format.
    suffix = f"{timestamps[0]:016x}-{digest}"
    return {"_id": block_id(run_id, key, suffix), **packed_fields(timestamps, steps, values)}


def packed_fields(timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> dict[str, Any]:
    """What a block has beside its name."""
    return {
        "n": len(timestamps),
        "first_timestamp": timestamps[0],
        "last_timestamp": timestamps[-1],
        "format": FORMAT,
        "data": encode(timestamps, steps, values),
    }


def unpack(block: dict[str, Any]) -> list[Point]:
    return list(zip(*columns_of(block), strict=True))


def columns_of(block: dict[str, Any]) -> Columns:
    """The columns of a block of any format; ValueError if they are damaged."""
    if "format" not in block:  # the first one: columns of eight bytes a number
        return (
            from_little_endian("q", block["timestamps"]),
            from_little_endian("q", block["steps"]),
            from_little_endian("d", block["values"]),
        )
    if block["format"] != FORMAT:
        raise ValueError(f"it has the format {block['format']}, which this genesis_flow does not know")
    return Packed(block["data"], block["n"]).columns()


def joined(blocks: Iterable[Columns]) -> Columns:
    """The columns of blocks, one behind the other."""
    timestamps, steps, values = array("q"), array("q"), array("d")
    for more in blocks:
        timestamps.extend(more[0])
        steps.extend(more[1])
        values.extend(more[2])
    return timestamps, steps, values


class Curve(Sequence[Point]):
    """A history by step, timestamp and value. Its points are made when they are asked for."""

    def __init__(self, blocks: Iterable[dict[str, Any]], tail: list[Point]) -> None:
        """``blocks`` in the order of their ids, and the points that are in none of them."""
        # Settled blocks are the beginning of a curve, though their ids come last.
        ordered = sorted(blocks, key=lambda block: is_open(block["_id"]))
        timestamps, steps, values = joined(columns_of(block) for block in ordered)
        for timestamp, step, value in sorted(tail, key=step_order):
            timestamps.append(timestamp)
            steps.append(step)
            values.append(value)
        # Steps that only rise are what most metrics have, and then nothing is to sort or twice there.
        if not all(map(lt, steps, islice(steps, 1, None))):
            points = sorted(distinct(zip(timestamps, steps, values, strict=True)), key=step_order)
            timestamps, steps, values = (
                array("q", [point[0] for point in points]),
                array("q", [point[1] for point in points]),
                array("d", [point[2] for point in points]),
            )
        self._timestamps, self._steps, self._values = timestamps, steps, values

    def __len__(self) -> int:
        return len(self._steps)

    @overload
    def __getitem__(self, index: int) -> Point: ...
    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...
    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._timestamps[index], self._steps[index], self._values[index]

    @property
    def steps(self) -> Sequence[int]:
        return self._steps

    def behind(self, count: int) -> "Curve":
        """The curve without its first points."""
        rest = Curve([], [])
        rest._timestamps = self._timestamps[count:]
        rest._steps = self._steps[count:]
        rest._values = self._values[count:]
        return rest

    def between(self, first_step: int, last_step: int) -> range:
        """The indexes of the points of these steps and those between them."""
        return range(bisect_left(self._steps, first_step), bisect_right(self._steps, last_step))
