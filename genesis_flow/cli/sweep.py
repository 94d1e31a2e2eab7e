"""What the quickstart does with MLflow: log a sweep of runs, then search them.

Nothing here knows of MongoDB.
"""

import logging
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import mlflow
from mlflow.entities import Run

from genesis_flow.cli.chart import line_chart
from genesis_flow.cli.training import STEPS, Choice, MoonClassifier, choices

EXPERIMENT = "quickstart"
SORTED_BY = ["metrics.validation_accuracy DESC", "metrics.validation_loss ASC"]
FILTER = "metrics.validation_accuracy > 0.85 and params.degree = '3'"

_POINTS_PER_STEP = 3
# They would send the runs into another experiment, or into a run that is not in this store.
_STRAY_VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


@dataclass(frozen=True)
class Sweep:
    """What one quickstart logged and found."""

    experiment_id: str
    parent_run_id: str
    runs: list[Run]
    matching: list[Run]
    runs_in_experiment: int
    points: int
    seconds_to_open: float
    seconds_to_log: float


def log_sweep(uri: str, count: int) -> Sweep:
    """Log ``count`` runs under one parent to the store at ``uri``, and search them."""
    for name in _STRAY_VARIABLES:
        os.environ.pop(name, None)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    begin = time.monotonic()
    experiment_id = mlflow.set_experiment(EXPERIMENT).experiment_id
    opened = time.monotonic()
    parent_run_id = _train_all(
        choices(count), seed=len(_search(experiment_id, "attributes.run_name LIKE 'sweep%'"))
    )
    logged = time.monotonic()
    children = f"tags.`mlflow.parentRunId` = '{parent_run_id}'"
    return Sweep(
        experiment_id=experiment_id,
        parent_run_id=parent_run_id,
        runs=_search(experiment_id, children, SORTED_BY),
        matching=_search(experiment_id, f"{children} and {FILTER}"),
        runs_in_experiment=len(_search(experiment_id)),
        points=count * STEPS * _POINTS_PER_STEP,
        seconds_to_open=opened - begin,
        seconds_to_log=logged - opened,
    )


def _train_all(tried: list[Choice], seed: int) -> str:
    """A parent run with one nested run for each choice; returns the parent's id."""
    curves: dict[str, list[float]] = {}
    with mlflow.start_run(run_name=f"sweep {seed + 1}") as parent:
        mlflow.log_params({"data_seed": seed, "runs": len(tried)})
        mlflow.set_tag("model", "logistic regression on powers of the coordinates")
        for choice in tried:
            name = f"degree {choice.degree}, rate {choice.learning_rate}"
            with mlflow.start_run(run_name=name, nested=True):
                curves[name] = _train_one(choice, seed)
        mlflow.log_metric("lowest_validation_loss", min(curve[-1] for curve in curves.values()))
        mlflow.log_text(line_chart("Validation loss of all runs", "step", curves), "validation_loss.svg")
        run_id: str = parent.info.run_id
    return run_id


def _train_one(choice: Choice, seed: int) -> list[float]:
    """Train and log one model in the active run; returns the curve of its validation loss."""
    model = MoonClassifier(choice, seed)
    mlflow.log_params(asdict(choice))
    mlflow.set_tag("model", "logistic regression")
    curves: dict[str, list[float]] = {"training": [], "validation": []}
    for measurement in model.train():
        metrics = asdict(measurement)
        step = metrics.pop("step")
        mlflow.log_metrics(metrics, step=step)
        curves["training"].append(measurement.train_loss)
        curves["validation"].append(measurement.validation_loss)
    mlflow.log_text(line_chart("Loss", "step", curves), "loss.svg")
    mlflow.log_dict({**asdict(choice), "weights": model.weights}, "model.json")
    return curves["validation"]


def _search(experiment_id: str, query: str = "", order_by: list[str] | None = None) -> list[Run]:
    """All pages of a search."""
    client = mlflow.MlflowClient()
    runs: list[Run] = []
    token: str | None = None
    while True:
        page: Any = client.search_runs([experiment_id], query, order_by=order_by, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
