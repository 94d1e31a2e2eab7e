"""Runs, traces and models, counted by the server in one pass over each collection, or over a range of it.

The server groups by workspace, experiment, user and day at once, so that few rows come here however many
documents there are. Users and bytes are in no index, so the documents are read.
"""

import heapq
from collections.abc import Iterator
from typing import Any

from mlflow.utils.mlflow_tags import MLFLOW_USER

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.logged_models.documents import LoggedModelFields
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.cli.usage.source import BATCH, Source, text_of
from genesis_flow.cli.usage.tally import DAY, Place, Tally
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document

LARGEST = 10

_USER_TAG = escape(MLFLOW_USER)
_STAGES = {"$in": ["active", "deleted"]}
# The first field of the indexes by time. Without a condition on it none of them is used.
_ANY_EXPERIMENT = {"$gte": INT64[0]}
_BYTES: Document = {"$convert": {"input": "$size_bytes", "to": "long", "onError": 0, "onNull": 0}}


def window_of_runs(since: int | None) -> Document:
    """The runs that started since then: by the index of the run table, one range for each experiment."""
    if since is None:
        return {}
    return {"experiment_id": _ANY_EXPERIMENT, "lifecycle_stage": _STAGES, "start_time": {"$gte": since}}


def _window_of_models(since: int | None) -> Document:
    if since is None:
        return {}
    started = {"creation_timestamp": {"$gte": since}}
    return {"experiment_id": _ANY_EXPERIMENT, "lifecycle_stage": _STAGES, **started}


def _window_of_traces(since: int | None) -> Document:
    return {} if since is None else {"experiment_id": _ANY_EXPERIMENT, "request_time": {"$gte": since}}


def _window_of_names(since: int | None) -> Document:
    return {} if since is None else {"creation_time": {"$gte": since}}


def _day(field: str) -> Document:
    return {"$floor": {"$divide": [f"${field}", DAY]}}


_REGISTERED: Document = {
    "workspace": "$workspace",
    "day": _day("creation_time"),
    "prompt": {"$eq": ["$is_prompt", True]},
}


def _grouped(
    source: Source,
    declared: type[Declared],
    window: Document,
    keys: Document,
    sums: dict[str, Any] | None = None,
) -> Iterator[tuple[Place, Document, Document]]:
    """The place, the key and the sums of each group."""
    group = {"_id": keys, "n": {"$sum": 1}, **{name: {"$sum": each} for name, each in (sums or {}).items()}}
    pipeline: list[Document] = [{"$match": window}] if window else []
    for row in source.rows(declared, [*pipeline, {"$group": group}]):
        key = row["_id"]
        experiment, day = key.get("experiment"), key.get("day")
        place = Place(
            key.get("workspace"),
            None if experiment is None else int(experiment),
            text_of(key.get("user")) if "user" in keys else None,
            None if day is None else int(day),
        )
        yield place, key, row


def count_runs(source: Source, tally: Tally, since: int | None) -> None:
    keys = {
        "workspace": "$workspace",
        "experiment": "$experiment_id",
        "user": "$user_id",
        "day": _day("start_time"),
        "deleted": {"$eq": ["$lifecycle_stage", "deleted"]},
    }
    window = window_of_runs(since)
    for place, key, row in _grouped(source, RunFields, window, keys, {"metrics": "$metric_keys"}):
        deleted = row["n"] if key["deleted"] else 0
        tally.add(place, {"runs": row["n"], "deleted_runs": deleted, "metrics": int(row["metrics"])})


def count_traces(source: Source, tally: Tally, since: int | None) -> None:
    keys = {
        "workspace": "$workspace",
        "experiment": "$experiment_id",
        "user": f"$metadata.{_USER_TAG}",
        "day": _day("request_time"),
    }
    window = _window_of_traces(since)
    for place, _, row in _grouped(source, TraceFields, window, keys, {"bytes": _BYTES}):
        if place.experiment is not None:  # not a trace yet, or no more
            tally.add(place, {"traces": row["n"], "trace_bytes": int(row["bytes"])})


def largest_traces(source: Source, since: int | None) -> list[Document]:
    """By the size that MLflow's clients have stated."""
    shown = {"experiment_id": 1, "name": 1, "request_time": 1, "bytes": _BYTES}
    pipeline: list[Document] = [
        {"$match": {**_window_of_traces(since), "size_bytes": {"$exists": True}}},
        {"$project": shown},
    ]
    if not source.settings.portable:  # which sorts by an index alone
        pipeline += [{"$sort": {"bytes": -1, "_id": 1}}, {"$limit": LARGEST}]
    rows = (row for row in source.rows(TraceFields, pipeline) if row["bytes"] and "experiment_id" in row)
    return heapq.nsmallest(LARGEST, rows, key=lambda row: (-row["bytes"], row["_id"]))


def count_logged_models(source: Source, tally: Tally, since: int | None) -> None:
    keys = {
        "workspace": "$workspace",
        "experiment": "$experiment_id",
        "user": f"$tags.{_USER_TAG}",
        "day": _day("creation_timestamp"),
        "deleted": {"$eq": ["$lifecycle_stage", "deleted"]},
    }
    for place, key, row in _grouped(source, LoggedModelFields, _window_of_models(since), keys):
        tally.add(place, {"models": row["n"], "deleted_models": row["n"] if key["deleted"] else 0})


def count_registered(source: Source, tally: Tally, since: int | None) -> None:
    """Registered models and prompts, which belong to no experiment and have no user."""
    for place, key, row in _grouped(source, RegisteredModelFields, _window_of_names(since), _REGISTERED):
        tally.add(place, {"prompts" if key["prompt"] else "registered_models": row["n"]})


def count_versions(source: Source, tally: Tally, since: int | None) -> None:
    keys = {**_REGISTERED, "user": "$user_id"}
    for place, key, row in _grouped(source, ModelVersionFields, _window_of_names(since), keys):
        tally.add(place, {"prompt_versions" if key["prompt"] else "model_versions": row["n"]})


def experiments(source: Source) -> dict[int, Document]:
    fields = {"workspace": 1, "name": 1, "lifecycle_stage": 1}
    found = source.collection(ExperimentFields).find({}, fields, batch_size=BATCH)
    return {int(each["_id"]): each for each in found}
