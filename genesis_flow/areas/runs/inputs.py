"""What a run read and made: datasets, models in, models out.

Round trips: log_inputs three (the run, the datasets, the run's inputs), log_outputs one. The same input
twice is one input: the first keeps its tags, and the dataset its schema and source.
"""

from typing import Any

from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from genesis_flow.areas.experiments.guards import CHILD_FIELDS, active, find_active_run
from genesis_flow.areas.runs.datasets import DatasetFields, dataset_key
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.compat.entities import DatasetSummary
from genesis_flow.compat.validation import parse_experiment_ids, validate_dataset_inputs, validate_run_id
from genesis_flow.core.errors import invalid
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.error_edge import is_too_large
from genesis_flow.mongo.operation import Area, direct, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped

_MAX_DATASET_SUMMARIES = 1000
_KNOWN_INPUTS = {**CHILD_FIELDS, "inputs.id": 1}


class Inputs(Area):
    @property
    def _dataset_documents(self) -> Collection:
        return self.database.collection(DatasetFields)

    @direct
    @mutation
    async def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Note which datasets and models a run used."""
        validate_run_id(run_id)
        if datasets is not None:
            if not isinstance(datasets, list):
                raise invalid(f"Argument 'datasets' should be a list, got '{type(datasets)}'")
            validate_dataset_inputs(datasets)
        run = await find_active_run(self.database, run_id, _KNOWN_INPUTS)
        known = {each["id"] for each in run.get("inputs") or []}
        used = _first_of_each(datasets or [], run["experiment_id"])
        # An input that the run has already keeps its context, so the dataset gets no other one either.
        used = {_id: each for _id, each in used.items() if _id not in known}
        if used:
            await self._write_datasets(used, run["experiment_id"])
        changes = [
            UpdateOne(
                {**active(run_id), "inputs.id": {"$ne": _id}}, {"$push": {"inputs": _run_input(_id, each)}}
            )
            for _id, each in used.items()
        ]
        if models:
            ids = [model.model_id for model in models]
            changes.append(UpdateOne(active(run_id), {"$addToSet": {"model_inputs": {"$each": ids}}}))
        if changes:
            result = await self.database.collection(RunFields).bulk_write(changes, ordered=True)
            if result.matched_count < len(changes):
                # Deleted since it was read, or another client logged the same: the first is an error.
                await find_active_run(self.database, run_id)

    async def _write_datasets(self, used: dict[str, DatasetInput], experiment_id: int) -> None:
        upserts = [_dataset_upsert(_id, experiment_id, each) for _id, each in used.items()]
        try:
            await self._dataset_documents.bulk_write(upserts, ordered=False)
        except PyMongoError as error:
            if not is_too_large(error):
                raise
            largest = max((each.dataset for each in used.values()), key=_size)
            raise invalid(
                f"The dataset '{largest.name}' is too large: its source, schema and profile take "
                f"{_size(largest):,} bytes, and share a document, which ends at 16 MB (2 MB on Azure). "
                "Log the profile as an artifact instead. The run has none of the inputs of this call."
            ) from error

    @direct
    @mutation
    async def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """Note which models a run made."""
        made = [[model.model_id, model.step] for model in models]
        result = await self.database.collection(RunFields).update_one(
            active(run_id), {"$addToSet": {"model_outputs": {"$each": made}}}
        )
        if not result.matched_count:
            await find_active_run(self.database, run_id)

    @operation
    async def _search_datasets(self, experiment_ids: list[str]) -> list[DatasetSummary]:
        query = scoped({"experiment_id": {"$in": parse_experiment_ids([*experiment_ids])}})
        fields = {"experiment_id": 1, "name": 1, "digest": 1, "contexts": 1}
        summaries: list[DatasetSummary] = []
        datasets = self._dataset_documents.find(query, fields, limit=_MAX_DATASET_SUMMARIES, batch_size=BATCH)
        async for dataset in datasets:
            for context in dataset["contexts"]:
                summaries.append(
                    DatasetSummary(
                        experiment_id=str(dataset["experiment_id"]),
                        name=dataset["name"],
                        digest=dataset["digest"],
                        context=context,
                    )
                )
        return summaries[:_MAX_DATASET_SUMMARIES]


def _first_of_each(datasets: list[DatasetInput], experiment_id: int) -> dict[str, DatasetInput]:
    """The inputs by dataset id, the first of those with one name and digest."""
    used: dict[str, DatasetInput] = {}
    for each in datasets:
        if each.dataset is None:
            raise MlflowException("Dataset input must have a dataset associated with it.", INTERNAL_ERROR)
        used.setdefault(dataset_key(experiment_id, each.dataset.name, each.dataset.digest), each)
    return used


def _dataset_upsert(dataset_id: str, experiment_id: int, used: DatasetInput) -> UpdateOne:
    dataset = used.dataset
    return UpdateOne(
        {"_id": dataset_id},
        {
            "$setOnInsert": {
                "workspace": current_workspace(),
                "experiment_id": experiment_id,
                "name": dataset.name,
                "digest": dataset.digest,
                "source_type": dataset.source_type,
                "source": dataset.source,
                "schema": dataset.schema,
                "profile": dataset.profile,
            },
            "$addToSet": {"contexts": _context(used)},
        },
        upsert=True,
    )


def _size(dataset: Dataset) -> int:
    return sum(len((text or "").encode()) for text in (dataset.source, dataset.schema, dataset.profile))


def _run_input(dataset_id: str, used: DatasetInput) -> dict[str, Any]:
    return {
        "id": dataset_id,
        "name": used.dataset.name,
        "digest": used.dataset.digest,
        "context": _context(used),
        "tags": [[tag.key, tag.value] for tag in used.tags or []],
    }


def _context(used: DatasetInput) -> str | None:
    return next((tag.value for tag in used.tags or [] if tag.key == MLFLOW_DATASET_CONTEXT), None)
