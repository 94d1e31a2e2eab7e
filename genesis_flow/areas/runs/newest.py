"""The newest runs of experiments, which pages and programs ask for all day, as reads that follow each other.

A blocking caller's thread sends them itself (ADR 22): one for the runs, one for their metrics, and one for
their datasets if any has inputs.
"""

from collections.abc import Callable
from typing import Any

from mlflow.entities import Metric, Run

from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.pages import datasets_used, heads_of, metrics_of, run_entities
from genesis_flow.documents.plain import IDS_AT_ONCE, Document
from genesis_flow.mongo.direct import OneRead
from genesis_flow.search.order import START_TIME

Page = tuple[list[Run], str | None]


class NewestRuns:
    """A page of them, as far as it is read."""

    def __init__(self, match: Document, limit: int, token: Callable[[Document], str]) -> None:
        """``token`` is that of the page behind a run."""
        self._match = match
        self._limit = limit
        self._token_behind = token
        self._token: str | None = None
        self._runs: dict[str, Document] = {}
        self._metrics: dict[str, list[Metric]] = {}

    def read(self) -> OneRead:
        pipeline: list[Document] = [
            {"$match": self._match},
            {"$sort": {START_TIME: -1, "_id": 1}},
            {"$limit": self._limit + 1},
        ]
        return OneRead(RunFields, pipeline, self._with_runs, hint="by_start_time")

    def _with_runs(self, rows: list[Document]) -> OneRead | Page:
        page = rows[: self._limit]
        if len(rows) > self._limit:
            self._token = self._token_behind(page[-1])
        self._runs = {row["_id"]: row for row in page}
        if not page:
            return [], None
        return OneRead(MetricHeadFields, heads_of(self._runs), self._with_heads)

    def _with_heads(self, heads: list[Document]) -> OneRead | Page | None:
        self._metrics = metrics_of(heads)
        used = datasets_used(self._runs.values())
        if len(used) > IDS_AT_ONCE:
            return None  # they are read in portions
        if used:
            return OneRead(DatasetFields, [{"$match": {"_id": {"$in": used}}}], self._with_datasets)
        return self._with_datasets([])

    def _with_datasets(self, found: list[Document]) -> Page:
        datasets: dict[str, Any] = {dataset["_id"]: dataset for dataset in found}
        return run_entities(self._runs.values(), self._metrics, datasets), self._token
