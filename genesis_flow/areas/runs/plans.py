"""How a page of runs is found. Round trips are of the first page; the documents of the page come on top.

A. Newest or oldest first: the index of the runs, in its order. One read, two behind a page token.
B. By one metric, then the newest: the index of the metric heads, in its order; each chunk of heads is
   joined with its runs by id. Two reads for a page. Numbers first, then NaN, then runs without it.
C. By params, tags, attributes: the best of all matching runs, sorted by MongoDB. One aggregation.
D. Everything else: ids and sort keys of all matching runs, metric values from the index of the heads, the
   best picked here. Memory grows with the matching runs, though only by their ids and keys.

A condition on a metric is asked of the heads first, one covered read for each metric: when few runs
satisfy it, D among those is cheapest whatever the order is. When many do, A and B go on in their order and
check each chunk, one read for each metric. Likewise B asks whether no more runs than a page has satisfy the
conditions on params, tags and attributes; and whether few do, once few of those that it came by did, or its
walk has become a long one.

A search that names metrics first asks which runs have points of them that wait to become part of their heads
(ADR 36): one read along the index of the heads. Those are few, left out of the plan, and judged apart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from genesis_flow.areas.metrics.places import LATEST_WAITING, PLACE, later, waiting_latest
from genesis_flow.areas.metrics.points import Point, step_order
from genesis_flow.areas.runs.filters import RunFilter
from genesis_flow.areas.runs.order import NEWEST_FIRST
from genesis_flow.documents.keys import head_id
from genesis_flow.documents.plain import Document, portions, value_at
from genesis_flow.documents.portable import PortableCollection
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.search.compare import holds
from genesis_flow.search.memory import LONGEST_PIPELINE_ORDER, Position, first_positions, top_pipeline
from genesis_flow.search.order import (
    MISSING_RANK,
    NAN_RANK,
    NUMBER_RANK,
    START_TIME,
    Kind,
    OrderKey,
    rank,
)
from genesis_flow.search.scan import Place, Scan, all_of

# Up to so many candidates, their ids and keys are cheaper than a walk along an index.
FEW = 2_000
# The most heads that are looked up one by one; for more, all heads of the metric are read along its index.
MOST_LOOKUPS = 2_000
# The most entries that one step of such a walk reads.
CHUNK = 1_000
# So many ids are looked up by two commands at once, of which the server works off each on a core of its own.
SHARED = 400
# A walk that is longer than this may be longer than a look for few candidates.
LONG_WALK = 2 * FEW
# To read fewer, where most may not count, saves less than another step costs.
LEAST_CHUNK = 200
# MongoDB merges the scans of so many experiments (times two stages) in index order; beyond, it would sort.
MOST_MERGED_EXPERIMENTS = 100

VALUE = "latest.value"
_BY_ID = "_id_"


@dataclass(frozen=True, slots=True)
class Question:
    """A search; ``match`` holds on the run documents, the metric conditions on the heads."""

    experiment_ids: list[int]
    match: Document
    filter: RunFilter
    order: Sequence[OrderKey]


@dataclass(frozen=True, slots=True)
class Found:
    """A run's position in the order, and its document if the plan had to read it anyway."""

    position: Position
    document: Document | None = None

    @property
    def run_id(self) -> str:
        run_id: str = self.position[-1]
        return run_id


Conditions = dict[str, list[Document]]
Read = Callable[[Any, int], Awaitable[list[Document]]]
Keep = Callable[[list[Document]], Awaitable[list[Found]]]
PlaceOf = Callable[[Document, Document], Any]
"""Where a read goes on behind an entry, of which it is known what follows it."""


class _Few(Exception):
    """These are all runs that satisfy the conditions on params, tags and attributes."""

    def __init__(self, rows: list[Document]) -> None:
        super().__init__()
        self.rows = rows


