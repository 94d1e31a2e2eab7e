"""How a page of logged models is found.

* A metric condition that few points satisfy (``FEW``) narrows the search to their models first, along the
  index by value or by dataset; one that many satisfy is checked for the models met on the way. Where the
  latest value counts, those few models are asked for it.
* The newest first: along the index by creation time, in chunks, and no further than the page.
* Other attributes: MongoDB sorts the matching models and keeps the page.
* A metric: the latest points of the matching models are compared here. MLflow takes the latest of the points
  on a dataset that the caller names, which no index can hold in advance.

A position is the list of the values that decide the order, the model id last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING

from genesis_flow.areas.logged_models.filters import (
    CREATION_TIME,
    NEWEST_FIRST,
    MetricCondition,
    ModelFilter,
    ModelOrderKey,
)
from genesis_flow.compat.rules import MODEL_METRICS_BY_LATEST
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.search.memory import LONGEST_PIPELINE_ORDER, first_positions, top_pipeline
from genesis_flow.search.order import Kind
from genesis_flow.search.scan import all_of

Position = list[Any]

FEW = 2_000
CHUNK = 1_000

_NEWEST = [(CREATION_TIME, DESCENDING), ("_id", ASCENDING)]
_BY_TIME = {"model_id": ASCENDING, "timestamp": DESCENDING, "step": DESCENDING, "run_id": ASCENDING}


@dataclass(frozen=True, slots=True)
class ModelFinder:
    models: Collection
    metrics: Collection
    experiment_ids: Sequence[int]
    # The condition on every model: experiments, lifecycle stage, workspace.
    match: Document
    filter: ModelFilter
    order: Sequence[ModelOrderKey]

    async def first(self, after: Position | None, limit: int) -> list[Position]:
        """The positions of the first ``limit`` models behind ``after``, in order."""
        candidates, unchecked = await self._candidates()
        if candidates is not None and not candidates:
            return []
        match = all_of(self.match, *self.filter.model_conditions)
        if candidates is not None:
            match = all_of(match, {"_id": {"$in": sorted(candidates)}})
        if list(self.order) == [NEWEST_FIRST]:
            return await self._newest(match, unchecked, after, limit)
        by_metric = any(key.kind is Kind.METRIC for key in self.order)
        if by_metric or unchecked or len(self.order) > LONGEST_PIPELINE_ORDER:
            return await self._sorted_here(match, unchecked, after, limit)
        pipeline = top_pipeline(self.order, match, after, limit)
        cursor = await self.models.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
        return [
            [*(row.get(f"v{index}") for index in range(len(self.order))), row["_id"]]
            for row in await cursor.to_list()
        ]

    async def _candidates(self) -> tuple[set[str] | None, list[MetricCondition]]:
        """The models that the selective metric conditions leave, and the conditions yet to check."""
        candidates: set[str] | None = None
        unchecked: list[MetricCondition] = []
        for condition in self.filter.metric_conditions:
            query = {"experiment_id": {"$in": list(self.experiment_ids)}, **condition.by_any()}
            points = await self.metrics.find(
                query, {"_id": 0, "model_id": 1}, limit=FEW + 1, batch_size=BATCH
            ).to_list()
            if len(points) > FEW:
                unchecked.append(condition)
            else:
                model_ids = {point["model_id"] for point in points}
                if condition.by_latest:
                    model_ids = await self._satisfying(sorted(model_ids), [condition])
                candidates = model_ids if candidates is None else candidates & model_ids
        return candidates, unchecked

    async def _models_with(self, model_ids: list[str], condition: MetricCondition) -> set[str]:
        of_models = {"model_id": {"$in": model_ids}}
        pipeline: list[Document] = (
            [*_latest_points({**of_models, **condition.points}), {"$match": {"value": condition.value}}]
            if condition.by_latest
            else [{"$match": {**of_models, **condition.by_any()}}, {"$group": {"_id": "$model_id"}}]
        )
        cursor = await self.metrics.aggregate(pipeline, allowDiskUse=True, batchSize=BATCH)
        return {row["_id"] for row in await cursor.to_list()}

    async def _satisfying(self, model_ids: list[str], conditions: list[MetricCondition]) -> set[str]:
        """The models among ``model_ids`` that satisfy each condition."""
        satisfying = set(model_ids)
        for condition in conditions:
            kept: set[str] = set()
            for portion in portions(sorted(satisfying)):
                kept |= await self._models_with(portion, condition)
            satisfying = kept
        return satisfying

    async def _newest(
        self, match: Document, unchecked: list[MetricCondition], after: Position | None, limit: int
    ) -> list[Position]:
        places: list[Position] = []
        size = CHUNK if unchecked else limit
        while True:
            rows = await self._chunk(match, after, size)
            if unchecked:
                kept = await self._satisfying([row["_id"] for row in rows], unchecked)
                places += [_place(row) for row in rows if row["_id"] in kept]
            else:
                places += [_place(row) for row in rows]
            if len(rows) < size or len(places) >= limit:
                return places[:limit]
            after = _place(rows[-1])

    async def _chunk(self, match: Document, after: Position | None, size: int) -> list[Document]:
        """The newest models behind ``after``; two reads, each along the index, instead of one with $or."""
        if after is None:
            return await self._read(match, _NEWEST, size)
        created, model_id = after
        same = all_of(match, {CREATION_TIME: created, "_id": {"$gt": model_id}})
        rows = await self._read(same, [("_id", ASCENDING)], size)
        if len(rows) < size:
            older = all_of(match, {CREATION_TIME: {"$lt": created}})
            rows += await self._read(older, _NEWEST, size - len(rows))
        return rows

    async def _read(self, query: Document, sort: list[tuple[str, int]], size: int) -> list[Document]:
        rows = self.models.find(query, {CREATION_TIME: 1}, sort=sort, limit=size, batch_size=BATCH)
        return await rows.to_list()

    async def _sorted_here(
        self, match: Document, unchecked: list[MetricCondition], after: Position | None, limit: int
    ) -> list[Position]:
        fields = {"_id": 1} | {key.field: 1 for key in self.order if key.kind is not Kind.METRIC}
        rows = {row["_id"]: row async for row in self.models.find(match, fields, batch_size=BATCH)}
        model_ids = sorted(await self._satisfying(list(rows), unchecked))
        values = [
            await self._latest(key, model_ids)
            if key.kind is Kind.METRIC
            else {model_id: rows[model_id].get(key.field) for model_id in model_ids}
            for key in self.order
        ]
        positions = ([*(value.get(model_id) for value in values), model_id] for model_id in model_ids)
        return first_positions(self.order, positions, after, limit)

    async def _latest(self, key: ModelOrderKey, model_ids: list[str]) -> dict[str, Any]:
        """The value of the latest point of a metric, by model."""
        points: Document = {"key": key.field, **dict(key.dataset)}
        if MODEL_METRICS_BY_LATEST:
            points |= self.filter.on_datasets
        if len(model_ids) > FEW:
            queries = [{"experiment_id": {"$in": list(self.experiment_ids)}, **points}]
        else:
            queries = [{"model_id": {"$in": portion}, **points} for portion in portions(model_ids)]
        latest: dict[str, Any] = {}
        for query in queries:
            cursor = await self.metrics.aggregate(_latest_points(query), allowDiskUse=True, batchSize=BATCH)
            latest |= {row["_id"]: row["value"] for row in await cursor.to_list()}
        return latest


def _latest_points(query: Document) -> list[Document]:
    """The pipeline of the value of the latest of the points that ``query`` finds, for each model."""
    match = {"$match": query}
    if MODEL_METRICS_BY_LATEST:
        # Documents are compared field by field.
        last = {"step": "$step", "timestamp": "$timestamp", "value": "$value"}
        latest = {"$group": {"_id": "$model_id", "last": {"$max": last}}}
        return [match, latest, {"$project": {"value": "$last.value"}}]
    return [
        match,
        {"$sort": _BY_TIME},
        {"$group": {"_id": "$model_id", "value": {"$first": "$value"}}},
    ]


def _place(row: Document) -> Position:
    return [row[CREATION_TIME], row["_id"]]
