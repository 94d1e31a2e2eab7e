"""The search of runs, which the UI does all day.

Round trips: how the page is found is in ``genesis_flow.areas.runs.plans``, one or two in the usual cases;
then one for the runs that were not read on the way, and one for their metric heads with, side by side, one
for their datasets if any has inputs.
"""

from typing import Any

from mlflow.entities import LifecycleStage, Metric, Run

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.filters import parse_filter
from genesis_flow.areas.runs.order import NEWEST_FIRST, parse_order
from genesis_flow.areas.runs.pages import (
    LATEST,
    datasets_used,
    have_places,
    heads_of,
    metrics_of,
    run_entities,
)
from genesis_flow.areas.runs.plans import Found, Question, RunFinder
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.entities import run_parts
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, direct, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.waiting import both, meanwhile, prefer_loop
from genesis_flow.search.order import parse_position
from genesis_flow.search.tokens import create_token, parse_token

# No limit, as a number that MongoDB takes for one.
_EVERYTHING = 2**31 - 2


class RunSearch(Area):
    @direct
    @operation
    async def _search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int | None,
        order_by: list[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        validate_max_results(max_results, allow_null=True)
        run_filter = parse_filter(filter_string)
        order = parse_order(order_by)
        if run_filter.metric_conditions or order != [NEWEST_FIRST]:
            prefer_loop()
        experiments = sorted(set(parse_experiment_ids([*(experiment_ids or [])])))
        asked = [experiments, filter_string or "", run_view_type, list(order_by or [])]
        after = parse_token(page_token, asked)
        if after is not None:
            after = parse_position(order, after)
        experiments = [number for number in experiments if number in INT64]
        match = _match(experiments, run_view_type)
        if match is None:
            return [], None
        limit = _EVERYTHING if max_results is None else max_results
        finder = RunFinder(
            self.database.reading(RunFields),
            self.database.reading(MetricHeadFields),
            Question(experiments, match, run_filter, order),
        )
        runs = await finder.first(after, limit + 1)
        page = runs[:limit]
        token = create_token(asked, page[-1].position) if len(runs) > limit else None
        return await self._entities(page), token

    async def _entities(self, page: list[Found]) -> list[Run]:
        documents = {place.run_id: place.document for place in page if place.document is not None}
        missing = [place.run_id for place in page if place.document is None]
        runs = self.database.reading(RunFields)
        for run_ids in portions(missing):
            query = scoped({"_id": {"$in": run_ids}})
            found = await runs.find(query, hint="_id_", batch_size=BATCH).to_list()
            documents |= {run["_id"]: run for run in found}
        (metrics, datasets), parts = await meanwhile(
            self._metrics_and_datasets(documents),
            lambda: {run_id: run_parts(document) for run_id, document in documents.items()},
        )
        # Those that were not deleted for good meanwhile.
        there = [documents[place.run_id] for place in page if place.run_id in documents]
        return run_entities(there, metrics, datasets, parts)

    async def _metrics_and_datasets(
        self, runs: dict[str, Document]
    ) -> tuple[dict[str, list[Metric]], dict[str, Document]]:
        used = datasets_used(runs.values())
        if not used:
            return await self._metrics(runs), {}
        return await both(self._metrics(runs), self._datasets(used))

    async def _metrics(self, runs: dict[str, Document]) -> dict[str, list[Metric]]:
        heads = self.database.reading(MetricHeadFields)
        by_run: dict[str, list[Metric]] = {}
        for portion in portions(runs):
            asked = {run_id: runs[run_id] for run_id in portion}
            query = {"run_uuid": {"$in": portion}} if self.database.documents.portable else None
            if query and not have_places(asked):
                found: Any = heads.find(query, LATEST, batch_size=BATCH)
            else:
                found = await heads.aggregate(heads_of(asked, query), batchSize=BATCH)
            # All at once: there are some for each run, and each would be awaited.
            by_run |= metrics_of(await found.to_list())
        return by_run

    async def _datasets(self, used: list[str]) -> dict[str, Document]:
        datasets = self.database.reading(DatasetFields)
        by_id: dict[str, Document] = {}
        for portion in portions(used):
            by_id |= {
                found["_id"]: found
                async for found in datasets.find({"_id": {"$in": portion}}, batch_size=BATCH)
            }
        return by_id


def _match(experiments: list[int], view_type: int) -> Document | None:
    """The condition on the experiments and the lifecycle stage, or None if no run can satisfy it."""
    stages = LifecycleStage.view_type_to_stages(view_type)
    if not experiments or not stages:
        return None
    stage = stages[0] if len(stages) == 1 else {"$in": stages}
    return scoped({"experiment_id": {"$in": experiments}, "lifecycle_stage": stage})
