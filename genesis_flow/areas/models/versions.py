"""Model versions.

Documents: one a version in ``model_versions``, whose id is the model's id and the number. The stage and the
aliases are the model's (``genesis_flow.areas.models.documents``).

Numbers come from a counter in the model's document, and the version that has one is written next. A creator
killed between the two leaves a gap, which nothing minds, and so does a lost answer if somebody else takes the
next number before it is asked again. A transaction would leave none; but a client that is killed inside one
blocks the model for as long as the server lets transactions live, a minute by default.

Round trips: get and download URI one (the version and its model, side by side); update and tags two (the
model, the write); search two, the page and the models on it; create three (the number, the version, the model
again).
"""

import asyncio
from typing import Any
from urllib.parse import urlparse

import bson
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.entities.model_registry.model_version_status import ModelVersionStatus
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis
from pymongo import ReturnDocument
from pymongo.errors import DocumentTooLarge

from genesis_flow.areas.models.changes import VersionTraces, change_model, forget_version
from genesis_flow.areas.models.documents import ModelVersionFields, version_id
from genesis_flow.areas.models.entities import version_entity
from genesis_flow.areas.models.guards import (
    find_model_of_version,
    find_version,
    models_in,
    refuse_unknown_model,
    refuse_unknown_version,
    version_number,
    versions_in,
)
from genesis_flow.areas.models.search import Page, validate_version_page_size, version_page
from genesis_flow.compat.validation import validate_model_name, validate_model_version_tag, validate_tag_name
from genesis_flow.documents.plain import Document, portions
from genesis_flow.documents.tag_values import delete_tag_update, set_tag_update, tag_maps
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import Area, call_token, drawn_once, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once

_LARGEST_DOCUMENT = 16 * 1024 * 1024


