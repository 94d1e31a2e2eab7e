"""The search of runs, which the UI does all day.

Round trips: how the page is found is in ``genesis_flow.areas.runs.plans``, one or two in the usual cases;
then one for the runs that were not read on the way, and one for their metric heads with, side by side, one
for their datasets if any has inputs.
"""

import asyncio
import re
from typing import Any

from bson.regex import Regex
from mlflow.entities import LifecycleStage, Metric, Run

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.metrics.places import LATEST_WAITING, laid_over
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.filters import parse_filter
from genesis_flow.areas.runs.order import parse_order
from genesis_flow.areas.runs.plans import Found, Question, RunFinder
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.core.memory import collector_paused
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.entities import metric_entities, metric_entity, run_entity, run_parts
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.waiting import meanwhile
from genesis_flow.search.order import parse_position
from genesis_flow.search.tokens import create_token, parse_token

# No limit, as a number that MongoDB takes for one.
_EVERYTHING = 2**31 - 2


class RunSearch(Area):
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
        with collector_paused():
            return [
                run_entity(
                    document,
                    metrics.get(place.run_id, []),
                    datasets,
                    with_model_inputs=False,
                    parts=parts[place.run_id],
                )
                for place in page
                if (document := documents.get(place.run_id)) is not None  # deleted for good meanwhile
            ]

    async def _metrics_and_datasets(
        self, runs: dict[str, Document]
    ) -> tuple[dict[str, list[Metric]], dict[str, Document]]:
        if not any(run.get("inputs") for run in runs.values()):
            return await self._metrics(runs), {}
        return await asyncio.gather(self._metrics(runs), self._datasets(list(runs.values())))

    async def _metrics(self, runs: dict[str, Document]) -> dict[str, list[Metric]]:
        """The latest metrics of runs. A prefix of ``_id`` is a range of its index, however many runs."""
        heads = self.database.reading(MetricHeadFields)
        by_run: dict[str, list[Metric]] = {}
        for portion in portions(list(runs)):
            query: Document = {"run_uuid": {"$in": portion}}
            if not self.database.documents.portable:
                # Not re.compile: its Unicode flag would make the server walk the whole index.
                query = {"_id": {"$in": [Regex("^" + re.escape(run_id + SEPARATOR)) for run_id in portion]}}
            if any(runs[run_id].get("places") for run_id in portion):
                by_run |= await self._metrics_with_waiting(heads, query)
                continue
            # All at once: there are some for each run, and each would be awaited.
            found = await heads.find(query, {"latest": 1}, batch_size=BATCH).to_list()
            with collector_paused():
                for head in found:
                    # A place that is made only now has none; the server would look for it in every document.
                    if (latest := head.get("latest")) is not None:
                        run_id, _, key = head["_id"].partition(SEPARATOR)
                        by_run.setdefault(run_id, []).append(metric_entity(key, latest))
        return by_run

    async def _metrics_with_waiting(self, heads: Collection, query: Document) -> dict[str, list[Metric]]:
        """Of runs of which some have places: what waits in these is laid over the other heads."""
        projection = {"_id": 0, "run_uuid": 1, "key": 1, "latest": 1, **LATEST_WAITING}
        # In the order of the index, which begins with the places.
        pipeline: list[Document] = [{"$match": query}, {"$sort": {"_id": 1}}, {"$project": projection}]
        found = await heads.aggregate(pipeline, batchSize=BATCH)
        by_run: dict[str, list[Document]] = {}
        for head in await found.to_list():
            by_run.setdefault(head["run_uuid"], []).append(head)
        return {run_id: metric_entities(laid_over(documents)) for run_id, documents in by_run.items()}

    async def _datasets(self, runs: list[Document]) -> dict[str, Document]:
        used = {dataset["id"] for run in runs for dataset in run.get("inputs") or []}
        datasets = self.database.reading(DatasetFields)
        by_id: dict[str, Document] = {}
        for portion in portions(sorted(used)):
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
