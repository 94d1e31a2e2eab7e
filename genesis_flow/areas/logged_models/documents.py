"""Logged models: a document for what is written a few times, and one for each point of a metric.

MLflow reads a model with all its metric points and searches all of them, not only the latest, so points are
documents of their own, however many a model has. Their ids come from their content: a point logged again
is the same point. They begin with the run's id, so that a deleted run takes its points along.
"""

import hashlib

from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.entities import whole
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR, unescape_map
from genesis_flow.documents.plain import Document
from genesis_flow.documents.sharding import ShardKey


class LoggedModelFields(Declared):
    """A logged model with its params and tags."""

    id: str = Field(alias="_id", description="Model id, `m-…`.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Name.")
    artifact_location: str = Field(description="Folder of its files.")
    creation_timestamp: int = Field(description="When it was made.")
    last_updated_timestamp: int = Field(description="When it last changed.")
    status: int = Field(description="MLflow's number of the status, which is what its search orders by.")
    status_message: str | None = Field(default=None, description="Why it is not ready.")
    lifecycle_stage: str = Field(description="`active` or `deleted`.")
    model_type: str | None = Field(default=None, description="Type that the user gave, such as `Agent`.")
    source_run_id: str | None = Field(default=None, description="The run that made it.")
    params: dict[str, str] = Field(
        default_factory=dict, description="Values by escaped key; a param never changes."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Values by escaped key.")

    class Settings(CollectionSettings):
        name = "logged_models"
        shard = ShardKey("_id", "A model is written and loaded by its id.", beginning="m-")
        refers = {"experiment_id": "experiments", "source_run_id": "runs"}
        indexes = [
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("creation_timestamp", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_creation_time",
                serves="The page of models: the newest of some experiments.",
            ),
            Index([("source_run_id", ASCENDING)], name="by_run", serves="The models that a run made."),
            Index([("params.$**", ASCENDING)], name="params", serves="Filters by a param."),
            Index([("tags.$**", ASCENDING)], name="tags", serves="Filters by a tag."),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("last_updated_timestamp", ASCENDING),
                ],
                name="by_last_update",
                serves="What `mlflow gc` asks for.",
            ),
        ]
        keep_nulls = False


class ModelMetricFields(Declared):
    """One point of one metric of a model, from one run, perhaps on a dataset."""

    id: str = Field(
        alias="_id", description="`run|hash of the content`: a point logged again is the same point."
    )
    model_id: str = Field(description="Its model.")
    experiment_id: int = Field(
        description="The model's, which may be another than the run's: searches look for models."
    )
    run_id: str = Field(description="The run that logged it.")
    key: str = Field(description="Name of the metric.")
    value: float = Field(description="Value; NaN and infinities as they are.")
    timestamp: int = Field(description="Time.")
    step: int = Field(description="Step.")
    dataset_name: str | None = Field(default=None, description="Dataset that the model was measured on.")
    dataset_digest: str | None = Field(default=None, description="Digest of that dataset.")

    class Settings(CollectionSettings):
        name = "logged_model_metrics"
        shard = ShardKey("model_id", "A model is shown with its metrics.", beginning="m-")
        refers = {
            "model_id": "logged_models",
            "experiment_id": "experiments",
            "run_id": "runs",
        }
        indexes = [
            Index(
                [
                    ("model_id", ASCENDING),
                    ("key", ASCENDING),
                    ("timestamp", DESCENDING),
                    ("step", DESCENDING),
                    ("run_id", ASCENDING),
                ],
                name="by_model",
                serves="All points of a model; the first of each key is the latest.",
            ),
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("key", ASCENDING),
                    ("value", ASCENDING),
                    ("model_id", ASCENDING),
                ],
                name="by_value",
                serves="Filters and orders by a metric.",
            ),
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("dataset_name", ASCENDING),
                    ("dataset_digest", ASCENDING),
                    ("model_id", ASCENDING),
                ],
                name="by_dataset",
                partialFilterExpression={"dataset_name": {"$exists": True}},
                serves="Filters by the dataset of a metric.",
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
