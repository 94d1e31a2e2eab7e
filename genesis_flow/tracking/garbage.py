"""Hard deletion, for ``mlflow gc``: whatever belongs to a run, logged model or experiment goes with it.

Children go first and their parent last, so that a killed deletion is found and finished by the next one.
Nothing is read into memory but ids.
"""

from mlflow.entities.entity_type import EntityAssociationType
from mlflow.utils.time import get_current_time_millis

from genesis_flow.database.operation import Area, is_repetition, long_mutation, operation
from genesis_flow.database.scoping import scoped
from genesis_flow.documents import (
    DatasetFields,
    EntityAssociationFields,
    ExperimentFields,
    LoggedModelFields,
    MetricBlockFields,
    MetricHeadFields,
    ModelMetricFields,
    RunFields,
)
from genesis_flow.documents.binding import BATCH
from genesis_flow.documents.keys import children_of
from genesis_flow.tracking.guards import DELETED, experiment_number, find_run, refuse_unknown_experiment
from genesis_flow.tracking.model_metrics import refuse_unknown_model
from genesis_flow.tracking.traces.closure import erase_traces_of_experiment


class Garbage(Area):
    @operation
    async def _get_deleted_runs(self, older_than: int = 0) -> list[str]:
        until = get_current_time_millis() - older_than
        query = scoped({"deleted_time": {"$lte": until}, "lifecycle_stage": DELETED})
        runs = self.database.collection(RunFields).find(query, {"_id": 1}, batch_size=BATCH)
        return [run["_id"] async for run in runs]

    @long_mutation
    async def _hard_delete_run(self, run_id: str) -> None:
        if not is_repetition():
            await find_run(self.database, run_id, {"_id": 1})
        await self._erase_run(run_id)

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
        query = scoped({"_id": number, "lifecycle_stage": DELETED})
        if not is_repetition() and await experiments.find_one(query, {"_id": 1}) is None:
            refuse_unknown_experiment(number)
        async for run in self.database.collection(RunFields).find({"experiment_id": number}, {"_id": 1}):
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
        await experiments.delete_one(query)

    async def _erase_run(self, run_id: str) -> None:
        of_run = {"_id": children_of(run_id)}
        await self.database.collection(MetricBlockFields).delete_many(of_run)
        await self.database.collection(MetricHeadFields).delete_many(of_run)
        await self.database.collection(ModelMetricFields).delete_many(of_run)
        await self.database.collection(RunFields).delete_one({"_id": run_id})

    async def _erase_model(self, model_id: str) -> None:
        metrics = self.database.collection(ModelMetricFields)
        await metrics.delete_many({"model_id": model_id})
        await self.database.collection(LoggedModelFields).delete_one({"_id": model_id})
        # Once more, for points that came in while the model was still there.
        await metrics.delete_many({"model_id": model_id})
