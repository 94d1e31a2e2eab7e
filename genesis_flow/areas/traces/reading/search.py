"""The search of traces, and what compares two searches.

Round trips of a page, newest first: two (the traces, their assessments); one more for each condition on spans
or assessments, and for traces that were found by their keys alone.
"""

import asyncio

from mlflow.entities import TraceInfo
from mlflow.store.analytics import trace_correlation
from mlflow.store.tracking import SEARCH_TRACES_DEFAULT_MAX_RESULTS
from mlflow.tracing.analysis import TraceFilterCorrelationResult

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.traces.documents import KNOWN, AssessmentFields, SpanFields, TraceFields
from genesis_flow.areas.traces.entities import trace_info_entity
from genesis_flow.areas.traces.reading.children import Collections
from genesis_flow.areas.traces.reading.filters import parse_trace_filter
from genesis_flow.areas.traces.reading.finder import FoundTrace, TraceFinder
from genesis_flow.areas.traces.reading.order import parse_trace_order
from genesis_flow.areas.traces.reading.read import load_contents
from genesis_flow.areas.traces.shared import assessments_of
from genesis_flow.compat.validation import (
    parse_experiment_id,
    parse_experiment_ids,
    resolve_experiment_ids_and_locations,
)
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.order import parse_position
from genesis_flow.search.scan import all_of
from genesis_flow.search.tokens import create_token, parse_token


class TraceSearch(Area):
    @operation
    async def search_traces(
        self,
        experiment_ids: list[str] | None = None,
        filter_string: str | None = None,
        max_results: int = SEARCH_TRACES_DEFAULT_MAX_RESULTS,
        order_by: list[str] | None = None,
        page_token: str | None = None,
        model_id: str | None = None,
        locations: list[str] | None = None,
    ) -> tuple[list[TraceInfo], str | None]:
        """A page of the traces that match, without their spans, and the token of the next."""
        locations = resolve_experiment_ids_and_locations(experiment_ids, locations)
        validate_max_results(max_results)
        numbers = None if locations is None else sorted({parse_experiment_id(each) for each in locations})
        order = parse_trace_order(order_by)
        asked = [numbers, filter_string or "", list(order_by or [])]
        after = parse_token(page_token, asked)
        if after is not None:
            after = parse_position(order, after)
        finder = trace_finder(self.database, numbers, filter_string)
        found = await finder.page(order, after, max_results + 1)
        page = found[:max_results]
        token = create_token(asked, page[-1].position) if len(found) > max_results else None
        return await self._trace_infos(page), token

    async def _trace_infos(self, found: list[FoundTrace]) -> list[TraceInfo]:
        ids = [each.trace_id for each in found]
        documents = {each.trace_id: each.document for each in found if each.document is not None}
        assessments, missing = await asyncio.gather(
            assessments_of(self.database, ids),
            self._documents_of([trace_id for trace_id in ids if trace_id not in documents]),
        )
        documents |= missing
        return [
            trace_info_entity(documents[trace_id], assessments.get(trace_id, []))
            for trace_id in ids
            if trace_id in documents  # deleted meanwhile
        ]

    async def _documents_of(self, trace_ids: list[str]) -> dict[str, Document]:
        traces = self.database.reading(TraceFields)
        return {
            trace["_id"]: trace
            for portion in portions(trace_ids)
            async for trace in traces.find(scoped({"_id": {"$in": portion}, **KNOWN}), batch_size=BATCH)
        }

    @operation
    async def calculate_trace_filter_correlation(
        self,
        experiment_ids: list[str],
        filter_string1: str,
        filter_string2: str,
        base_filter: str | None = None,
    ) -> TraceFilterCorrelationResult:
        """How much two filters have to do with each other, among the traces that satisfy ``base_filter``."""
        numbers = parse_experiment_ids([*experiment_ids])
        first, second = (
            f"{base_filter} and {each}" if base_filter else each for each in (filter_string1, filter_string2)
        )
        finders = [trace_finder(self.database, numbers, each) for each in (base_filter, first, second)]
        total, in_first, in_second, in_both = await self._correlation_counts(*finders)
        npmi = trace_correlation.calculate_npmi_from_counts(in_both, in_first, in_second, total)
        return TraceFilterCorrelationResult(
            npmi=npmi.npmi,
            npmi_smoothed=npmi.npmi_smoothed,
            filter1_count=in_first,
            filter2_count=in_second,
            joint_count=in_both,
            total_count=total,
        )

    async def _correlation_counts(
        self, base: TraceFinder, first: TraceFinder, second: TraceFinder
    ) -> list[int]:
        """How many traces each finds, and how many the last two both find."""
        conditions = [await finder.conditions() for finder in (base, first, second)]
        plain = [condition for condition in conditions if condition is not None]
        if len(plain) == len(conditions):
            traces = self.database.reading(TraceFields)
            queries = [*plain, all_of(plain[1], plain[2])]
            return list(await asyncio.gather(*(traces.count_documents(query) for query in queries)))
        in_base, in_first, in_second = [await finder.ids() for finder in (base, first, second)]
        return [len(ids) for ids in (in_base, in_first, in_second, in_first & in_second)]


def trace_finder(
    database: Database,
    experiment_ids: list[int] | None,
    filter_string: str | None,
    match: Document | None = None,
) -> TraceFinder:
    """Finds the traces of experiments, or of all of them, that satisfy a filter."""
    scope = KNOWN
    if experiment_ids is not None:
        scope = {"experiment_id": {"$in": [number for number in experiment_ids if number in INT64]}}

    async def contents(spans: list[Document]) -> list[str]:
        return await load_contents(database, spans)

    collections = Collections(
        database.reading(TraceFields),
        database.reading(SpanFields),
        database.reading(AssessmentFields),
        contents,
    )
    trace_filter = parse_trace_filter(filter_string)
    return TraceFinder(collections, scope, scoped({**scope, **(match or {})}), trace_filter)
