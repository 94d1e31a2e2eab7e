"""The search of logged models.

Round trips: how the page is found is in ``areas/logged_models/plans.py``, one in the usual case and one more
for each metric condition; then the models and their metrics, side by side.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT

from genesis_flow.areas.experiments.guards import ACTIVE
from genesis_flow.areas.logged_models.documents import (
    LoggedModelFields,
    ModelMetricFields,
    logged_model_entity,
)
from genesis_flow.areas.logged_models.filters import parse_model_filter, parse_model_order
from genesis_flow.areas.logged_models.plans import ModelFinder
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.order import parse_position
from genesis_flow.search.tokens import create_token, parse_token


class LoggedModelSearch(Area):
    @operation
    async def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """A page of the models that match."""
        limit = _page_size(max_results)
        wanted = parse_model_filter(filter_string, datasets)
        order = parse_model_order(order_by)
        numbers = sorted(set(parse_experiment_ids([*(experiment_ids or [])])))
        asked = [numbers, filter_string or "", datasets or [], order_by or []]
        after = parse_token(page_token, asked)
        if after is not None:
            after = parse_position(order, after)
        experiments = [number for number in numbers if number in INT64]
        if not experiments:
            return PagedList([], None)
        finder = ModelFinder(
            self.database.reading(LoggedModelFields),
            self.database.reading(ModelMetricFields),
            experiments,
            scoped({"experiment_id": {"$in": experiments}, "lifecycle_stage": ACTIVE}),
            wanted,
            order,
        )
        places = await finder.first(after, limit + 1)
        token = create_token(asked, places[limit - 1]) if len(places) > limit else None
        return PagedList(await self._models_with_metrics([each[-1] for each in places[:limit]]), token)

    async def _models_with_metrics(self, model_ids: Sequence[str]) -> list[LoggedModel]:
        if not model_ids:
            return []
        wanted = {"$in": list(model_ids)}
        models, points = await asyncio.gather(
            self.database.reading(LoggedModelFields)
            .find(scoped({"_id": wanted}), batch_size=BATCH)
            .to_list(),
            self.database.reading(ModelMetricFields).find({"model_id": wanted}, batch_size=BATCH).to_list(),
        )
        by_id = {model["_id"]: model for model in models}
        metrics: dict[str, list[Document]] = {}
        for point in points:
            metrics.setdefault(point["model_id"], []).append(point)
        return [
            logged_model_entity(by_id[model_id], metrics.get(model_id, []))
            for model_id in model_ids
            if model_id in by_id  # deleted for good meanwhile
        ]


def _page_size(max_results: int | None) -> int:
    if max_results is not None and max_results < 0:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
        )
    return max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
