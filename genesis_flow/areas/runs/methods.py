"""Runs: create, read, update, delete, restore.

Round trips: create two (the insert, the experiment), the first in an experiment three; get one (the run and
its metric heads), another only if the run has dataset inputs; update one, and more at the end of a run with
wide steps, which are folded then. Delete and restore change the run and its metric heads together.

A run is there before its experiment is looked at, and goes again if that is not active: so either the
deletion of an experiment finds the run, or the run finds the deletion.
"""

import asyncio
from typing import Any

from mlflow.entities import Run, RunInfo, RunInputs, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import missing_value
from pymongo import ReturnDocument

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import (
    ACTIVE,
    DELETED,
    STAYS,
    active,
    check_experiment_active,
    experiment_number,
    find_active_run,
    find_run,
    milliseconds,
    refuse_unknown_experiment,
    refuse_unknown_run,
)
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.metrics.places import WAITING, laid_over
from genesis_flow.areas.metrics.remembered import MetricMemory
from genesis_flow.areas.metrics.wide import fold_all
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.compat.names import generate_random_name, get_run_name_from_tags
from genesis_flow.core.errors import invalid
from genesis_flow.core.settings import Settings
from genesis_flow.documents.entities import metric_entities, run_entity, run_info_entity
from genesis_flow.documents.keys import children_of, escape, stored_text
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import Area, call_token, direct, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once

RUN_NAME_FIELD = f"tags.{escape(MLFLOW_RUN_NAME)}"
_INFO = {"params": 0, "tags": 0, "inputs": 0, "model_inputs": 0, "model_outputs": 0}
ARTIFACTS_FOLDER = "artifacts"
# More experiments than this are not remembered.
_EXPERIMENTS = 10_000
_EXPERIMENT = {"lifecycle_stage": 1, "artifact_location": 1}
_LATEST = {"key": 1, "latest": 1, **WAITING}


