"""Metrics of traces, spans and assessments: what may be asked, and the pipelines that answer it.

Counts, sums and extremes are made by the server. Percentiles are exact and need the values themselves, so for
those the server counts each distinct value of each group, and the rest happens here: MongoDB has no
percentiles before version 7.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlflow.entities.trace_metrics import (
    AggregationType,
    MetricAggregation,
    MetricDataPoint,
    MetricViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import (
    AssessmentMetricDimensionKey,
    AssessmentMetricKey,
    AssessmentMetricSearchKey,
    SpanMetricDimensionKey,
    SpanMetricKey,
    SpanMetricSearchKey,
    TraceMetricDimensionKey,
    TraceMetricKey,
    TraceMetricSearchKey,
)
from mlflow.utils.search_utils import SearchTraceMetricsUtils

from genesis_flow.areas.traces.documents import tag_path
from genesis_flow.areas.traces.reading.filters import DURATION, metadata_condition
from genesis_flow.core.numbers import storable
from genesis_flow.documents.plain import Document
from genesis_flow.search.parsing import parsed
from genesis_flow.search.scan import all_of

TIME_BUCKET = "time_bucket"
# Sessions are counted once each.
DISTINCT_SESSIONS = "$session_id"

_ONE = {"$literal": 1}
_COUNT = frozenset({AggregationType.COUNT})
_SPREAD = frozenset(
    {AggregationType.AVG, AggregationType.MIN, AggregationType.MAX, AggregationType.PERCENTILE}
)
_AMOUNT = _SPREAD | {AggregationType.SUM}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: the expression of its value, how it may be aggregated, and by what."""

    value: Any
    aggregations: frozenset[AggregationType]
    # The field of each dimension.
    dimensions: dict[str, str] = field(default_factory=dict)
    # Documents that have no value.
    has_value: Document = field(default_factory=dict)


def _there(path: str) -> Document:
    return {path: {"$ne": None}}


_TRACE_NAME = {TraceMetricDimensionKey.TRACE_NAME: "name"}
_MODEL = {
    SpanMetricDimensionKey.SPAN_MODEL_NAME: "model_name",
    SpanMetricDimensionKey.SPAN_MODEL_PROVIDER: "model_provider",
}
_SPAN_NAME = {SpanMetricDimensionKey.SPAN_NAME: "name"}
_SPAN_STATUS = {SpanMetricDimensionKey.SPAN_STATUS: "status"}
_JUDGED = {AssessmentMetricDimensionKey.ASSESSMENT_NAME: "name"}

_TRACES: dict[str, Metric] = {
    TraceMetricKey.TRACE_COUNT: Metric(
        _ONE, _COUNT, _TRACE_NAME | {TraceMetricDimensionKey.TRACE_STATUS: "status"}
    ),
    TraceMetricKey.SESSION_COUNT: Metric(DISTINCT_SESSIONS, _COUNT, {}, _there("session_id")),
    TraceMetricKey.LATENCY: Metric(DURATION, _SPREAD, _TRACE_NAME, _there("end_time")),
    **{
        key: Metric(f"$tokens.{key}", _AMOUNT, _TRACE_NAME, _there(f"tokens.{key}"))
        for key in (
            TraceMetricKey.INPUT_TOKENS,
            TraceMetricKey.OUTPUT_TOKENS,
            TraceMetricKey.TOTAL_TOKENS,
            TraceMetricKey.CACHE_READ_INPUT_TOKENS,
            TraceMetricKey.CACHE_CREATION_INPUT_TOKENS,
        )
    },
}
_COSTS = (SpanMetricKey.INPUT_COST, SpanMetricKey.OUTPUT_COST, SpanMetricKey.TOTAL_COST)
_SPANS: dict[str, Metric] = {
    SpanMetricKey.SPAN_COUNT: Metric(
        _ONE, _COUNT, _SPAN_NAME | {SpanMetricDimensionKey.SPAN_TYPE: "type"} | _SPAN_STATUS | _MODEL
    ),
    SpanMetricKey.LATENCY: Metric("$latency", _SPREAD, _SPAN_NAME | _SPAN_STATUS, _there("latency")),
    **{
        # The first condition lets the index over costs do.
        key: Metric(f"$cost.{key}", _AMOUNT, _MODEL, {"cost": {"$exists": True}} | _there(f"cost.{key}"))
        for key in _COSTS
    },
}
_ASSESSMENTS: dict[str, Metric] = {
    AssessmentMetricKey.ASSESSMENT_COUNT: Metric(
        _ONE, _COUNT, _JUDGED | {AssessmentMetricDimensionKey.ASSESSMENT_VALUE: "value"}
    ),
    AssessmentMetricKey.ASSESSMENT_VALUE: Metric("$number", _SPREAD, _JUDGED, _there("number")),
}
_METRICS = {
    MetricViewType.TRACES: _TRACES,
    MetricViewType.SPANS: _SPANS,
    MetricViewType.ASSESSMENTS: _ASSESSMENTS,
}
_NANOSECONDS = 1_000_000