class RunFinder:
    """Answers one question from the collections of runs and metric heads."""

    def __init__(self, runs: Collection, heads: Collection, question: Question) -> None:
        self._runs = runs
        self._heads = heads
        self._question = question
        self._match = self._match_of_all = all_of(question.match, *question.filter.run_conditions)
        # The latest waiting points of the metrics in question, by run; no index has them yet.
        self._waiting: dict[str, dict[str, Point]] = {}
        # Of a walk along a metric: the heads so far, and those whose runs match.
        self._walked = self._matching = 0
        self._has_looked_for_few = not question.filter.run_conditions

    async def first(self, after: Position | None, limit: int) -> list[Found]:
        """The first ``limit`` runs behind ``after``, in order."""
        self._waiting, self._match = await self._find_waiting(), self._match_of_all
        if not self._waiting:
            return await self._first_settled(after, limit)
        rows = await self._keys_of(sorted(self._waiting))
        apart = await self._pick(rows, self._question.filter.metric_conditions, after, limit)
        self._match = all_of(self._match, {"_id": {"$nin": sorted(self._waiting)}})
        found = {each.run_id: each for each in [*apart, *await self._first_settled(after, limit)]}
        positions = first_positions(
            self._question.order, [each.position for each in found.values()], None, limit
        )
        return [found[position[-1]] for position in positions]

    async def _find_waiting(self) -> dict[str, dict[str, Point]]:
        metrics = {key.field for key in self._question.order if key.kind is Kind.METRIC}
        metrics |= self._question.filter.metric_conditions.keys()
        if not metrics or isinstance(self._heads, PortableCollection):  # whose stores have no places
            return {}
        waiting: dict[str, dict[str, Point]] = {}
        query = {
            "experiment_id": {"$in": self._question.experiment_ids},
            "key": PLACE,
            "keys": {"$in": sorted(metrics)},
            "rows.0": {"$exists": True},
        }
        fields = {"run_uuid": 1, **LATEST_WAITING}
        places = await self._heads.aggregate([{"$match": query}, {"$project": fields}], batchSize=BATCH)
        for place in await places.to_list():
            points = waiting_latest(place)
            of_run = waiting.setdefault(place["run_uuid"], {})
            for key in metrics & points.keys():
                of_run[key] = max(of_run.get(key, points[key]), points[key], key=step_order)
        return waiting

    async def _first_settled(self, after: Position | None, limit: int) -> list[Found]:
        order = self._question.order
        by_metric = order[0] if order[0].kind is Kind.METRIC and list(order[1:]) == [NEWEST_FIRST] else None
        candidates, conditions = await self._candidates(by_metric)
        if candidates is not None:
            rows = await self._keys_of(candidates)
            return await self._pick(rows, conditions, after, limit)
        if len(order) == 1 and order[0].field == START_TIME and order[0].kind is Kind.NUMBER:
            return await self._by_start_time(order[0].ascending, conditions, after, limit)
        if by_metric is not None and not isinstance(self._heads, PortableCollection):
            try:
                # As many as a page has are all to be looked at; and of a rare tag there are no more.
                await self._turn_back_for(min(limit, FEW))
                return await self._by_metric(by_metric, conditions, after, limit)
            except _Few as few:
                return await self._pick(few.rows, conditions, after, limit)
        has_metrics = conditions or any(key.kind is Kind.METRIC for key in order)
        if has_metrics or len(order) > LONGEST_PIPELINE_ORDER:
            rows = await self._runs.find(self._match, self._key_projection(), batch_size=BATCH).to_list()
            return await self._pick(rows, conditions, after, limit)
        return await self._sorted_by_server(after, limit)

    # Candidates

    async def _candidates(self, by_metric: OrderKey | None) -> tuple[list[str] | None, Conditions]:
        """The runs that selective metric conditions leave, and the conditions that are still to check.

        Those on the metric that orders the search narrow its range of the index anyway.
        """
        candidates: set[str] | None = None
        unchecked: Conditions = {}
        for key, conditions in self._question.filter.metric_conditions.items():
            few = None
            if by_metric is None or key != by_metric.field:
                few = await self._few_with(key, conditions)
            if few is None:
                unchecked[key] = conditions
            else:
                candidates = few if candidates is None else candidates & few
        return (None if candidates is None else sorted(candidates)), unchecked

    async def _few_with(self, key: str, conditions: list[Document]) -> set[str] | None:
        query = all_of(self._heads_with(key), *conditions)
        # One document with all ids is read in a fraction of the time that a client takes for one of each.
        together = {"$group": {"_id": None, "run_ids": {"$push": "$run_uuid"}}}
        found = await self._heads.aggregate([{"$match": query}, {"$limit": FEW + 1}, together])
        run_ids = [run_id for group in await found.to_list() for run_id in group["run_ids"]]
        return None if len(run_ids) > FEW else set(run_ids)

    async def _turn_back_for_few(self, limit: int) -> None:
        """Raise ``_Few`` if few runs match, on a walk along a metric that is, or will be, a long one."""
        is_selective = self._matching * FEW < self._walked * limit
        if not self._has_looked_for_few and (is_selective or self._walked > LONG_WALK):
            self._has_looked_for_few = True
            await self._turn_back_for(FEW)

    async def _turn_back_for(self, most: int) -> None:
        if not self._question.filter.run_conditions:
            return
        rows = await self._runs.find(
            self._match, self._key_projection(), limit=most + 1, batch_size=BATCH
        ).to_list()
        if len(rows) <= most:
            raise _Few(rows)

    async def _keys_of(self, run_ids: list[str]) -> list[Document]:
        if not run_ids:
            return []
        query = all_of({"_id": {"$in": run_ids}}, self._match)
        return await self._runs.find(query, self._key_projection(), hint=_BY_ID, batch_size=BATCH).to_list()

    def _key_projection(self) -> Document:
        fields = [key.field for key in self._question.order if key.kind is not Kind.METRIC]
        return {"_id": 1, **dict.fromkeys(fields, 1)}

    def _heads_with(self, key: str) -> Document:
        others = {"run_uuid": {"$nin": sorted(self._waiting)}} if self._waiting else {}
        return {"experiment_id": {"$in": self._question.experiment_ids}, "key": key, **others}

    async def _values(self, key: str, conditions: list[Document], run_ids: list[str]) -> dict[str, float]:
        """The latest values of a metric that satisfy ``conditions``, by run."""
        if self._waiting.keys() & run_ids:
            return await self._values_of_waiting(key, conditions, run_ids)
        if not run_ids:
            return {}
        which = self._heads_with(key)
        if len(run_ids) <= MOST_LOOKUPS:
            which = {"_id": {"$in": [head_id(run_id, key) for run_id in run_ids]}}
        heads = self._heads.find(
            all_of(which, *conditions), {"_id": 0, "run_uuid": 1, VALUE: 1}, batch_size=BATCH
        )
        return {head["run_uuid"]: head["latest"]["value"] for head in await heads.to_list()}

    async def _values_of_waiting(
        self, key: str, conditions: list[Document], run_ids: list[str]
    ) -> dict[str, float]:
        """As ``_values``, of runs some of whose points no head has yet."""
        values: dict[str, float] = {}
        for portion in portions(run_ids):
            which = {"_id": {"$in": [head_id(run_id, key) for run_id in portion]}}
            heads = self._heads.find(which, {"_id": 0, "run_uuid": 1, "latest": 1}, batch_size=BATCH)
            for head in await heads.to_list():
                run_id, top = head["run_uuid"], head["latest"]
                if (point := self._waiting[run_id].get(key)) is not None:
                    top = later(top, point)
                values[run_id] = top["value"]
        return {
            run_id: value
            for run_id, value in values.items()
            if all(holds(condition[VALUE], value) for condition in conditions)
        }

    async def _satisfying(self, run_ids: list[str], conditions: Conditions) -> list[str]:
        """The runs among ``run_ids`` that satisfy all metric conditions, in the same order."""
        for key, on_value in conditions.items():
            values = await self._values(key, on_value, run_ids)
            run_ids = [run_id for run_id in run_ids if run_id in values]
        return run_ids

    # C and D

    async def _pick(
        self, rows: list[Document], conditions: Conditions, after: Position | None, limit: int
    ) -> list[Found]:
        by_id = {row["_id"]: row for row in rows}
        run_ids = await self._satisfying(list(by_id), conditions)
        metrics = {
            key.field: await self._values(key.field, [], run_ids)
            for key in self._question.order
            if key.kind is Kind.METRIC
        }

        def position(run_id: str) -> Position:
            return [
                metrics[key.field].get(run_id)
                if key.kind is Kind.METRIC
                else value_at(by_id[run_id], key.field)
                for key in self._question.order
            ] + [run_id]

        picked = first_positions(self._question.order, map(position, run_ids), after, limit)
        return [Found(position) for position in picked]

    async def _sorted_by_server(self, after: Position | None, limit: int) -> list[Found]:
        order = self._question.order
        pipeline = top_pipeline(order, self._match, after, limit)
        cursor = await self._runs.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
        return [
            Found([*(row.get(f"v{index}") for index in range(len(order))), row["_id"]])
            for row in await cursor.to_list()
        ]

    # A

    async def _by_start_time(
        self, ascending: bool, conditions: Conditions, after: Position | None, limit: int
    ) -> list[Found]:
        projection = {START_TIME: 1} if conditions else None
        scan = Scan(self._runs, self._match, "_id", projection, self._run_index())
        read = scan.oldest_first if ascending else scan.newest_first
        place = None if after is None else (after[0], after[1])
        if not conditions:
            return [_found_run(row) for row in await read(place, limit)]

        async def keep(rows: list[Document]) -> list[Found]:
            satisfying = set(await self._satisfying([row["_id"] for row in rows], conditions))
            return [Found([row.get(START_TIME), row["_id"]]) for row in rows if row["_id"] in satisfying]

        return await _collect(read, keep, _run_place, place, limit, limit * 2)

    def _run_index(self) -> str | None:
        """Without conditions the index is plain; with some, the planner knows better which are selective."""
        if self._question.filter.run_conditions:
            return None
        few = len(self._question.experiment_ids) <= MOST_MERGED_EXPERIMENTS
        return "by_start_time" if few else "by_workspace"

    # B

    async def _by_metric(
        self, key: OrderKey, conditions: Conditions, after: Position | None, limit: int
    ) -> list[Found]:
        own = conditions.get(key.field, [])
        others = {name: on_value for name, on_value in conditions.items() if name != key.field}
        reached = NUMBER_RANK if after is None else rank(after[0])
        place = None if after is None else (after[1], after[2])
        selective = self._question.filter.run_conditions or others
        # Some of the heads may belong to runs in the other lifecycle stage.
        size = limit * 2 if selective else limit + limit // 4
        projection = {"_id": 0, "run_uuid": 1, START_TIME: 1, VALUE: 1}
        heads = Scan(self._heads, all_of(self._heads_with(key.field), *own), "run_uuid", projection)
        join = partial(self._join, others, limit)
        runs_in_order: list[Found] = []
        if reached == NUMBER_RANK:
            read = partial(heads.by_number, VALUE, key.ascending)
            start = None if after is None else (after[0], place)
            runs_in_order += await _collect(read, join, _value_place, start, limit, size)
        if reached <= NAN_RANK and len(runs_in_order) < limit:
            read = partial(heads.newest_first, within={VALUE: float("nan")})
            nan_start = place if reached == NAN_RANK else None
            runs_in_order += await _collect(
                read, join, _head_place, nan_start, limit - len(runs_in_order), size
            )
        if not own and len(runs_in_order) < limit:
            missing_start = place if reached == MISSING_RANK else None
            runs_in_order += await self._without_metric(
                key.field, others, missing_start, limit - len(runs_in_order)
            )
        return runs_in_order

    async def _join(self, others: Conditions, limit: int, heads: list[Document]) -> list[Found]:
        """Heads in order with their runs, as far as these match."""
        await self._turn_back_for_few(limit)
        run_ids = [head["run_uuid"] for head in heads]
        # Conditions on runs are checked where these are read, and leave fewer to ask metrics of.
        runs_first = bool(self._question.filter.run_conditions)
        if not runs_first:
            run_ids = await self._satisfying(run_ids, others)
        # Where many of them fall away again, a document is more than is asked of them.
        runs = await self._matching_among(run_ids, {"_id": 1} if runs_first and others else None)
        self._walked += len(heads)
        self._matching += len(runs)
        kept = set(await self._satisfying(list(runs), others)) if runs_first else runs.keys()
        return [
            Found([head["latest"]["value"], head.get(START_TIME), run_id], runs[run_id])
            for head in heads
            if (run_id := head["run_uuid"]) in kept
        ]

    async def _matching_among(
        self, run_ids: list[str], projection: Document | None
    ) -> dict[str, Document | None]:
        """The runs among ``run_ids`` that match, with their documents unless less is asked for."""

        async def read(ids: list[str]) -> list[Document]:
            query = all_of({"_id": {"$in": ids}}, self._match)
            return await self._runs.find(query, projection, hint=_BY_ID, batch_size=BATCH).to_list()

        middle = len(run_ids) // 2 if len(run_ids) > SHARED else 0
        parts = [part for part in (run_ids[:middle], run_ids[middle:]) if part]
        rows = [row for part in await asyncio.gather(*map(read, parts)) for row in part]
        return {row["_id"]: None if projection else row for row in rows}

    async def _without_metric(
        self, key: str, others: Conditions, after: Place | None, limit: int
    ) -> list[Found]:
        scan = Scan(self._runs, self._match, "_id", {START_TIME: 1}, self._run_index())

        async def keep(rows: list[Document]) -> list[Found]:
            without = await self._lacking(key, [row["_id"] for row in rows])
            kept = set(await self._satisfying(without, others))
            return [Found([None, row.get(START_TIME), row["_id"]]) for row in rows if row["_id"] in kept]

        size = max(limit * 2, LEAST_CHUNK)
        return await _collect(scan.newest_first, keep, _run_place, after, limit, size)

    async def _lacking(self, key: str, run_ids: list[str]) -> list[str]:
        """The runs among ``run_ids`` without a metric. Only the index of the heads' ids is read."""
        heads = {head_id(run_id, key): run_id for run_id in run_ids}
        present = await self._heads.find(
            {"_id": {"$in": list(heads)}}, {"_id": 1}, batch_size=BATCH
        ).to_list()
        for head in present:
            del heads[head["_id"]]
        return list(heads.values())


