"""Metric points by the column: blocks and a head, as ``log_batch`` would have made them."""

import operator
from array import array
from collections.abc import Callable, Iterable
from itertools import islice

from genesis_flow.areas.metrics.documents import BLOCK_FROM, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.points import Point, distinct, latest, latest_of, pack_columns, step_order
from genesis_flow.documents.keys import head_id
from genesis_flow.documents.plain import Document
from genesis_flow.importers.records import Series
from genesis_flow.importers.writers.base import Write

# Divides SERIES_POINTS, so that a history that has grown keeps its earlier blocks.
BLOCK_POINTS = 4_096

Columns = tuple["array[int]", "array[int]", "array[float]"]


class MetricColumns:
    """The points of one metric of one run, as they come."""

    def __init__(self, run: Document, key: str) -> None:
        self.run_id: str = run["_id"]
        self.key = key
        self._run = run
        self._latest: Point | None = None
        self._tail: list[Point] = []
        self._blocks = 0

    def add(self, series: Series) -> Iterable[Write]:
        columns = ordered(series.timestamps, series.steps, series.values)
        last = latest_of(*columns)
        self._latest = last if self._latest is None else max(self._latest, last, key=step_order)
        timestamps, steps, values = columns
        for start in range(0, len(values), BLOCK_POINTS):
            end = start + BLOCK_POINTS
            piece = timestamps[start:end], steps[start:end], values[start:end]
            if len(piece[0]) < BLOCK_FROM:
                self._tail = distinct([*self._tail, *zip(*piece, strict=True)])
                continue
            self._blocks += 1
            yield Write(
                MetricBlockFields, pack_columns(self.run_id, self.key, *piece), root=("runs", self.run_id)
            )

    def head(self) -> Write:
        assert self._latest is not None
        document = {
            "_id": head_id(self.run_id, self.key),
            "workspace": self._run["workspace"],
            "run_uuid": self.run_id,
            "key": self.key,
            "experiment_id": self._run["experiment_id"],
            "start_time": self._run["start_time"],
            "active": self._run["lifecycle_stage"] == "active",
            "latest": latest([self._latest]),
            "tail": [list(point) for point in self._tail],
            "packed": self._blocks,
        }
        return Write(MetricHeadFields, document, root=("runs", self.run_id), merge=merge_heads)


def merge_heads(existing: Document, new: Document) -> Document:
    """The head after points were imported that the run got since, here or in the source."""
    points = [(t, s, v) for t, s, v in (*existing["tail"], *new["tail"])]
    tops = [(top["timestamp"], top["step"], top["value"]) for top in (existing["latest"], new["latest"])]
    return {
        **new,
        "latest": latest(tops),
        "tail": [list(point) for point in distinct(points)],
        "packed": max(existing["packed"], new["packed"]),
    }


def ordered(timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> Columns:
    """The set of the points in the order of a history; quick for points that were logged in that order."""
    if _grows(timestamps, operator.lt) or (_grows(steps, operator.lt) and _grows(timestamps, operator.le)):
        return timestamps, steps, values
    points = distinct(zip(timestamps, steps, values, strict=True))
    by_column = zip(*points, strict=True)
    return array("q", next(by_column)), array("q", next(by_column)), array("d", next(by_column))


def _grows(column: "array[int]", compare: Callable[[int, int], bool]) -> bool:
    return all(map(compare, column, islice(column, 1, None)))
