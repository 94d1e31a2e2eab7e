"""Metric points: their order, their identity, and how many of them are packed into one document.

A history is a set: the same point (step, timestamp and value) logged twice is one point. Appending is
therefore safe to repeat, and whatever was stored twice by a retry or a race is one again when read.
"""

import hashlib
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from genesis_flow.documents.keys import block_id

# (timestamp, step, value): the order in which MLflow returns a history.
Point = tuple[int, int, float]


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
    ordered: list[Point] = []
    last = None
    for point in sorted(points, key=history_order):
        identity = point if point[2] == point[2] else (point[0], point[1], None)
        if identity != last:
            ordered.append(point)
        last = identity
    return ordered


def latest(points: Iterable[Point]) -> dict[str, Any]:
    """The latest of ``points`` as a head stores it; the order of the fields matters (LatestPoint)."""
    timestamp, step, value = max(points, key=step_order)
    return {"step": step, "timestamp": timestamp, "value": value}


def pack(run_id: str, key: str, points: list[Point]) -> dict[str, Any]:
    """A block of ``points``. Its id comes from its content, so writing it again is no second block."""
    points = distinct(points)
    timestamps, steps, values = zip(*points, strict=True)
    return pack_columns(run_id, key, array("q", timestamps), array("q", steps), array("d", values))


def pack_columns(
    run_id: str, key: str, timestamps: "array[int]", steps: "array[int]", values: "array[float]"
) -> dict[str, Any]:
    """The same for columns that are distinct points in the order of a history."""
    columns = [_bytes(timestamps), _bytes(steps), _bytes(values)]
    digest = hashlib.blake2b(b"".join(columns), digest_size=8).hexdigest()
    return {
        # Ordered by first timestamp, so that a history can be read without sorting all of it.
        "_id": block_id(run_id, key, f"{timestamps[0]:016x}-{digest}"),
        "n": len(timestamps),
        "first_timestamp": timestamps[0],
        "last_timestamp": timestamps[-1],
        "first_step": min(steps),
        "last_step": max(steps),
        "timestamps": columns[0],
        "steps": columns[1],
        "values": columns[2],
    }


def unpack(block: dict[str, Any]) -> list[Point]:
    return list(
        zip(
            _numbers("q", block["timestamps"]),
            _numbers("q", block["steps"]),
            _numbers("d", block["values"]),
            strict=True,
        )
    )


def _bytes(column: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _numbers(kind: str, stored: bytes) -> "array[Any]":
    column = array(kind)
    column.frombytes(stored)
    if sys.byteorder == "big":
        column.byteswap()
    return column
