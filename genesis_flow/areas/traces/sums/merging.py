"""Sums of traces that can be added up, kept, and put in the place of asking the traces. No database here."""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import accumulate, repeat
from typing import Any, Literal, NamedTuple

from bson.timestamp import Timestamp
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

from genesis_flow.areas.traces.sums.documents import DAY
from genesis_flow.areas.traces.sums.metrics import DISTINCT_SESSIONS, Grouping, Metric, percentile
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document

Key = tuple[Any, ...]
Range = tuple[int | None, int | None]

_INT32 = range(-(2**31), 2**31)
# A document may have 16 MB; more than this is not kept, and asked of the traces.
_MOST_BYTES = 8_000_000
_MOST_ROWS = 10_000
# More gaps than this are not worth a command each.
_MOST_RANGES = 32


@dataclass(slots=True)
class Tally:
    """How many values there are, and their sum, extremes and, if asked for, the values themselves."""

    count: int = 0
    total: int = 0
    low: int | None = None
    high: int | None = None
    # Values in order as they are kept, packed: Python's own numbers would take nine times the memory.
    parts: list[Sequence[int]] = field(default_factory=list)
    # How often a value occurs, of those that came from the traces.
    times: dict[int, int] = field(default_factory=dict)

    def add(self, count: int, total: int = 0, low: int | None = None, high: int | None = None) -> None:
        self.count += count
        self.total += total
        if low is not None and (self.low is None or low < self.low):
            self.low = low
        if high is not None and (self.high is None or high > self.high):
            self.high = high

    def add_value(self, value: int, times: int) -> None:
        self.add(times, value * times, value, value)
        self.times[value] = self.times.get(value, 0) + times

    def join(self, other: "Tally") -> None:
        self.add(other.count, other.total, other.low, other.high)
        self.parts += other.parts
        for value, times in other.times.items():
            self.times[value] = self.times.get(value, 0) + times

    def in_order(self) -> Iterator[int]:
        """All values, each as often as it occurs."""
        from_traces = (each for value in sorted(self.times) for each in repeat(value, self.times[value]))
        return merge(*self.parts, from_traces)

    @property
    def is_exact(self) -> bool:
        """Whether the sum is one that the server gives as a whole number, too."""
        return self.total in INT64

    def outcome(self, aggregation: MetricAggregation) -> float | int | None:
        match aggregation.aggregation_type:
            case AggregationType.COUNT:
                return self.count
            case AggregationType.MIN:
                return self.low
            case AggregationType.MAX:
                return self.high
            case AggregationType.SUM:
                return self.total
            case AggregationType.AVG:
                return float(self.total) / self.count
        return percentile(self._nth(), self.count, float(aggregation.percentile_value or 0))

    def _nth(self) -> Callable[[int], int]:
        """Finds the value at a place of all in order: that of which so many are not greater."""
        values = sorted(self.times)
        sums = [0, *accumulate(self.times[value] for value in values)]

        def up_to(value: int) -> int:
            in_parts = sum(bisect_right(part, value) for part in self.parts)
            return in_parts + sums[bisect_right(values, value)]

        def nth(index: int) -> int:
            low, high = self.low or 0, self.high or 0
            while low < high:
                middle = (low + high) // 2
                if up_to(middle) > index:
                    high = middle
                else:
                    low = middle + 1
            return low

        return nth


Tallies = dict[Key, Tally]


def can_be_kept(grouping: Grouping) -> bool:
    """Whether sums by day answer the question, apart from its filters and its range."""
    return (
        grouping.view == MetricViewType.TRACES
        and grouping.metric.value != DISTINCT_SESSIONS
        and (grouping.seconds or DAY) * 1000 % DAY == 0
    )


_NEEDED = {
    AggregationType.SUM: ("total", "$sum"),
    AggregationType.AVG: ("total", "$sum"),
    AggregationType.MIN: ("low", "$min"),
    AggregationType.MAX: ("high", "$max"),
}


def tally_pipeline(
    grouping: Grouping, match: Document, aggregations: Iterable[MetricAggregation] = ()
) -> list[Document]:
    """Counts, and what else these aggregations need."""
    sums: Document = {"count": {"$sum": 1}}
    for aggregation in aggregations:
        if needed := _NEEDED.get(aggregation.aggregation_type):
            name, accumulator = needed
            sums[name] = {accumulator: grouping.metric.value}
    return [{"$match": match}, {"$group": {"_id": grouping.key(), **sums}}]


