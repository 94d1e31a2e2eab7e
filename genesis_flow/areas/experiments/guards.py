"""Checks that several areas share: areas meet here, not in each other."""

import math
import numbers
from typing import Any, NoReturn

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.core.errors import invalid
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.scoping import scoped, workspaces_enabled

ACTIVE = LifecycleStage.ACTIVE
DELETED = LifecycleStage.DELETED
# The value of ``pending`` for an experiment that is being deleted for good.
ERASED = "erased"
# The condition that a run is not being deleted for good. That is never taken back: ADR 18.
STAYS: dict[str, Any] = {"erasing": {"$exists": False}}
DEFAULT_EXPERIMENT_ID = 0

# Fields of its run that a write needs: whether it may, and what the run's children copy.
CHILD_FIELDS = {"lifecycle_stage": 1, "experiment_id": 1, "start_time": 1}


async def find_run(
    database: Database, run_id: str, projection: dict[str, Any] | None = None, session: Session | None = None
) -> dict[str, Any]:
    """The run's document, or MLflow's error for a run that is not there."""
    runs = database.collection(RunFields)
    run = await runs.find_one(scoped({"_id": run_id}), projection, session=session)
    if run is None:
        refuse_unknown_run(run_id)
    return run


async def require_visible_runs(database: Database, *run_ids: str) -> None:
    """Where workspaces are enabled, refuse runs that are not there, though there is nothing to read of them.

    Without them MLflow answers such questions with nothing, and asks nothing.
    """
    if not workspaces_enabled():
        return
    query = scoped({"_id": {"$in": list(run_ids)}})
    visible = {run["_id"] async for run in database.collection(RunFields).find(query, {"_id": 1})}
    for run_id in run_ids:
        if run_id not in visible:
            refuse_unknown_run(run_id)


async def find_active_run(
    database: Database,
    run_id: str,
    projection: dict[str, Any] | None = CHILD_FIELDS,
    session: Session | None = None,
) -> dict[str, Any]:
    """The run's document, or MLflow's error for a run that cannot be written."""
    run = await find_run(database, run_id, projection, session)
    if run["lifecycle_stage"] != ACTIVE:
        refuse_inactive_run(run_id, run["lifecycle_stage"])
    return run


def refuse_unknown_run(run_id: str) -> NoReturn:
    raise MlflowException(f"Run with id={run_id} not found", RESOURCE_DOES_NOT_EXIST)


def refuse_inactive_run(run_id: str, stage: str) -> NoReturn:
    raise MlflowException(
        f"The run {run_id} must be in the 'active' state. Current state is {stage}.",
        INVALID_PARAMETER_VALUE,
    )


def refuse_undeleted_run(run_id: str) -> NoReturn:
    raise MlflowException(
        f"The run {run_id} must be in the 'deleted' state to be deleted for good. Current state is {ACTIVE}.",
        INVALID_PARAMETER_VALUE,
    )


def experiment_number(experiment_id: str | int | None) -> int:
    """The number behind an experiment id; none means the default experiment."""
    return parse_experiment_id(experiment_id or DEFAULT_EXPERIMENT_ID)


def refuse_unknown_experiment(number: int) -> NoReturn:
    raise MlflowException(f"No Experiment with id={number} exists", RESOURCE_DOES_NOT_EXIST)


async def find_active_experiment(database: Database, experiment_id: str) -> int:
    """The number of an experiment that is there and not deleted."""
    number = experiment_number(experiment_id)
    query = scoped({"_id": number, "lifecycle_stage": ACTIVE})
    if await database.collection(ExperimentFields).find_one(query, {"_id": 1}) is None:
        refuse_unknown_experiment(number)
    return number


async def require_active_experiment(database: Database, experiment_id: str | int) -> int:
    """The number of an active experiment; the error tells a deleted one from one that is not there."""
    number = experiment_number(experiment_id)
    experiments = database.collection(ExperimentFields)
    experiment = await experiments.find_one(scoped({"_id": number}), {"lifecycle_stage": 1})
    if experiment is None:
        refuse_unknown_experiment(number)
    check_experiment_active(experiment)
    return number


async def visible_experiments(database: Database, numbers: list[int]) -> list[int]:
    """The experiments whose spans and points may be read, which have no workspace themselves."""
    if not workspaces_enabled():
        return numbers
    experiments = database.collection(ExperimentFields)
    found = {each["_id"] async for each in experiments.find(scoped({"_id": {"$in": numbers}}), {"_id": 1})}
    return [number for number in numbers if number in found]


def refuse_unknown_dataset(dataset_id: str) -> NoReturn:
    raise MlflowException(f"Evaluation dataset with id '{dataset_id}' not found", RESOURCE_DOES_NOT_EXIST)


def check_experiment_active(document: dict[str, Any]) -> None:
    if document["lifecycle_stage"] != ACTIVE:
        raise MlflowException(
            f"The experiment {document['_id']} must be in the 'active' state. "
            f"Current state is {document['lifecycle_stage']}.",
            INVALID_PARAMETER_VALUE,
        )


def active(run_id: str) -> dict[str, Any]:
    """The filter of a write: the run, if it is active."""
    return scoped({"_id": run_id, "lifecycle_stage": ACTIVE})


def milliseconds(name: str, value: Any) -> int:
    """A time as it is stored; one with a fraction, as ``time.time() * 1000`` gives it, is cut."""
    if value is None:
        raise invalid(f"{name} cannot be None")
    if not _is_finite(value):
        raise invalid(f"{name} must be a time in milliseconds since 1970, not {value!r}.")
    return int(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def validate_max_results(max_results: int | None, *, allow_null: bool = False) -> None:
    if max_results is None and allow_null:
        return
    if max_results is None or max_results < 1:
        raise MlflowException(
            f"Invalid value {max_results} for parameter 'max_results' supplied. "
            "It must be a positive integer",
            INVALID_PARAMETER_VALUE,
        )
    if max_results > SEARCH_MAX_RESULTS_THRESHOLD:
        raise MlflowException(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be at most "
            f"{SEARCH_MAX_RESULTS_THRESHOLD}",
            INVALID_PARAMETER_VALUE,
        )
