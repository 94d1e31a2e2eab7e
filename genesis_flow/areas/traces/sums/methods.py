"""Metrics over traces, spans and assessments.

Round trips: one, as the documents copy what the usual questions ask of their trace. A filter on traces in a
question about spans or assessments takes one more, and one for each 1,000 traces that satisfy it. A question
about many traces without filters takes two for each experiment, from sums that readers keep (``kept_sums``).
"""

import asyncio
from typing import Any

from mlflow.entities.trace_metrics import (
    AggregationType,
    MetricAggregation,
    MetricDataPoint,
    MetricViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import MAX_RESULTS_QUERY_TRACE_METRICS

from genesis_flow.areas.experiments.guards import visible_experiments
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, TraceFields
from genesis_flow.areas.traces.shared import spans_within
from genesis_flow.areas.traces.sums.kept import Question, answer, can_be_asked
from genesis_flow.areas.traces.sums.merging import Tallies, Tally, can_be_kept
from genesis_flow.areas.traces.sums.metrics import (
    Grouping,
    MetricFilters,
    aggregate,
    checked_metric,
    group_pipeline,
    histogram_pipeline,
    parse_metric_filters,
    time_range,
)
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.scan import all_of

# More are asked in one question of the traces.
_MOST_EXPERIMENTS = 10
_COLLECTIONS: dict[MetricViewType, type[Declared]] = {
    MetricViewType.TRACES: TraceFields,
    MetricViewType.SPANS: SpanFields,
    MetricViewType.ASSESSMENTS: AssessmentFields,
}


class TraceMetrics(Area):
    @operation
    async def query_trace_metrics(
        self,
        experiment_ids: list[str],
        view_type: MetricViewType,
        metric_name: str,
        aggregations: list[MetricAggregation],
        dimensions: list[str] | None = None,
        filters: list[str] | None = None,
        time_interval_seconds: int | None = None,
        start_time_ms: int | None = None,
        end_time_ms: int | None = None,
        max_results: int = MAX_RESULTS_QUERY_TRACE_METRICS,
        page_token: str | None = None,
    ) -> PagedList[MetricDataPoint]:
        """Counts, averages and percentiles of traces, spans or assessments, by dimension and time."""
        dimensions = dimensions or []
        metric = checked_metric(view_type, metric_name, aggregations, dimensions)
        if time_interval_seconds and (start_time_ms is None or end_time_ms is None):
            raise MlflowException.invalid_parameter_value(
                "start_time_ms and end_time_ms are required if time_interval_seconds is set"
            )
        if not aggregations:
            return _without_aggregations(dimensions, time_interval_seconds)
        numbers = [number for number in parse_experiment_ids([*experiment_ids]) if number in INT64]
        if view_type == MetricViewType.SPANS:
            numbers = await visible_experiments(self.database, numbers)
        scope: Document = {"experiment_id": {"$in": numbers}}
        asked = parse_metric_filters(filters or [], view_type)
        grouping = Grouping(view_type, metric, dimensions, time_interval_seconds or None)
        match = grouping.condition(
            scope if view_type == MetricViewType.SPANS else scoped(scope),
            {"valid": True} if view_type == MetricViewType.ASSESSMENTS else {},
            time_range(view_type, metric_name, start_time_ms, end_time_ms),
            *asked.own,
        )
        percentiles = any(each.aggregation_type == AggregationType.PERCENTILE for each in aggregations)
        summed: Tallies | None = None
        if not asked.own and can_be_kept(grouping) and len(numbers) <= _MOST_EXPERIMENTS:
            summed = await self._tallies(
                [
                    Question(metric_name, grouping, number, start_time_ms, end_time_ms, aggregations)
                    for number in sorted(set(numbers))
                ]
            )
        if summed is not None:
            points = [
                grouping.point(
                    metric_name,
                    dict(zip(grouping.key(), group, strict=True)),
                    {str(each): summed[group].outcome(each) for each in aggregations},
                )
                for group in sorted(summed)
            ]
        elif asked.of_traces or percentiles:
            matches = await self._metric_matches(match, scope, asked, view_type)
            points = await self._counted_points(grouping, matches, metric_name, aggregations)
        else:
            points = await self._grouped_points(grouping, match, metric_name, aggregations, max_results)
        if not points and not grouping.names:
            points = _nothing(grouping, metric_name, aggregations)
        return PagedList(points[:max_results], None)

    async def _tallies(self, questions: list[Question]) -> Tallies | None:
        """The answer from kept sums, if it can be had from them to the last bit."""
        if self.database.settings.portable or not all(map(can_be_asked, questions)):
            return None
        together: Tallies = {}
        if len(questions) == 1:
            answers = [await answer(self.database, questions[0])]
        else:
            answers = await asyncio.gather(*(answer(self.database, each) for each in questions))
        for found in answers:
            for group, tally in found.items():
                together.setdefault(group, Tally()).join(tally)
        return together if all(tally.is_exact for tally in together.values()) else None

    async def _grouped_points(
        self,
        grouping: Grouping,
        match: Document,
        name: str,
        aggregations: list[MetricAggregation],
        limit: int,
    ) -> list[MetricDataPoint]:
        pipeline = group_pipeline(grouping, match, aggregations, limit)
        collection = self.database.collection(_COLLECTIONS[grouping.view])
        cursor = await collection.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
        points = []
        async for row in cursor:
            values = {
                str(aggregation): _plain(row[f"v{index}"])
                for index, aggregation in enumerate(aggregations)
                if row[f"v{index}"] is not None
            }
            if values:
                points.append(grouping.point(name, row["_id"], values))
        return points

    async def _metric_matches(
        self, match: Document, scope: Document, asked: MetricFilters, view: MetricViewType
    ) -> list[Document]:
        """The condition, or one for each part of the traces that satisfy the filters on traces."""
        if not asked.of_traces:
            return [match]
        traces = self.database.collection(TraceFields).find(
            all_of(scoped(scope), *asked.of_traces), {"_id": 1}, batch_size=BATCH
        )
        trace_ids = [trace["_id"] async for trace in traces]
        return [
            all_of(
                match,
                {"_id": spans_within(portion)}
                if view == MetricViewType.SPANS
                else {"trace_id": {"$in": portion}},
            )
            for portion in portions(trace_ids)
        ]

    async def _counted_points(
        self,
        grouping: Grouping,
        matches: list[Document],
        name: str,
        aggregations: list[MetricAggregation],
    ) -> list[MetricDataPoint]:
        collection = self.database.collection(_COLLECTIONS[grouping.view])
        groups: dict[tuple[Any, ...], dict[Any, int]] = {}
        for match in matches:
            pipeline = histogram_pipeline(grouping, match)
            cursor = await collection.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
            async for row in cursor:
                *key, value = row["_id"].values()
                histogram = groups.setdefault(tuple(key), {})
                value = _plain(value)
                histogram[value] = histogram.get(value, 0) + int(row["n"])
        names = list(grouping.key())
        points = []
        for group in sorted(groups):
            found = {str(each): aggregate(groups[group], each) for each in aggregations}
            points.append(grouping.point(name, dict(zip(names, group, strict=True)), found))
        return points


def _without_aggregations(
    dimensions: list[str], time_interval_seconds: int | None
) -> PagedList[MetricDataPoint]:
    """Groups of which nothing is asked are no points; without groups, nothing is asked at all."""
    if not dimensions and not time_interval_seconds:
        raise MlflowException.invalid_parameter_value("aggregations is empty. Name at least one aggregation.")
    return PagedList([], None)


def _nothing(grouping: Grouping, name: str, aggregations: list[MetricAggregation]) -> list[MetricDataPoint]:
    """Without groups, nothing is counted as zero."""
    counts = {str(each): 0 for each in aggregations if each.aggregation_type == AggregationType.COUNT}
    return [grouping.point(name, {}, counts)] if counts else []


def _plain(value: Any) -> Any:
    """Without BSON's own kinds of numbers."""
    return int(value) if isinstance(value, int) else value
