"""Hard deletion, for ``mlflow gc``: whatever belongs to a run, logged model or experiment goes with it.

First the parent is marked, which ends all restoring and writing; then its children go, and it itself last,
so that a killed deletion is found and finished by the next one (ADR 18). A writer of a child finds the mark
or no parent and takes the child back. Nothing is read into memory but ids.
"""

from typing import Any

from mlflow.entities.entity_type import EntityAssociationType
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.evaluation.documents import EntityAssociationFields
from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import (
    DELETED,
    ERASED,
    experiment_number,
    refuse_undeleted_run,
    refuse_unknown_experiment,
    refuse_unknown_run,
)
from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.logged_models.metrics import refuse_unknown_model
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.writing.closure import erase_traces_of_experiment
from genesis_flow.documents.keys import children_of
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.followers import delete_followers
from genesis_flow.mongo.operation import Area, is_repetition, long_mutation, operation
from genesis_flow.mongo.scoping import scoped


class Garbage(Area):
    @operation
    async def _get_deleted_runs(self, older_than: int = 0) -> list[str]:
        until = get_current_time_millis() - older_than
        query = scoped({"deleted_time": {"$lte": until}, "lifecycle_stage": DELETED})
        runs = self.database.collection(RunFields).find(query, {"_id": 1}, batch_size=BATCH)
        return [run["_id"] async for run in runs]

    @long_mutation
    async def _hard_delete_run(self, run_id: str) -> None:
        if await self._mark_run(scoped({"_id": run_id, "lifecycle_stage": DELETED})):
            await self._erase_run(run_id)
            return
        # Active, or gone: perhaps by an earlier attempt of this call, perhaps by somebody else's.
        runs = self.database.collection(RunFields)
        run = await runs.find_one(scoped({"_id": run_id}), {"lifecycle_stage": 1})
        if run is not None:
            refuse_undeleted_run(run_id)
        if not is_repetition():
            refuse_unknown_run(run_id)

    @operation
    async def _get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        until = get_current_time_millis() - older_than
        query = scoped({"lifecycle_stage": DELETED, "last_updated_timestamp": {"$lte": until}})
        models = self.database.collection(LoggedModelFields).find(query, {"_id": 1}, batch_size=BATCH)
        return [model["_id"] async for model in models]

    @long_mutation
    async def _hard_delete_logged_model(self, model_id: str) -> None:
        models = self.database.collection(LoggedModelFields)
        if not is_repetition() and await models.find_one(scoped({"_id": model_id}), {"_id": 1}) is None:
            refuse_unknown_model(model_id)
        await self._erase_model(model_id)

    @long_mutation
    async def _hard_delete_experiment(self, experiment_id: str) -> None:
        number = experiment_number(experiment_id)
        experiments = self.database.collection(ExperimentFields)
        experiment = scoped({"_id": number})
        marked = await experiments.update_one(
            {**experiment, "lifecycle_stage": DELETED}, {"$set": {"pending": ERASED}}
        )
        if not marked.matched_count:
            if is_repetition() and await experiments.find_one(experiment, {"_id": 1}) is None:
                return
            refuse_unknown_experiment(number)
        async for run in self.database.collection(RunFields).find({"experiment_id": number}, {"_id": 1}):
            await self._mark_run({"_id": run["_id"]})
            await self._erase_run(run["_id"])
        await erase_traces_of_experiment(self.database, number)
        async for model in self.database.collection(LoggedModelFields).find(
            {"experiment_id": number}, {"_id": 1}
        ):
            await self._erase_model(model["_id"])
        await self.database.collection(EntityAssociationFields).delete_many(
            scoped({"destination_type": EntityAssociationType.EXPERIMENT, "destination_id": str(number)})
        )
        await self.database.collection(DatasetFields).delete_many({"experiment_id": number})
        await delete_followers(self.database, "experiments", [number])
        await experiments.delete_one({**experiment, "pending": ERASED})

    async def _mark_run(self, query: dict[str, Any]) -> bool:
        """Mark a run as being deleted for good, if it is as the query says."""
        change = {"$set": {"lifecycle_stage": DELETED, "erasing": True}}
        return bool((await self.database.collection(RunFields).update_one(query, change)).matched_count)

    async def _erase_run(self, run_id: str) -> None:
        """Delete a marked run. Heads go first: a packer that finds one has put its block in time."""
        of_run = {"_id": children_of(run_id)}
        points_of_models = self.database.collection(ModelMetricFields)
        await self.database.collection(MetricHeadFields).delete_many(of_run)
        await self.database.collection(MetricBlockFields).delete_many(of_run)
        await points_of_models.delete_many(of_run)
        await delete_followers(self.database, "runs", [run_id])
        await self.database.collection(RunFields).delete_one({"_id": run_id})
        # Once more, for a call that had found the run active before it was deleted.
        await points_of_models.delete_many(of_run)

    async def _erase_model(self, model_id: str) -> None:
        metrics = self.database.collection(ModelMetricFields)
        await metrics.delete_many({"model_id": model_id})
        await self.database.collection(LoggedModelFields).delete_one({"_id": model_id})
        # Once more, for points that came in while the model was still there.
        await metrics.delete_many({"model_id": model_id})
