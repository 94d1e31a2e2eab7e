"""What a page of runs is made of: their documents, the heads of their metrics, and their datasets."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bson.regex import Regex
from mlflow.entities import Metric, Run

from genesis_flow.areas.metrics.places import LATEST_WAITING, laid_over
from genesis_flow.core.memory import collector_paused
from genesis_flow.documents.entities import RunParts, metric_entities, metric_entity, run_entity
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document

# Of runs without places. A place that is made only now does not have it, and is left out by that: to look for
# places the server would read another field of every head.
LATEST = {"latest": 1}


def ids_of_heads(run_ids: Iterable[str]) -> Document:
    """A prefix of ``_id`` is a range of its index, however many runs."""
    # Not re.compile: its Unicode flag would make the server walk the whole index.
    return {"_id": {"$in": [Regex("^" + re.escape(run_id + SEPARATOR)) for run_id in run_ids]}}


def have_places(runs: Mapping[str, Document]) -> bool:
    return any(run.get("places") for run in runs.values())


def heads_of(runs: Mapping[str, Document], query: Document | None = None) -> list[Document]:
    """The pipeline that reads the metric heads of runs; ``query`` finds them where not by their ids."""
    match = {"$match": query or ids_of_heads(runs)}
    if not have_places(runs):
        return [match, {"$project": LATEST}]
    # In the order of the index, which begins with what waits to become part of the other heads.
    return [match, {"$sort": {"_id": 1}}, {"$project": {"key": 1, "latest": 1, **LATEST_WAITING}}]


def metrics_of(heads: list[Document]) -> dict[str, list[Metric]]:
    """The latest metrics by run."""
    by_run: dict[str, list[Metric]] = {}
    with_places: dict[str, list[Document]] = {}
    with collector_paused():
        for head in heads:
            run_id, _, key = head["_id"].partition(SEPARATOR)
            if "key" in head:
                with_places.setdefault(run_id, []).append(head)
            elif (latest := head.get("latest")) is not None:
                by_run.setdefault(run_id, []).append(metric_entity(key, latest))
        by_run |= {run_id: metric_entities(laid_over(found)) for run_id, found in with_places.items()}
    return by_run


def datasets_used(runs: Iterable[Document]) -> list[str]:
    """The ids of the datasets that runs have as inputs."""
    return sorted({dataset["id"] for run in runs for dataset in run.get("inputs") or []})


def run_entities(
    runs: Iterable[Document],
    metrics: Mapping[str, list[Metric]],
    datasets: dict[str, Any],
    parts: Mapping[str, RunParts],
) -> list[Run]:
    """The runs of a page in its order; ``parts`` are what was made of them before."""
    with collector_paused():
        return [
            run_entity(
                run,
                metrics.get(run["_id"], []),
                datasets,
                with_model_inputs=False,
                parts=parts[run["_id"]],
            )
            for run in runs
        ]
