"""Evaluation datasets: create, read, search, tags, the experiments they belong to, deletion.

A dataset is one document with its tags; its records (``areas/evaluation/records.py``) and its experiments
(``areas/evaluation/associations.py``) are documents of their own, so none grows with their number.

Round trips: create two (the experiments, the dataset); get and tags one; search one, and one more if it is
limited to experiments; adding experiments three. Deletion removes what belongs to a dataset before the
dataset and once more behind it, so neither a killed deletion nor a record that comes in meanwhile leaves
anything that no call can reach.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.mlflow_tags import MLFLOW_USER
from mlflow.utils.time import get_current_time_millis
from pymongo import ReturnDocument

from genesis_flow.areas.evaluation.associations import (
    DATASET,
    EXPERIMENT,
    associate_with_experiments,
    datasets_of_experiments,
    experiments_of_dataset,
    forget_associations,
)
from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
    association_key,
    dataset_digest,
    evaluation_dataset_entity,
)
from genesis_flow.areas.evaluation.search import dataset_page
from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import refuse_unknown_dataset, validate_max_results
from genesis_flow.core.errors import invalid
from genesis_flow.core.numbers import INT64
from genesis_flow.documents.keys import children_of, escape, stored_text
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, call_token, long_mutation, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped, workspaces_enabled
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from mlflow.entities import EvaluationDataset

_logger = logging.getLogger(__name__)


class EvaluationDatasets(Area):
    @property
    def _evaluation_datasets(self) -> Collection:
        return self.database.collection(EvaluationDatasetFields)

    @mutation
    async def create_dataset(
        self, name: str, tags: dict[str, str] | None = None, experiment_ids: list[str] | None = None
    ) -> EvaluationDataset:
        """Make an evaluation dataset, in experiments or in none."""
        if name is None:
            raise invalid("A dataset needs a name: name must be a text, not None.")
        name = str(name)
        now = get_current_time_millis()
        user = (tags or {}).get(MLFLOW_USER)
        dataset_id = f"d-{call_token()}"  # a repetition must not leave associations of another one
        fields = EvaluationDatasetFields(
            id=dataset_id,
            workspace=current_workspace(),
            name=name,
            digest=dataset_digest(name, now),
            created_time=now,
            last_update_time=now,
            created_by=user,
            last_updated_by=user,
            tags={escape(key): stored_text(value) for key, value in (tags or {}).items()},
        )
        document = fields.model_dump(by_alias=True, exclude_none=True)
        experiments = list(dict.fromkeys(str(experiment_id) for experiment_id in experiment_ids or []))
        tied = experiments
        if workspaces_enabled():  # else they may be made later; another workspace's are not there, here
            known = await self._known_experiments(experiments)
            tied = [each for each in experiments if each in known]
        await associate_with_experiments(self.database, dataset_id, tied, now)
        dataset = evaluation_dataset_entity(await insert_once(self._evaluation_datasets, document))
        dataset.experiment_ids = experiments
        return dataset

    @operation
    async def get_dataset(self, dataset_id: str) -> EvaluationDataset:
        """An evaluation dataset, by its id."""
        document = await self._evaluation_datasets.find_one(scoped({"_id": dataset_id}))
        if document is None:
            refuse_unknown_dataset(dataset_id)
        return evaluation_dataset_entity(document)

    @operation
    async def search_datasets(
        self,
        experiment_ids: list[str] | None = None,
        filter_string: str | None = None,
        max_results: int = 1000,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[EvaluationDataset]:
        """A page of the evaluation datasets that match."""
        validate_max_results(max_results)
        experiments = [str(experiment_id) for experiment_id in experiment_ids or []]
        page = dataset_page(experiments, filter_string, order_by, page_token)
        query = scoped(page.query)
        if experiments:
            query["_id"] = {"$in": await datasets_of_experiments(self.database, experiments)}
        datasets = await self._evaluation_datasets.find(
            query, sort=page.sort, limit=max_results + 1, batch_size=BATCH
        ).to_list()
        token = page.token_after(datasets[max_results - 1]) if len(datasets) > max_results else None
        return PagedList([evaluation_dataset_entity(document) for document in datasets[:max_results]], token)

    @long_mutation
    async def delete_dataset(self, dataset_id: str) -> None:
        """Delete an evaluation dataset with its records and its links."""
        if await self._evaluation_datasets.find_one(scoped({"_id": dataset_id}), {"_id": 1}) is None:
            _logger.warning("Evaluation dataset with id '%s' not found.", dataset_id)
            return
        await self._forget_what_belongs_to(dataset_id)
        await self._evaluation_datasets.delete_one(scoped({"_id": dataset_id}))
        await self._forget_what_belongs_to(dataset_id)

    async def _forget_what_belongs_to(self, dataset_id: str) -> None:
        await self.database.collection(DatasetRecordFields).delete_many({"_id": children_of(dataset_id)})
        await forget_associations(self.database, DATASET, dataset_id)

    @mutation
    async def set_dataset_tags(self, dataset_id: str, tags: dict[str, Any]) -> None:
        """Set tags of an evaluation dataset; a value of None leaves a tag as it is."""
        change = {f"tags.{escape(key)}": str(value) for key, value in tags.items() if value is not None}
        query = scoped({"_id": dataset_id})
        if change:
            known = bool((await self._evaluation_datasets.update_one(query, {"$set": change})).matched_count)
        else:
            known = await self._evaluation_datasets.find_one(query, {"_id": 1}) is not None
        if not known:
            raise MlflowException(
                f"Could not find evaluation dataset with ID {dataset_id}", RESOURCE_DOES_NOT_EXIST
            )

    @mutation
    async def delete_dataset_tag(self, dataset_id: str, key: str) -> None:
        """Delete a tag of an evaluation dataset, if it is there."""
        change = {"$unset": {f"tags.{escape(key)}": ""}}
        await self._evaluation_datasets.update_one(scoped({"_id": dataset_id}), change)

    @operation
    async def get_dataset_experiment_ids(self, dataset_id: str) -> list[str]:
        """The experiments that an evaluation dataset belongs to."""
        return await experiments_of_dataset(self.database, dataset_id)

    @mutation
    async def add_dataset_to_experiments(
        self, dataset_id: str, experiment_ids: list[str]
    ) -> EvaluationDataset:
        """Add an evaluation dataset to experiments, and answer it."""
        await self._check_dataset(dataset_id)
        experiments = [str(experiment_id) for experiment_id in experiment_ids]
        await self._check_experiments(experiments)
        now = get_current_time_millis()
        await associate_with_experiments(self.database, dataset_id, experiments, now)
        return await self._touch(dataset_id, now)

    @mutation
    async def remove_dataset_from_experiments(
        self, dataset_id: str, experiment_ids: list[str]
    ) -> EvaluationDataset:
        """Remove an evaluation dataset from experiments, and answer it."""
        await self._check_dataset(dataset_id)
        keys = {
            association_key(DATASET, dataset_id, EXPERIMENT, str(experiment_id)): str(experiment_id)
            for experiment_id in experiment_ids
        }
        associations = self.database.collection(EntityAssociationFields)
        query = scoped({"_id": {"$in": list(keys)}})
        tied = {keys[tie["_id"]] async for tie in associations.find(query, {"_id": 1})}
        for experiment_id in keys.values():
            if experiment_id not in tied:
                _logger.warning(
                    "Dataset '%s' was not associated with experiment '%s'", dataset_id, experiment_id
                )
        if not tied:
            return await self.get_dataset(dataset_id)
        await associations.delete_many(query)
        return await self._touch(dataset_id, get_current_time_millis())

    async def _touch(self, dataset_id: str, now: int) -> EvaluationDataset:
        document: Document | None = await self._evaluation_datasets.find_one_and_update(
            scoped({"_id": dataset_id}),
            {"$set": {"last_update_time": now}},
            return_document=ReturnDocument.AFTER,
        )
        if document is None:  # deleted meanwhile
            await forget_associations(self.database, DATASET, dataset_id)
            _refuse_dataset(dataset_id)
        return evaluation_dataset_entity(document)

    async def _check_dataset(self, dataset_id: str) -> None:
        if await self._evaluation_datasets.find_one(scoped({"_id": dataset_id}), {"_id": 1}) is None:
            _refuse_dataset(dataset_id)

    async def _check_experiments(self, experiment_ids: list[str]) -> None:
        known = await self._known_experiments(experiment_ids)
        for experiment_id in experiment_ids:
            if experiment_id not in known:
                raise MlflowException(f"No Experiment with id={experiment_id}", RESOURCE_DOES_NOT_EXIST)

    async def _known_experiments(self, experiment_ids: list[str]) -> set[str]:
        numbers = [int(each) for each in experiment_ids if each.isdecimal() and int(each) in INT64]
        found = self.database.collection(ExperimentFields).find(scoped({"_id": {"$in": numbers}}), {"_id": 1})
        return {str(experiment["_id"]) async for experiment in found}


def _refuse_dataset(dataset_id: str) -> NoReturn:
    raise MlflowException(f"Dataset '{dataset_id}' not found", RESOURCE_DOES_NOT_EXIST)
