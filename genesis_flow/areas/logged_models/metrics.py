"""Metrics of logged models, which come in with the metrics of a run."""

from typing import NoReturn

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields, model_metric
from genesis_flow.mongo.arguments import check_entity_texts
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.writes import insert_missing


def refuse_unknown_model(model_id: str) -> NoReturn:
    raise MlflowException(f"Logged model with ID '{model_id}' not found.", RESOURCE_DOES_NOT_EXIST)


async def experiments_of_models(database: Database, metrics: list[Metric]) -> dict[str, int]:
    """The experiment of each model that ``metrics`` name; asks the database only if they name one."""
    wanted: set[str] = set()
    for metric in metrics:
        if metric.model_id is not None:
            check_entity_texts(metric, "model_id", "dataset_name", "dataset_digest")
            wanted.add(metric.model_id)
    if not wanted:
        return {}
    models = database.collection(LoggedModelFields).find(
        scoped({"_id": {"$in": sorted(wanted)}}), {"experiment_id": 1}
    )
    experiments = {model["_id"]: model["experiment_id"] async for model in models}
    for model_id in sorted(wanted - experiments.keys()):
        refuse_unknown_model(model_id)
    return experiments


async def write_model_metrics(
    database: Database, run_id: str, metrics: list[Metric], experiments: dict[str, int]
) -> None:
    """Write the points of the models in ``experiments``, each once however often it is logged."""
    points = {
        point["_id"]: point
        for metric in metrics
        if metric.model_id is not None
        for point in [model_metric(run_id, experiments[metric.model_id], metric)]
    }
    if points:
        await insert_missing(database.collection(ModelMetricFields), list(points.values()))
