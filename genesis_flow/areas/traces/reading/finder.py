"""How traces that match are found.

Conditions on spans and assessments that few satisfy become conditions on traces first. The others are
checked on the way: traces are read in the order that is asked for, in chunks, until the page is full.
The newest first is the order of an index, for any other MongoDB sorts the traces that match.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from genesis_flow.areas.traces.reading.children import AssessmentCheck, Check, Collections, SpanCheck
from genesis_flow.areas.traces.reading.filters import TraceFilter
from genesis_flow.areas.traces.reading.order import COMPUTED, NEWEST_FIRST, REQUEST_TIME
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.search.memory import Position, top_pipeline
from genesis_flow.search.order import OrderKey
from genesis_flow.search.scan import all_of

# Traces in one step of a walk.
FIRST_CHUNK = 200
CHUNK = 1_000
_SORT = [(REQUEST_TIME, -1), ("_id", 1)]
# Fields of a trace that checks and positions need.
_KEYS = {"session_id": 1, REQUEST_TIME: 1}


@dataclass(frozen=True, slots=True)
class FoundTrace:
    position: Position
    # Absent if the walk had no need of it.
    document: Document | None = None

    @property
    def trace_id(self) -> str:
        trace_id: str = self.position[-1]
        return trace_id


class TraceFinder:
    """Answers for one filter.

    ``scope`` is a condition on traces, spans and assessments alike, ``match`` one on traces alone.
    """

    def __init__(
        self, collections: Collections, scope: Document, match: Document, trace_filter: TraceFilter
    ) -> None:
        self._traces: Collection = collections.traces
        self._match = all_of(match, *trace_filter.conditions)
        self._checks: list[Check] = [
            AssessmentCheck(collections, scope, asked) for asked in trace_filter.assessments
        ]
        if trace_filter.span is not None:
            self._checks.append(SpanCheck(collections, scope, trace_filter.span))
        self._prepared = False

    async def page(self, order: Sequence[OrderKey], after: Position | None, limit: int) -> list[FoundTrace]:
        """The first ``limit`` traces behind ``after``."""
        await self._prepare()
        if not self._checks:
            return await self._read(order, after, limit, whole=True)
        found: list[FoundTrace] = []
        async for passed in self._walk(order, after, max(FIRST_CHUNK, 2 * limit)):
            found += passed
            if len(found) >= limit:
                break
        return found[:limit]

    async def ids(self) -> set[str]:
        """All traces that match."""
        await self._prepare()
        if not self._checks:
            cursor = self._traces.find(self._match, {"_id": 1}, batch_size=BATCH)
            return {trace["_id"] async for trace in cursor}
        return {
            found.trace_id async for passed in self._walk([NEWEST_FIRST], None, CHUNK) for found in passed
        }

    async def conditions(self) -> Document | None:
        """All of the filter as one condition on traces, if it can be one."""
        await self._prepare()
        return None if self._checks else self._match

    async def _prepare(self) -> None:
        if self._prepared:
            return
        left: list[Check] = []
        for check in self._checks:
            condition = await check.few()
            if condition is None:
                left.append(check)
            else:
                self._match = all_of(self._match, condition)
        self._checks, self._prepared = left, True

    async def _walk(
        self, order: Sequence[OrderKey], after: Position | None, size: int
    ) -> AsyncIterator[list[FoundTrace]]:
        while True:
            size = min(size, CHUNK)
            rows = await self._read(order, after, size, whole=False)
            if rows:
                yield await self._passing(rows)
            if len(rows) < size:
                return
            after = rows[-1].position
            size *= 2

    async def _passing(self, rows: list[FoundTrace]) -> list[FoundTrace]:
        for check in self._checks:
            passing = await check.passing([row.document or {} for row in rows])
            rows = [row for row in rows if row.trace_id in passing]
            if not rows:
                break
        return [FoundTrace(row.position) for row in rows]

    async def _read(
        self, order: Sequence[OrderKey], after: Position | None, limit: int, *, whole: bool
    ) -> list[FoundTrace]:
        """Traces in order; ``whole`` with their documents, else with what checks ask for."""
        if list(order) == [NEWEST_FIRST]:
            query = all_of(self._match, _older(after)) if after is not None else self._match
            cursor = self._traces.find(
                query, None if whole else _KEYS, sort=_SORT, limit=limit, batch_size=BATCH
            )
            return [FoundTrace([trace[REQUEST_TIME], trace["_id"]], trace) async for trace in cursor]
        pipeline = top_pipeline(order, self._match, after, limit)
        if any(key.field in COMPUTED for key in order):
            pipeline.insert(1, {"$set": COMPUTED})
        if not whole:
            next(stage for stage in pipeline if "$project" in stage)["$project"]["session_id"] = 1
        rows = await (await self._traces.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)).to_list()
        return [
            FoundTrace(
                [*(row.get(f"v{index}") for index in range(len(order))), row["_id"]], None if whole else row
            )
            for row in rows
        ]


def _older(after: Position) -> Document:
    """Behind a trace in the order of the index; the outer bound is what the index works with."""
    time, trace_id = after
    return {
        REQUEST_TIME: {"$lte": time},
        "$or": [{REQUEST_TIME: {"$lt": time}}, {"_id": {"$gt": trace_id}}],
    }