def checked_metric(
    view: MetricViewType,
    name: str,
    aggregations: Sequence[MetricAggregation],
    dimensions: Sequence[str],
) -> Metric:
    """The metric, if it may be aggregated in these ways by these dimensions."""
    if view not in _METRICS:
        _refuse(f"view_type must be one of {[each.value for each in _METRICS]}, got '{view.value}'")
    if name not in _METRICS[view]:
        _refuse(f"metric_name must be one of {list(_METRICS[view])}, got '{name}'")
    metric = _METRICS[view][name]
    asked = {aggregation.aggregation_type for aggregation in aggregations}
    if wrong := sorted(each.value for each in asked - metric.aggregations):
        supported = sorted(each.value for each in metric.aggregations)
        _refuse(f"Found invalid aggregation_type(s): {wrong}. Supported aggregation types: {supported}")
    if unknown := sorted(set(dimensions) - metric.dimensions.keys()):
        _refuse(f"Found invalid dimension(s): {unknown}. Supported dimensions: {sorted(metric.dimensions)}")
    return metric


def _refuse(message: str) -> None:
    raise MlflowException.invalid_parameter_value(message)


@dataclass(frozen=True, slots=True)
class MetricFilters:
    """Conditions on the documents of a view, and on the traces behind them."""

    own: list[Document]
    of_traces: list[Document]


def parse_metric_filters(filters: Iterable[str], view: MetricViewType) -> MetricFilters:
    own: list[Document] = []
    of_traces: list[Document] = []
    for text in filters:
        clause: Any = parsed(SearchTraceMetricsUtils.parse_search_filter, text, "filter")
        match clause.view_type:
            case TraceMetricSearchKey.VIEW_TYPE:
                condition = _trace_condition(clause.entity, clause.key, clause.comparator, clause.value)
                (own if view == MetricViewType.TRACES else of_traces).append(condition)
            case SpanMetricSearchKey.VIEW_TYPE:
                if view != MetricViewType.SPANS:
                    _refuse(
                        f"Filtering by span is only supported for {MetricViewType.SPANS} view "
                        f"type, got {view}"
                    )
                own.append({clause.entity: clause.value})
            case AssessmentMetricSearchKey.VIEW_TYPE:
                if view != MetricViewType.ASSESSMENTS:
                    _refuse(
                        "Filtering by assessment is only supported for "
                        f"{MetricViewType.ASSESSMENTS} view type, got {view}"
                    )
                is_name = clause.entity == AssessmentMetricSearchKey.NAME
                own.append({"name" if is_name else "kind": clause.value})
    return MetricFilters(own, of_traces)


def _trace_condition(entity: str, key: str | None, comparator: str, value: str) -> Document:
    if entity == TraceMetricSearchKey.STATUS:
        return {"status": value}
    if entity == TraceMetricSearchKey.TAG:
        return {tag_path(key or ""): value}
    return metadata_condition(key or "", comparator, value)


def time_range(view: MetricViewType, name: str, start: int | None, end: int | None) -> Document:
    """The condition on time, both ends included.

    Spans belong to the time when their trace began, their cost to the time when they did.
    """
    if view == MetricViewType.SPANS and name in _COSTS:
        bounds = {}
        if start is not None:
            bounds["$gte"] = storable(start * _NANOSECONDS)
        if end is not None:
            bounds["$lt"] = storable((end + 1) * _NANOSECONDS)
        return {"start_time": bounds} if bounds else {}
    bounds = {}
    if start is not None:
        bounds["$gte"] = storable(start)
    if end is not None:
        bounds["$lte"] = storable(end)
    path = "request_time" if view == MetricViewType.TRACES else "trace_time"
    return {path: bounds} if bounds else {}