class ModelVersions(Area):
    @mutation
    async def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: list[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Make the next version of a registered model."""
        validate_model_name(name)
        for tag in tags or []:
            validate_model_version_tag(tag.key, tag.value)
        storage_location, source_run_id = await self._locate(source)
        run_id = run_id or source_run_id
        if not run_id and model_id:
            run_id = (await in_thread(_logged_model, model_id)).source_run_id
        now = get_current_time_millis()
        fields = ModelVersionFields(
            _id="",
            workspace=current_workspace(),
            model="",
            name=name,
            version=0,
            creation_time=now,
            last_updated_time=now,
            description=description,
            source=source,
            storage_location=storage_location,
            run_id=run_id,
            run_link=run_link,
            model_id=model_id,
            status=ModelVersionStatus.to_string(ModelVersionStatus.READY),
            **tag_maps(tags),
        )
        version = fields.model_dump(by_alias=True, exclude_none=True)
        # A version that cannot be stored is refused before it takes a number.
        if len(bson.encode(version)) > _LARGEST_DOCUMENT:
            raise DocumentTooLarge(f"The tags of a version of {name} take more than 16 MB.")
        return version_entity(await self._number_and_insert(name, version), version)

    async def _number_and_insert(self, name: str, version: Document) -> Document:
        """Complete ``version`` and insert it; returns its model."""
        models, versions = models_in(self.database), versions_in(self.database)
        async with self.database.lock(f"registered model {name}"):
            # A repetition keeps the number that it was given, although others have taken the next ones
            # meanwhile: the version may be there already.
            model = await drawn_once("version", lambda: self._take_number(name, version["creation_time"]))
            number = model["last_version"]
            version.update(_id=version_id(model["_id"], number), model=model["_id"], version=number)
            version.update(await insert_once(versions, version))
        now = await models.find_one({"_id": model["_id"]}, {"name": 1})
        if now is None:
            # Deleted meanwhile, perhaps before its delete could see this version.
            await versions.delete_one({"_id": version["_id"]})
            refuse_unknown_model(name)
        if now["name"] != name:
            await versions.update_one({"_id": version["_id"]}, {"$set": {"name": now["name"]}})
        return model

    async def _take_number(self, name: str, now: int) -> Document:
        """The model, whose ``last_version`` is now this call's.

        The model notes for whom: a repetition whose first answer was lost finds its number there, unless
        somebody else has taken the next one meanwhile.
        """
        models, taken = models_in(self.database), {"numbered_for": call_token()}
        model = await models.find_one_and_update(
            scoped({"name": name, "numbered_for": {"$ne": call_token()}}),
            {"$inc": {"last_version": 1}, "$set": {"last_updated_time": now, **taken}},
            return_document=ReturnDocument.AFTER,
        )
        if model is None:
            model = await models.find_one(scoped({"name": name, **taken}))
        return model or refuse_unknown_model(name)

    async def _locate(self, source: str) -> tuple[str | None, str | None]:
        """Where the files of ``source`` are, and the run behind it if a models:/ URI leads to one."""
        if urlparse(source).scheme != "models":
            return source, None
        from genesis_flow.compat.stores import parse_model_uri

        uri = parse_model_uri(source)
        try:
            if uri.model_id is not None:
                model = await in_thread(_logged_model, uri.model_id)
                return model.artifact_location, model.source_run_id
            return await self.get_model_version_download_uri(uri.name or "", uri.version or ""), None
        except (MlflowException, NotImplementedError, OSError) as error:
            raise MlflowException(
                f"Unable to fetch model from model URI source artifact location '{source}'.Error: {error}"
            ) from error

    @operation
    async def get_model_version(self, name: str, version: str | int) -> ModelVersion:
        """A version of a registered model."""
        return version_entity(*await find_version(self.database, name, version), with_aliases=True)

    @operation
    async def get_model_version_download_uri(self, name: str, version: str | int) -> str | None:
        """Where the files of a version are."""
        _, found = await find_version(self.database, name, version)
        uri: str | None = found.get("storage_location") or found.get("source")
        return uri

    @mutation
    async def update_model_version(
        self, name: str, version: str | int, description: str | None = None
    ) -> ModelVersion:
        """Change the description of a version."""
        change = {"description": description, "last_updated_time": get_current_time_millis()}
        number = version_number(version)
        model = await find_model_of_version(self.database, name, number)
        updated = await versions_in(self.database).find_one_and_update(
            {"_id": version_id(model["_id"], number)}, {"$set": change}, return_document=ReturnDocument.AFTER
        )
        if updated is None:
            refuse_unknown_version(name, number)
        return version_entity(model, updated, with_aliases=True)

    @mutation
    async def delete_model_version(self, name: str, version: str | int) -> None:
        """Delete a version with its aliases; its number is not given out again."""
        validate_model_name(name)
        number = version_number(version)

        async def write(session: Session | None) -> None:
            model = await models_in(self.database).find_one(scoped({"name": name}), session=session)
            if model is None:
                refuse_unknown_version(name, number)
            deleted = await versions_in(self.database).delete_one(
                {"_id": version_id(model["_id"], number)}, session=session
            )
            traces = VersionTraces(model, number)
            if not deleted.deleted_count and not traces.any() and not is_repetition():
                refuse_unknown_version(name, number)
            await change_model(self.database, model, forget_version(self.database, number), session)

        async with self.database.lock(f"registered model {name}"):
            await self.database.atomically(write)

    @operation
    async def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """A page of the versions that match."""
        validate_version_page_size(max_results)
        page = version_page(filter_string, order_by, page_token)
        return await self._version_page(page, max_results)

    async def _version_page(self, page: Page, max_results: int) -> PagedList[ModelVersion]:
        versions = (
            await versions_in(self.database)
            .find(scoped(page.query), sort=page.sort, limit=max_results + 1, batch_size=max_results + 1)
            .to_list()
        )
        token = page.token_after(versions[max_results - 1]) if len(versions) > max_results else None
        versions = versions[:max_results]
        models = await self._models_by_id({version["model"] for version in versions})
        return PagedList(
            [
                version_entity(model, version)
                for version in versions
                if (model := models.get(version["model"])) is not None  # deleted meanwhile
            ],
            token,
        )

    async def _models_by_id(self, ids: set[str]) -> dict[str, Document]:
        """What the versions on a page need of their models."""
        pages = await asyncio.gather(
            *(
                models_in(self.database)
                .find(
                    {"_id": {"$in": portion}},
                    {"name": 1, "stages": 1, "aliases": 1},
                )
                .to_list()
                for portion in portions(sorted(ids))
            )
        )
        return {model["_id"]: model for models in pages for model in models}

    @mutation
    async def set_model_version_tag(self, name: str, version: str | int, tag: ModelVersionTag) -> None:
        """Set a tag of a version."""
        validate_model_name(name)
        number = version_number(version)
        validate_model_version_tag(tag.key, tag.value)
        await self._update_version_tags(name, number, set_tag_update(tag.key, tag.value))

    @mutation
    async def delete_model_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Delete a tag; as in MLflow it need not be there, but the version must."""
        validate_model_name(name)
        number = version_number(version)
        validate_tag_name(key)
        await self._update_version_tags(name, number, delete_tag_update(key))

    async def _update_version_tags(self, name: str, number: int, update: dict[str, Any]) -> None:
        model = await find_model_of_version(self.database, name, number, {"_id": 1})
        key = version_id(model["_id"], number)
        result = await versions_in(self.database).update_one({"_id": key}, update)
        if not result.matched_count:
            refuse_unknown_version(name, number)


def _logged_model(model_id: str) -> Any:
    from mlflow.tracking.client import MlflowClient

    return MlflowClient().get_logged_model(model_id)