async def _collect(
    read: Read, keep: Keep, place_of: PlaceOf, after: Any, limit: int, size: int
) -> list[Found]:
    """Walk along an index in chunks until ``limit`` entries are kept or the index ends."""
    kept: list[Found] = []
    walked = 0
    size = min(size, CHUNK)
    while True:
        rows = await read(after, size + 1)
        following = rows.pop() if len(rows) > size else None
        kept += await keep(rows) if rows else []
        if following is None or len(kept) >= limit:
            return kept[:limit]
        after = place_of(rows[-1], following)
        walked += size
        # A quarter more than the yield so far asks for.
        needed = 5 * walked * (limit - len(kept)) // (4 * len(kept)) + 1 if kept else 2 * size
        size = min(needed, CHUNK)


def _found_run(row: Document) -> Found:
    return Found([row.get(START_TIME), row["_id"]], row)


def _run_place(row: Document, _following: Document) -> Place:
    return row.get(START_TIME), row["_id"]


def _head_place(row: Document, _following: Document) -> Place:
    return row.get(START_TIME), row["run_uuid"]


def _value_place(row: Document, following: Document) -> tuple[float, Place | None]:
    value = row["latest"]["value"]
    # Not to be asked for others of the same value, where it is known that there are none.
    is_last = following["latest"]["value"] != value
    return value, None if is_last else _head_place(row, following)
