"""Registered models.

Documents: one a model in ``registered_models``, with its tags, aliases and stages; see
``genesis_flow.areas.models.documents`` for what it decides for its versions.

Round trips: create, update, tags one; get one, two if versions have stages (the latest version of each stage
comes with the model); search two, however many models are on the page. Rename and delete change the model and
its versions together: in one transaction, or else in an order in which the model's document decides and a
repeated call goes on where a killed one stopped. Versions belong to the model's id, so a reader finds them
under the new name as soon as the model has it.
"""

from typing import Any, NoReturn

from mlflow.entities.model_registry import ModelVersion, RegisteredModel, RegisteredModelTag
from mlflow.entities.model_registry.model_version_stages import ALL_STAGES
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import handle_resource_already_exist_error, has_prompt_tag
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.models.documents import RegisteredModelFields
from genesis_flow.areas.models.entities import model_entity, version_entity
from genesis_flow.areas.models.guards import (
    canonical_stage,
    models_in,
    refuse_unknown_model,
    update_model,
    versions_in,
    versions_of,
)
from genesis_flow.areas.models.latest import latest_of_models, model_with_latest
from genesis_flow.areas.models.search import Page, model_page, validate_model_page_size
from genesis_flow.areas.workspaces.contents import refuse_single_tenant
from genesis_flow.compat.validation import (
    validate_model_name,
    validate_model_renaming,
    validate_registered_model_tag,
    validate_tag_name,
)
from genesis_flow.documents.plain import Document
from genesis_flow.documents.tag_values import delete_tag_update, set_tag_update, tag_maps, tag_values
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import Area, call_token, is_repetition, long_mutation, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped, workspaces_enabled
from genesis_flow.mongo.writes import insert_once, until_done