@dataclass(frozen=True, slots=True)
class Grouping:
    """By what the values are grouped: a time bucket first, if there is one."""

    view: MetricViewType
    metric: Metric
    dimensions: Sequence[str]
    seconds: int | None

    @property
    def names(self) -> list[str]:
        return [TIME_BUCKET, *self.dimensions] if self.seconds else list(self.dimensions)

    def condition(self, *conditions: Document) -> Document:
        fields = [self.metric.dimensions[dimension] for dimension in self.dimensions]
        return all_of(*conditions, self.metric.has_value, *(_there(path) for path in fields))

    def key(self) -> Document:
        key = {
            f"g{index}": f"${self.metric.dimensions[dimension]}"
            for index, dimension in enumerate(self.dimensions)
        }
        return {"bucket": self._bucket(self.seconds), **key} if self.seconds else key

    def _bucket(self, seconds: int) -> Document:
        if self.view == MetricViewType.SPANS:
            size = seconds * 1000 * _NANOSECONDS
            floor = {"$subtract": ["$start_time", {"$mod": ["$start_time", size]}]}
            return {"$divide": [floor, _NANOSECONDS]}
        path = "$request_time" if self.view == MetricViewType.TRACES else "$trace_time"
        return {"$subtract": [path, {"$mod": [path, seconds * 1000]}]}

    def point(self, name: str, group: Document, values: Document) -> MetricDataPoint:
        dimensions: dict[str, Any] = {}
        if self.seconds:
            began = datetime.fromtimestamp(float(group["bucket"]) / 1000, tz=UTC)
            dimensions[TIME_BUCKET] = began.isoformat()
        for index, dimension in enumerate(self.dimensions):
            dimensions[dimension] = group[f"g{index}"]
        return MetricDataPoint(dimensions=dimensions, metric_name=name, values=values)


_ACCUMULATORS = {
    AggregationType.SUM: "$sum",
    AggregationType.AVG: "$avg",
    AggregationType.MIN: "$min",
    AggregationType.MAX: "$max",
}


def group_pipeline(
    grouping: Grouping, match: Document, aggregations: Sequence[MetricAggregation], limit: int
) -> list[Document]:
    """Aggregated by the server: documents ``{_id: key, v0, v1, ...}`` in the order of their keys."""
    value = grouping.metric.value
    if value == DISTINCT_SESSIONS:
        # Two steps instead of one set: a set would have to fit one document.
        inner = {"_id": {**grouping.key(), "value": value}}
        outer = {"_id": {name: f"$_id.{name}" for name in grouping.key()}}
        stages = [{"$group": inner}, {"$group": outer | _fields(value, aggregations)}]
    else:
        stages = [{"$group": {"_id": grouping.key(), **_fields(value, aggregations)}}]
    return [{"$match": match}, *stages, {"$sort": {"_id": 1}}, {"$limit": limit}]


def _fields(value: Any, aggregations: Sequence[MetricAggregation]) -> Document:
    return {
        f"v{index}": {"$sum": 1}
        if aggregation.aggregation_type == AggregationType.COUNT
        else {_ACCUMULATORS[aggregation.aggregation_type]: value}
        for index, aggregation in enumerate(aggregations)
    }


def histogram_pipeline(grouping: Grouping, match: Document) -> list[Document]:
    """How often each value occurs in each group: documents ``{_id: {..., value}, n}``."""
    return [
        {"$match": match},
        {"$group": {"_id": {**grouping.key(), "value": grouping.metric.value}, "n": {"$sum": 1}}},
    ]


def aggregate(histogram: dict[Any, int], aggregation: MetricAggregation) -> float | int | None:
    """One aggregation over values and how often each occurs."""
    if not histogram:
        return None
    count = sum(histogram.values())
    match aggregation.aggregation_type:
        case AggregationType.COUNT:
            return count
        case AggregationType.MIN:
            return min(histogram, default=None)
        case AggregationType.MAX:
            return max(histogram, default=None)
        case AggregationType.PERCENTILE:
            percent = float(aggregation.percentile_value or 0)
            return percentile(lambda index: _nth(histogram, index), count, percent)
    total: float = sum(value * times for value, times in histogram.items())
    return total if aggregation.aggregation_type == AggregationType.SUM else float(total) / count


def percentile(nth: Callable[[int], float], count: int, percent: float) -> float:
    """Interpolated between the two nearest of the sorted values."""
    place = percent / 100 * (count - 1)
    below = int(place)
    lower, upper = (float(nth(min(each, count - 1))) for each in (below, below + 1))
    return lower + (place - below) * (upper - lower)


def _nth(histogram: dict[Any, int], index: int) -> float:
    seen = 0
    for value in sorted(histogram):
        seen += histogram[value]
        if index < seen:
            return float(value)
    return float(max(histogram))
