"""Logged models: a document for what is written a few times, and one for each point of a metric.

MLflow reads a model with all its metric points and searches all of them, not only the latest, so points are
documents of their own, however many a model has. Their ids come from their content: a point logged again
is the same point. They begin with the run's id, so that a deleted run takes its points along.
"""

import hashlib
from typing import Any, ClassVar

from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.documents.entities import whole
from genesis_flow.documents.keys import SEPARATOR, unescape_map

Document = dict[str, Any]


class LoggedModelFields(BaseModel):
    id: str = Field(alias="_id")
    workspace: str
    experiment_id: int
    name: str
    artifact_location: str
    creation_timestamp: int
    last_updated_timestamp: int
    # MLflow's number of the status, which is what its search orders by.
    status: int
    status_message: str | None = None
    lifecycle_stage: str
    model_type: str | None = None
    source_run_id: str | None = None
    params: dict[str, str] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)

    class Settings:
        name = "logged_models"
        indexes: ClassVar[list[IndexModel]] = [
            # The page of models: the newest of some experiments.
            IndexModel(
                [
                    ("experiment_id", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("creation_timestamp", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_creation_time",
            ),
            IndexModel([("source_run_id", ASCENDING)], name="by_run"),
            IndexModel([("params.$**", ASCENDING)], name="params"),
            IndexModel([("tags.$**", ASCENDING)], name="tags"),
            # What `mlflow gc` asks for.
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("last_updated_timestamp", ASCENDING),
                ],
                name="by_last_update",
            ),
        ]
        keep_nulls = False


class ModelMetricFields(BaseModel):
    """One point of one metric of a model, from one run, perhaps on a dataset."""

    id: str = Field(alias="_id")
    model_id: str
    # The model's, which may be another than the run's: searches look for models.
    experiment_id: int
    run_id: str
    key: str
    value: float
    timestamp: int
    step: int
    dataset_name: str | None = None
    dataset_digest: str | None = None

    class Settings:
        name = "logged_model_metrics"
        indexes: ClassVar[list[IndexModel]] = [
            # All points of a model; the first of each key is the latest.
            IndexModel(
                [
                    ("model_id", ASCENDING),
                    ("key", ASCENDING),
                    ("timestamp", DESCENDING),
                    ("step", DESCENDING),
                    ("run_id", ASCENDING),
                ],
                name="by_model",
            ),
            IndexModel(
                [
                    ("experiment_id", ASCENDING),
                    ("key", ASCENDING),
                    ("value", ASCENDING),
                    ("model_id", ASCENDING),
                ],
                name="by_value",
            ),
            IndexModel(
                [
                    ("experiment_id", ASCENDING),
                    ("dataset_name", ASCENDING),
                    ("dataset_digest", ASCENDING),
                    ("model_id", ASCENDING),
                ],
                name="by_dataset",
                partialFilterExpression={"dataset_name": {"$exists": True}},
            ),
        ]
        keep_nulls = False


def model_metric(run_id: str, experiment_id: int, metric: Metric) -> Document:
    """The document of a metric point that names a model."""
    document: Document = {
        "model_id": metric.model_id,
        "experiment_id": experiment_id,
        "run_id": run_id,
        "key": metric.key,
        "value": float(metric.value),
        "timestamp": int(metric.timestamp),
        "step": int(metric.step),
    }
    if metric.dataset_name is not None:
        document |= {"dataset_name": metric.dataset_name, "dataset_digest": metric.dataset_digest}
    identity = "\0".join(f"{field}={value!r}" for field, value in document.items())
    digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return {"_id": f"{run_id}{SEPARATOR}{digest}", **document}


def logged_model_entity(document: Document, metrics: list[Document]) -> LoggedModel:
    """A model with its metric points, in the order of their keys and times."""
    metrics = sorted(metrics, key=lambda point: (point["key"], point["timestamp"], point["step"]))
    return LoggedModel(
        experiment_id=str(document["experiment_id"]),
        model_id=document["_id"],
        name=document["name"],
        artifact_location=document["artifact_location"],
        creation_timestamp=int(document["creation_timestamp"]),
        last_updated_timestamp=int(document["last_updated_timestamp"]),
        model_type=document.get("model_type"),
        source_run_id=document.get("source_run_id"),
        status=LoggedModelStatus.from_int(document["status"]),
        status_message=document.get("status_message"),
        tags=_texts(document.get("tags")),
        params=_texts(document.get("params")),
        metrics=[_metric_entity(point) for point in metrics] or None,
    )


def _texts(fields: dict[str, str | None] | None) -> dict[str, str]:
    return {key: value for key, value in unescape_map(fields).items() if value is not None}


def _metric_entity(point: Document) -> Metric:
    return Metric(
        key=point["key"],
        value=point["value"],
        timestamp=whole(point["timestamp"]) or 0,
        step=whole(point["step"]) or 0,
        model_id=point["model_id"],
        dataset_name=point.get("dataset_name"),
        dataset_digest=point.get("dataset_digest"),
        run_id=point["run_id"],
    )
