"""Experiments.

Round trips: get, get by name, rename, tags: one. Create: three (is the name free, a number, the insert).
Delete and restore: two, and one pass over the runs and metric heads of the experiment, or more if others move
it at the same moment: the last of them sees to it that the runs are where the experiment is.
"""

from typing import Any, NoReturn

from mlflow.entities import Experiment, ExperimentTag, LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_STATE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local
from mlflow.utils.workspace_context import ServerWorkspaceContext
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from genesis_flow.areas.experiments.documents import CounterFields, ExperimentFields
from genesis_flow.areas.experiments.guards import (
    ACTIVE,
    DEFAULT_EXPERIMENT_ID,
    DELETED,
    ERASED,
    STAYS,
    check_experiment_active,
    experiment_number,
    refuse_unknown_experiment,
    validate_max_results,
)
from genesis_flow.areas.experiments.places import artifact_root
from genesis_flow.areas.experiments.search import experiment_page
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.retention import with_retention
from genesis_flow.areas.workspaces.contents import refuse_single_tenant
from genesis_flow.compat.validation import (
    parse_experiment_id,
    parse_experiment_ids,
    validate_experiment_artifact_location_length,
    validate_experiment_name,
    validate_experiment_tag,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.entities import experiment_entity
from genesis_flow.documents.keys import escape, stored_text
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.error_edge import is_unauthorized
from genesis_flow.mongo.operation import (
    Area,
    direct,
    drawn_once,
    is_repetition,
    long_mutation,
    mutation,
    operation,
)
from genesis_flow.mongo.scoping import current_workspace, scoped, workspaces_enabled
from genesis_flow.mongo.writes import insert_once


class Experiments(Area):
    @property
    def _experiments(self) -> Collection:
        return self.database.collection(ExperimentFields)

    async def opened(self) -> None:
        """Create the default experiment, which clients and the UI count on."""
        experiments = self.database.everywhere(ExperimentFields)
        if not workspaces_enabled():
            await refuse_single_tenant(self.database)  # not at once: a second socket would stay in the pool
        default = await experiments.find_one({"_id": DEFAULT_EXPERIMENT_ID}, {"_id": 1})
        if default:
            return
        with ServerWorkspaceContext(DEFAULT_WORKSPACE_NAME):  # whoever is the first to ask
            document = await self._new(DEFAULT_EXPERIMENT_ID, Experiment.DEFAULT_EXPERIMENT_NAME, None, None)
        try:
            await experiments.insert_one(document)
        except DuplicateKeyError:
            return  # another client was first
        except OperationFailure as error:
            if not is_unauthorized(error):  # a user who may only read needs none
                raise

    async def _new(
        self, experiment_id: int, name: str, artifact_location: str | None, tags: list[ExperimentTag] | None
    ) -> dict[str, Any]:
        now = get_current_time_millis()
        root = await artifact_root(self.database, self.settings.artifact_root)
        fields = ExperimentFields(
            _id=experiment_id,
            workspace=current_workspace(),
            name=name,
            artifact_location=artifact_location or append_to_uri_path(root, str(experiment_id)),
            lifecycle_stage=ACTIVE,
            creation_time=now,
            last_update_time=now,
            tags={escape(tag.key): stored_text(tag.value) for tag in tags or []},
        )
        return fields.model_dump(by_alias=True, exclude_none=True)

    @mutation
    async def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: list[ExperimentTag] | None = None
    ) -> str:
        """Make an experiment with a name of its own, and answer its id."""
        validate_experiment_name(name)
        if artifact_location and workspaces_enabled():
            raise invalid("artifact_location cannot be specified when workspaces are enabled")
        if artifact_location:
            artifact_location = resolve_uri_if_local(artifact_location)
            validate_experiment_artifact_location_length(artifact_location)
        for tag in tags or []:
            validate_experiment_tag(tag.key, tag.value)

        async def draw() -> int:
            # Asked first only so that a taken name does not use up a number; the unique index decides.
            if await self._experiments.find_one(scoped({"name": name}), {"_id": 1}):
                _refuse_taken(name)
            return await next_number(self.database, "experiments")

        experiment_id = await drawn_once("experiment", draw)
        try:
            document = await self._new(experiment_id, name, artifact_location, tags)
            await insert_once(self._experiments, document)
        except DuplicateKeyError as error:
            _refuse_taken(name, error)
        return str(experiment_id)

    @direct
    @operation
    async def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment, by its id; a deleted one too."""
        return _entity(await self._find(experiment_id, ViewType.ALL))

    @direct
    @operation
    async def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """The experiment of that name, or None; a deleted one too."""
        document = await self._experiments.find_one(scoped({"name": experiment_name}))
        return None if document is None else _entity(document)

    @operation
    async def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """A page of the experiments that match."""
        validate_max_results(max_results)
        page = experiment_page(view_type, filter_string, order_by, page_token)
        experiments = await self._experiments.find(
            scoped(page.query), sort=page.sort, limit=max_results + 1, batch_size=BATCH
        ).to_list()
        token = page.token_after(experiments[max_results - 1]) if len(experiments) > max_results else None
        return PagedList([_entity(document) for document in experiments[:max_results]], token)

    @mutation
    async def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an active experiment another name."""
        validate_experiment_name(new_name)
        change = {"$set": {"name": new_name, "last_update_time": get_current_time_millis()}}
        try:
            result = await self._experiments.update_one(self._active(experiment_id), change)
        except DuplicateKeyError as error:
            _refuse_taken(new_name, error)
        if not result.matched_count:
            await self._find(experiment_id, ViewType.ALL)
            raise MlflowException("Cannot rename a non-active experiment.", INVALID_STATE)

    @long_mutation
    async def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs as deleted; restore_experiment brings them back."""
        await self._move_experiment(experiment_id, ACTIVE, DELETED)

    @long_mutation
    async def restore_experiment(self, experiment_id: str) -> None:
        """Bring back a deleted experiment, with the runs that were deleted with it."""
        await self._move_experiment(experiment_id, DELETED, ACTIVE)

    async def _move_experiment(self, experiment_id: str, source: str, target: str) -> None:
        """Move an experiment, and all its runs, to another lifecycle stage.

        ``pending`` says that the runs may not have followed yet: the same call after a crash goes on. An
        experiment that is being deleted for good stays where it is.
        """
        # Unlike elsewhere no id is not the default experiment: nobody deletes that by forgetting to name one.
        number = parse_experiment_id(experiment_id)
        there = (
            {"lifecycle_stage": target} if is_repetition() else {"lifecycle_stage": target, "pending": target}
        )
        movable = {"$or": [{"lifecycle_stage": source}, there]}
        now = get_current_time_millis()
        moved = await self._experiments.update_one(
            scoped({"_id": number, **movable, "pending": {"$ne": ERASED}}),
            {"$set": {"lifecycle_stage": target, "pending": target, "last_update_time": now}},
        )
        if not moved.matched_count:
            refuse_unknown_experiment(number)
        stage: str | None = target
        while stage is not None:
            await self._move_runs(number, stage, now)
            stage = await self._end_move(number, stage)

    async def _move_runs(self, number: int, target: str, now: int) -> None:
        """Move all runs of an experiment with their metric heads."""
        runs, heads = self.database.collection(RunFields), self.database.collection(MetricHeadFields)
        change = (
            {"$set": {"lifecycle_stage": DELETED, "deleted_time": now}}
            if target == DELETED
            else {"$set": {"lifecycle_stage": ACTIVE}, "$unset": {"deleted_time": ""}}
        )
        if target == DELETED:
            # Whoever only trains deletes nothing.
            from genesis_flow.areas.traces.writing.closure import erase_assessments_of_runs

            run_ids = [run["_id"] async for run in runs.find({"experiment_id": number}, {"_id": 1})]
            await erase_assessments_of_runs(self.database, run_ids)
        await runs.update_many({"experiment_id": number, **STAYS}, change)
        await heads.update_many({"experiment_id": number}, {"$set": {"active": target == ACTIVE}})

    async def _end_move(self, number: int, stage: str) -> str | None:
        """Note that the runs are where the experiment is; the stage that it is in if that is another one."""
        settled = await self._experiments.update_one(
            {"_id": number, "lifecycle_stage": stage, "pending": {"$ne": ERASED}}, {"$unset": {"pending": ""}}
        )
        if settled.matched_count:
            return None
        # Others have moved it meanwhile. Their runs may have been moved before ours were.
        now = await self._experiments.find_one({"_id": number}, {"lifecycle_stage": 1, "pending": 1})
        return None if now is None or now.get("pending") == ERASED else str(now["lifecycle_stage"])

    @direct
    @mutation
    async def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """Set a tag of an active experiment."""
        validate_experiment_tag(tag.key, tag.value)
        change = {"$set": {f"tags.{escape(tag.key)}": stored_text(tag.value)}}
        result = await self._experiments.update_one(self._active(experiment_id), change)
        if not result.matched_count:
            await self._refuse_inactive(experiment_id)

    @mutation
    async def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Delete a tag of an active experiment."""
        if key:  # without a key there is no tag, and no path to one
            field = f"tags.{escape(key)}"
            query = {**self._active(experiment_id), field: {"$exists": True}}
            if (await self._experiments.update_one(query, {"$unset": {field: ""}})).matched_count:
                return
        await self._refuse_inactive(experiment_id)
        if is_repetition():
            return
        raise MlflowException(
            f"No tag with name: {key} in experiment with id {experiment_id}", RESOURCE_DOES_NOT_EXIST
        )

    @operation
    async def filter_active_experiment_ids(self, experiment_ids: list[str]) -> list[str]:
        """Those of the experiments that are not deleted."""
        if not experiment_ids:
            return []
        query = {"_id": {"$in": parse_experiment_ids([*experiment_ids])}, "lifecycle_stage": ACTIVE}
        return [
            str(experiment["_id"]) async for experiment in self._experiments.find(scoped(query), {"_id": 1})
        ]

    async def _find(self, experiment_id: str, view_type: int) -> dict[str, Any]:
        number = experiment_number(experiment_id)
        stages = LifecycleStage.view_type_to_stages(view_type)
        document = await self._experiments.find_one(
            scoped({"_id": number, "lifecycle_stage": {"$in": list(stages)}})
        )
        if document is None:
            refuse_unknown_experiment(number)
        return document

    @staticmethod
    def _active(experiment_id: str) -> dict[str, Any]:
        return scoped({"_id": experiment_number(experiment_id), "lifecycle_stage": ACTIVE})

    async def _refuse_inactive(self, experiment_id: str) -> None:
        """Raise for an experiment that is not there or not active."""
        document = await self._find(experiment_id, ViewType.ALL)
        check_experiment_active(document)


async def next_number(database: Database, kind: str) -> int:
    """The next number for ``kind``; a number is never given out twice, though one may be lost."""
    counter: Any = await database.collection(CounterFields).find_one_and_update(
        {"_id": kind}, {"$inc": {"last": 1}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return int(counter["last"])


def _entity(document: dict[str, Any]) -> Experiment:
    return with_retention(experiment_entity(document))


def _refuse_taken(name: str, error: Exception | None = None) -> NoReturn:
    raise MlflowException(f"Experiment(name={name}) already exists.", RESOURCE_ALREADY_EXISTS) from error