class RegisteredModels(Area):
    async def opened(self) -> None:
        """A registry without workspaces would hide what is outside the default one."""
        if not workspaces_enabled():
            await refuse_single_tenant(self.database)

    @mutation
    async def create_registered_model(
        self,
        name: str,
        tags: list[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Register a model under a name of its own."""
        validate_model_name(name)
        for tag in tags or []:
            validate_registered_model_tag(tag.key, tag.value)
        now = get_current_time_millis()
        fields = RegisteredModelFields(
            _id=call_token(),
            workspace=current_workspace(),
            name=name,
            description=description,
            creation_time=now,
            last_updated_time=now,
            **tag_maps(tags),
        )
        document = fields.model_dump(by_alias=True, exclude_none=True)
        try:
            made = await insert_once(models_in(self.database), document)
        except DuplicateKeyError as error:
            await self._refuse_taken_name(name, tags, error)
        return model_entity(made, [])

    async def _refuse_taken_name(
        self, name: str, tags: list[RegisteredModelTag] | None, error: DuplicateKeyError
    ) -> NoReturn:
        existing = await models_in(self.database).find_one(scoped({"name": name}), {"tags": 1, "texts": 1})
        is_prompt = has_prompt_tag(tags)
        try:
            handle_resource_already_exist_error(
                name, has_prompt_tag(tag_values(existing)) if existing else is_prompt, is_prompt
            )
        except MlflowException as refusal:
            raise refusal from error
        raise AssertionError("MLflow's helper always raises")

    @operation
    async def get_registered_model(self, name: str) -> RegisteredModel:
        """A registered model with its newest version in each stage."""
        return model_entity(*await model_with_latest(self.database, name))

    @operation
    async def get_latest_versions(self, name: str, stages: list[str] | None = None) -> list[ModelVersion]:
        """The latest version of each stage, or of each of ``stages``, in the order of their numbers."""
        wanted = {canonical_stage(stage) for stage in stages or ALL_STAGES}
        model, latest = await model_with_latest(self.database, name)
        versions = [version_entity(model, version, with_aliases=True) for version in latest]
        return [version for version in versions if version.current_stage in wanted]

    @mutation
    async def update_registered_model(
        self, name: str, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change the description of a registered model."""
        change: dict[str, Any] = {"last_updated_time": get_current_time_millis(), "description": description}
        await update_model(self.database, name, {"$set": change})
        return model_entity(*await model_with_latest(self.database, name))

    @long_mutation
    async def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a registered model and its versions another name."""
        validate_model_renaming(new_name)
        validate_model_name(name)

        async def write(session: Session | None) -> None:
            now = get_current_time_millis()
            model = await self._rename(name, new_name, now, session)
            await versions_in(self.database).update_many(
                {"_id": versions_of(model)},
                {"$set": {"name": new_name, "last_updated_time": now}},
                session=session,
            )
            await models_in(self.database).update_one(
                {"_id": model["_id"], "renamed_from": name}, {"$unset": {"renamed_from": ""}}, session=session
            )

        async with self.database.lock(f"registered model {name}"):
            await self.database.atomically(write)
        return model_entity(*await model_with_latest(self.database, new_name))

    async def _rename(self, name: str, new_name: str, now: int, session: Session | None) -> Document:
        """Give the model its new name; the same call, or another after a crash, finds it under that name."""
        query = {
            "$or": [
                {"name": name},
                {"name": new_name, "renamed_from": name},
                {"name": new_name, "renamed_by": call_token()},
            ]
        }
        fields = {
            "name": new_name,
            "renamed_from": name,
            "renamed_by": call_token(),
            "last_updated_time": now,
        }
        change = {"$set": fields}
        try:
            model = await models_in(self.database).find_one_and_update(
                scoped(query), change, return_document=ReturnDocument.AFTER, session=session
            )
        except DuplicateKeyError as error:
            raise MlflowException(
                f"Registered Model (name={new_name}) already exists.", RESOURCE_ALREADY_EXISTS
            ) from error
        return model or refuse_unknown_model(name)

    @long_mutation
    async def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions; a model of that name begins at version 1 again."""
        validate_model_name(name)

        async def write(session: Session | None) -> dict[str, Any] | None:
            model = await models_in(self.database).find_one(
                scoped({"name": name}), {"_id": 1}, session=session
            )
            if model is None:
                if is_repetition():
                    return None
                refuse_unknown_model(name)
            of_model = {"_id": versions_of(model)}
            await versions_in(self.database).delete_many(of_model, session=session)
            await models_in(self.database).delete_one({"_id": model["_id"]}, session=session)
            return of_model

        async with self.database.lock(f"registered model {name}"):
            of_model = await self.database.atomically(write)
        if of_model is not None:  # a version may have been created while the model was still there
            await until_done(lambda: versions_in(self.database).delete_many(of_model))

    @operation
    async def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """A page of the registered models that match."""
        validate_model_page_size(max_results)
        page = model_page(filter_string, order_by, page_token)
        models, token = await self._model_page(page, max_results)
        latest = await latest_of_models(self.database, models)
        return PagedList([model_entity(model, latest[model["_id"]]) for model in models], token)

    async def _model_page(self, page: Page, max_results: int) -> tuple[list[Document], str | None]:
        models = (
            await models_in(self.database)
            .find(scoped(page.query), sort=page.sort, limit=max_results + 1, batch_size=max_results + 1)
            .to_list()
        )
        token = page.token_after(models[max_results - 1]) if len(models) > max_results else None
        return models[:max_results], token

    @mutation
    async def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a registered model."""
        validate_model_name(name)
        validate_registered_model_tag(tag.key, tag.value)
        await self._update_tags(name, set_tag_update(tag.key, tag.value))

    @mutation
    async def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag; as in MLflow it need not be there, but the model must."""
        validate_model_name(name)
        validate_tag_name(key)
        await self._update_tags(name, delete_tag_update(key))

    async def _update_tags(self, name: str, update: dict[str, Any]) -> None:
        result = await models_in(self.database).update_one(scoped({"name": name}), update)
        if not result.matched_count:
            refuse_unknown_model(name)