class Runs(MetricMemory, Area):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # Of experiments that were active when a run was last made in them. Only a guess, which is checked.
        self._active_experiments: dict[tuple[str, int], dict[str, Any]] = {}

    @property
    def _runs(self) -> Collection:
        return self.database.collection(RunFields)

    @direct
    @mutation
    async def create_run(
        self,
        experiment_id: str,
        user_id: str | None,
        start_time: int | None,
        tags: list[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        """Start a run in an active experiment."""
        number = experiment_number(experiment_id)
        remembered = (current_workspace(), number)
        experiment = self._active_experiments.get(remembered)
        while True:
            if experiment is None:
                experiment = await self._find_active_experiment(number)
            run = await self._insert_run(number, experiment, user_id, start_time, tags, run_name)
            now = await self._experiment(number)
            if now == experiment:
                break
            # Deleted between the two, or not as it was remembered.
            await self._runs.delete_one({"_id": run.info.run_id})
            self._active_experiments.pop(remembered, None)
            experiment = None
        if len(self._active_experiments) >= _EXPERIMENTS:
            self._active_experiments.clear()
        self._active_experiments[remembered] = experiment
        self._known_metrics.begin(run.info.run_id)
        return Run(run.info, run.data, RunInputs(dataset_inputs=[]))

    async def _experiment(self, number: int) -> dict[str, Any] | None:
        experiments = self.database.collection(ExperimentFields)
        return await experiments.find_one(scoped({"_id": number}), _EXPERIMENT)

    async def _find_active_experiment(self, number: int) -> dict[str, Any]:
        experiment = await self._experiment(number)
        if experiment is None:
            refuse_unknown_experiment(number)
        check_experiment_active(experiment)
        return experiment

    async def _insert_run(
        self,
        number: int,
        experiment: dict[str, Any],
        user_id: str | None,
        start_time: int | None,
        tags: list[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        if user_id is None:
            raise invalid("user_id cannot be None")
        tags = _with_name(tags, run_name)
        run_id = call_token()  # a repetition must find the run that an earlier attempt made
        document: dict[str, Any] = {
            "_id": run_id,
            "workspace": current_workspace(),
            "experiment_id": number,
            "name": get_run_name_from_tags(tags),
            "user_id": user_id,
            "status": RunStatus.to_string(RunStatus.RUNNING),
            "start_time": milliseconds("start_time", start_time),
            "end_time": None,
            "lifecycle_stage": ACTIVE,
            "artifact_uri": append_to_uri_path(experiment["artifact_location"], run_id, ARTIFACTS_FOLDER),
            "params": {},
            "tags": {escape(tag.key): stored_text(tag.value) for tag in tags},
        }
        # Made before it is stored: what MLflow refuses to represent must not be kept either.
        run = run_entity(document, [], {}, with_model_inputs=True)
        made = await insert_once(self._runs, document)
        if made is not document:  # an earlier attempt made it, under another random name
            run = run_entity(made, [], {}, with_model_inputs=True)
        return run

    @direct
    @operation
    async def get_run(self, run_id: str) -> Run:
        """A run with its params, tags, latest metrics, inputs and outputs; a deleted one too."""
        run, heads = await self._run_and_heads(run_id)
        datasets: dict[str, dict[str, Any]] = {}
        if used := run.get("inputs"):
            query = {"_id": {"$in": [dataset["id"] for dataset in used]}}
            found = self.database.collection(DatasetFields).find(query)
            datasets = {document["_id"]: document async for document in found}
        return run_entity(run, metric_entities(heads), datasets, with_model_inputs=True)

    async def _run_and_heads(self, run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if self.database.documents.portable:
            heads = self.database.collection(MetricHeadFields)
            cursor = heads.find({"_id": children_of(run_id)}, _LATEST, batch_size=BATCH)
            run, metrics = await asyncio.gather(find_run(self.database, run_id), cursor.to_list())
            return run, laid_over(metrics)
        rows = await self._runs.aggregate(self._with_heads(run_id), batchSize=BATCH)
        run, metrics = _apart(run_id, await rows.to_list())
        if run is None:
            refuse_unknown_run(run_id)
        return run, metrics

    def _with_heads(self, run_id: str) -> list[dict[str, Any]]:
        """A run and its metric heads in one command, which costs a client as much as a hundred documents.

        No $lookup: its result is one document, which must not be larger than 16 MB.
        """
        heads = self.database.collection(MetricHeadFields).name
        # In the order of the index, which begins with what waits to become part of the others.
        of_run: list[dict[str, Any]] = [
            {"$match": {"_id": children_of(run_id)}},
            {"$sort": {"_id": 1}},
            {"$project": _LATEST},
        ]
        return [
            {"$match": scoped({"_id": run_id})},
            {"$unionWith": {"coll": heads, "pipeline": of_run}},
        ]

    @direct
    @mutation
    async def update_run_info(
        self,
        run_id: str,
        run_status: int | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        """Change status, end or name of an active run; what is None stays."""
        change: dict[str, Any] = {}
        if run_status is not None:
            change["status"] = RunStatus.to_string(run_status)
        if end_time is not None:
            change["end_time"] = milliseconds("end_time", end_time)
        if run_name:
            change["name"] = change[RUN_NAME_FIELD] = run_name
        if not change:
            return run_info_entity(await find_active_run(self.database, run_id, _INFO))
        run = await self._runs.find_one_and_update(
            active(run_id), {"$set": change}, _INFO, return_document=ReturnDocument.AFTER
        )
        # Not matched: not there or not active, and the read says which.
        run = run or await find_active_run(self.database, run_id, _INFO)
        if run.get("places") and RunStatus.is_terminated(RunStatus.from_string(run["status"])):
            await fold_all(self.database, run_id)
            self._known_places.forget(run_id)
        return run_info_entity(run)

    @mutation
    async def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted; restore_run brings it back."""
        # Whoever only trains deletes nothing.
        from genesis_flow.areas.traces.writing.closure import erase_assessments_of_runs

        await find_run(self.database, run_id, {"_id": 1})
        change = {"$set": {"lifecycle_stage": DELETED, "deleted_time": get_current_time_millis()}}
        # Assessments by its evaluations go for good, as in MLflow.
        await erase_assessments_of_runs(self.database, [run_id])
        await self._move_run(run_id, change, heads_active=False)

    @mutation
    async def restore_run(self, run_id: str) -> None:
        """Restore a run, unless it is being deleted for good or its experiment is deleted."""
        run = await find_run(self.database, run_id, {"experiment_id": 1})
        while True:
            await self._find_active_experiment(run["experiment_id"])
            restore = {"$set": {"lifecycle_stage": ACTIVE}, "$unset": {"deleted_time": ""}}
            await self._move_run(run_id, restore, heads_active=True)
            experiment = await self._experiment(run["experiment_id"])
            if experiment is not None and experiment["lifecycle_stage"] == ACTIVE:
                return
            # Deleted between the two; its runs may have been moved before this one came back.
            delete = {"$set": {"lifecycle_stage": DELETED, "deleted_time": get_current_time_millis()}}
            await self._move_run(run_id, delete, heads_active=False)

    async def _move_run(self, run_id: str, change: dict[str, Any], *, heads_active: bool) -> None:
        heads = self.database.collection(MetricHeadFields)

        async def write(session: Session | None) -> bool:
            moved = await self._runs.update_one(scoped({"_id": run_id, **STAYS}), change, session=session)
            await heads.update_many(
                {"_id": children_of(run_id)},
                {"$set": {"active": heads_active and moved.matched_count > 0}},
                session=session,
            )
            return moved.matched_count > 0

        async with self.database.lock(run_id):
            if not await self.database.atomically(write) and heads_active:
                refuse_unknown_run(run_id)


def _apart(
    run_id: str, documents: list[dict[str, Any]]
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """A run and its heads, which come in one list; the run first by MongoDB's habit, not by its word."""
    run = next((each for each in documents if each["_id"] == run_id), None)
    return run, laid_over(each for each in documents if each["_id"] != run_id)


def _with_name(tags: list[RunTag] | None, run_name: str | None) -> list[RunTag]:
    """The tags of a new run with its name among them; a run and its tag never disagree."""
    if any(tag.key is None for tag in tags or []):
        raise invalid(missing_value("tags.key"))
    # An empty name is none, as when it is set later.
    tags = [tag for tag in tags or [] if tag.key != MLFLOW_RUN_NAME or tag.value]
    tagged = get_run_name_from_tags(tags)
    if run_name and tagged and run_name != tagged:
        raise MlflowException(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{run_name}', mlflow.runName='{tagged}').",
            INVALID_PARAMETER_VALUE,
        )
    if tagged:
        return tags
    return [*tags, RunTag(MLFLOW_RUN_NAME, run_name or generate_random_name())]