def tallied(rows: Iterable[Document], grouping: Grouping, into: Tallies) -> int:
    """Add what ``tally_pipeline`` found; how many traces that were."""
    traces, names = 0, list(grouping.key())
    for row in rows:
        count, total, low, high = (int(row.get(name, 0)) for name in ("count", "total", "low", "high"))
        into.setdefault(_key(row, names), Tally()).add(count, total, low, high)
        traces += count
    return traces


def tallied_values(rows: Iterable[Document], grouping: Grouping, into: Tallies) -> int:
    """Add what ``histogram_pipeline`` found; how many traces that were."""
    traces, names = 0, list(grouping.key())
    for row in rows:
        count = int(row["n"])
        into.setdefault(_key(row, names), Tally()).add_value(int(row["_id"]["value"]), count)
        traces += count
    return traces


def _key(row: Document, names: list[str]) -> Key:
    """A trace without a name may lack the field, which the server then leaves out."""
    return tuple(row["_id"].get(name) for name in names)


def packed(tallies: Tallies, metric: Metric) -> list[Document] | None:
    """The sums of a day as they are kept, or None if they cannot be."""
    if len(tallies) > _MOST_ROWS:
        return None
    with_values = has_values(metric)
    # Asked first: values that are too many to keep need not be brought in order.
    fit = with_values and sum(_size_of(tally) for tally in tallies.values()) <= _MOST_BYTES
    rows: list[Document] = []
    for key, tally in tallies.items():
        row: Document = {"key": list(key), "count": tally.count}
        if with_values:
            if tally.total not in INT64:
                return None
            row |= {"total": tally.total, "low": tally.low, "high": tally.high}
        if fit:
            row["values"] = _bytes_of(tally)
        rows.append(row)
    return rows


def has_values(metric: Metric) -> bool:
    """Whether there is more to know than how many traces there are."""
    return metric.aggregations != {AggregationType.COUNT}


def _code_of(tally: Tally) -> Literal["i", "q"]:
    """How the values of a tally are packed."""
    return "i" if (tally.low or 0) in _INT32 and (tally.high or 0) in _INT32 else "q"


def _size_of(tally: Tally) -> int:
    return tally.count * array(_code_of(tally)).itemsize


def _bytes_of(tally: Tally) -> bytes:
    return _ordered(array(_code_of(tally), tally.in_order())).tobytes()


def _values_in(data: bytes, count: int) -> Sequence[int]:
    code: Literal["i", "q"] = "i" if len(data) == count * array("i").itemsize else "q"
    if sys.byteorder == "little":
        return memoryview(data).cast(code)  # no copy
    found = array(code)
    found.frombytes(data)
    return _ordered(found)


def _ordered(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def unpacked(rows: Iterable[Document], into: Tallies, *, with_values: bool) -> None:
    """Add the kept sums of a day by their own keys."""
    for row in rows:
        count, total, low, high = (int(row.get(name, 0)) for name in ("count", "total", "low", "high"))
        tally = into.setdefault(tuple(row["key"]), Tally())
        tally.add(count, total, low, high)
        if with_values:
            tally.parts.append(_values_in(row["values"], count))


def regrouped(day: int, rows: Iterable[Document], grouping: Grouping) -> Iterator[Document]:
    """The rows of a day by the keys that are asked for."""
    places = [list(grouping.metric.dimensions).index(name) for name in grouping.dimensions]
    bucket: list[int] = []
    if grouping.seconds:
        bucket = [day * DAY - day * DAY % (grouping.seconds * 1000)]
    for row in rows:
        asked = [row["key"][place] for place in places]
        if None not in asked:
            yield row | {"key": [*bucket, *asked]}


class KeptDay(NamedTuple):
    """The sums of a day as of ``made``; without rows if there were too many to keep."""

    made: Timestamp
    rows: list[Document] | None


def split(
    kept: Mapping[int, KeptDay], start: int | None, end: int | None, *, with_values: bool
) -> tuple[list[int], list[Range]]:
    """The whole days that sums answer, and the ranges, both ends included, that they do not."""
    whole: list[int] = []
    ranges: list[Range] = []
    low = start
    for day in sorted(kept):
        first, last = day * DAY, (day + 1) * DAY - 1
        is_asked = (start is None or start <= first) and (end is None or last <= end)
        if is_asked and _answers(kept[day].rows, with_values=with_values):
            whole.append(day)
            if low is None or low < first:
                ranges.append((low, first - 1))
            low = last + 1
    if low is None or end is None or low <= end:
        ranges.append((low, end))
    return (whole, ranges) if len(ranges) <= _MOST_RANGES else ([], [(start, end)])


def _answers(rows: list[Document] | None, *, with_values: bool) -> bool:
    return rows is not None and (not with_values or all("values" in row for row in rows))
