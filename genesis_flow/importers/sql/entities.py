"""Experiments, datasets and logged models."""

from collections.abc import Iterator, Sequence
from typing import Any

from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.sql.reading import Reading, checked, grouped

_EXPERIMENTS = {
    "experiment_id": "I",
    "name": "T",
    "artifact_location": "t",
    "lifecycle_stage": "t",
    "creation_time": "i",
    "last_update_time": "i",
}
DATASETS = {
    "dataset_uuid": "T",
    "experiment_id": "I",
    "name": "T",
    "digest": "T",
    "dataset_source_type": "t",
    "dataset_source": "t",
    "dataset_schema": "t",
    "dataset_profile": "t",
}
_MODELS = {
    "model_id": "T",
    "experiment_id": "I",
    "name": "T",
    "artifact_location": "T",
    "creation_timestamp_ms": "I",
    "last_updated_timestamp_ms": "I",
    "status": "I",
    "status_message": "t",
    "lifecycle_stage": "t",
    "model_type": "t",
    "source_run_id": "t",
}
_MODEL_METRICS = {
    "model_id": "T",
    "run_id": "T",
    "metric_name": "T",
    "metric_value": "r",
    "metric_timestamp_ms": "I",
    "metric_step": "I",
    "dataset_name": "t",
    "dataset_digest": "t",
}


def read_experiments(reading: Reading, ids: Sequence[int]) -> Iterator[Item]:
    problems: list[Problem] = []
    rows = reading.snapshot.of(
        "experiments", tuple(_EXPERIMENTS), "experiment_id", ids, order=("experiment_id",)
    )
    tags, lost = reading.maps("experiment_tags", "experiment_id", "key", "value", ids, "experiment")
    for row in checked(rows, _EXPERIMENTS, "experiments", "experiment", problems):
        number = row["experiment_id"]
        body = {
            **row,
            "experiment_id": str(number),
            "lifecycle_stage": row["lifecycle_stage"] or "active",
            "tags": tags.get(number, {}),
        }
        yield Record("experiment", str(number), body, reading.workspace_of(number))
    yield from problems + lost


def read_datasets(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    order = ("experiment_id", "name", "digest")
    rows = reading.snapshot.of("datasets", tuple(DATASETS), "dataset_uuid", ids, order=order)
    for row in checked(rows, DATASETS, "datasets", "dataset", problems):
        yield dataset_record(reading, row, row["experiment_id"])
    yield from problems


def dataset_record(reading: Reading, row: Body, experiment_id: int) -> Record:
    body = {
        "experiment_id": str(experiment_id),
        "name": row["name"],
        "digest": row["digest"],
        **{name: row[f"dataset_{name}"] for name in ("source_type", "source", "schema", "profile")},
        # The runs that used it bring them.
        "contexts": [],
    }
    where = f"{experiment_id}/{row['name']}/{row['digest']}"
    return Record("dataset", where, body, reading.workspace_of(experiment_id))


def read_logged_models(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    of = reading.snapshot.of
    rows = of("logged_models", tuple(_MODELS), "model_id", ids, order=("model_id",))
    params, lost_params = reading.maps(
        "logged_model_params", "model_id", "param_key", "param_value", ids, "logged_model"
    )
    tags, lost_tags = reading.maps(
        "logged_model_tags", "model_id", "tag_key", "tag_value", ids, "logged_model"
    )
    problems += lost_params + lost_tags
    order = ("model_id", "metric_name", "metric_timestamp_ms", "metric_step", "run_id")
    points = of("logged_model_metrics", tuple(_MODEL_METRICS), "model_id", ids, order=order)
    metrics = grouped(
        checked(points, _MODEL_METRICS, "logged_model_metrics", "logged_model", problems), "model_id"
    )
    for row in checked(rows, _MODELS, "logged_models", "logged_model", problems):
        model_id = row["model_id"]
        body = {
            **row,
            "experiment_id": str(row["experiment_id"]),
            "lifecycle_stage": row["lifecycle_stage"] or "active",
            "creation_timestamp": row["creation_timestamp_ms"],
            "last_updated_timestamp": row["last_updated_timestamp_ms"],
            "params": params.get(model_id, {}),
            "tags": tags.get(model_id, {}),
            "metrics": list(_points(model_id, metrics.get(model_id, ()), problems)),
        }
        del body["creation_timestamp_ms"], body["last_updated_timestamp_ms"]
        yield Record("logged_model", model_id, body, reading.workspace_of(row["experiment_id"]))
    yield from problems


def _points(
    model_id: str, rows: Sequence[dict[str, Any]], problems: list[Problem]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row["metric_value"] is None:
            where = f"table logged_model_metrics, model_id={model_id}, metric_name={row['metric_name']}"
            problems.append(Problem("logged_model", where, "metric_value is missing", 1))
            continue
        yield {
            "run_id": row["run_id"],
            "key": row["metric_name"],
            "value": row["metric_value"],
            "timestamp": row["metric_timestamp_ms"],
            "step": row["metric_step"],
            "dataset_name": row["dataset_name"],
            "dataset_digest": row["dataset_digest"],
        }
