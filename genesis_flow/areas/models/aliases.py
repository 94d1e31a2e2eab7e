"""Aliases of model versions.

The model's document says which version an alias names. The version repeats it, so that a read by alias can
ask for both at once; where the two differ, the model is right and the version is read by its id.

Round trips: get by alias one (side by side), the alias ``latest`` as well; set and delete: the check, the
change, and the copies.
"""

from collections.abc import Callable

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from genesis_flow.areas.models.changes import change_model, if_version_exists
from genesis_flow.areas.models.documents import version_id
from genesis_flow.areas.models.entities import version_entity
from genesis_flow.areas.models.guards import (
    find_model,
    find_model_and_newest,
    find_version,
    find_version_by_alias,
    refuse_unknown_model,
    refuse_unknown_version,
    version_number,
    versions_in,
    versions_of,
)
from genesis_flow.compat.validation import (
    REGISTERED_MODEL_ALIAS_LATEST,
    validate_model_alias_name,
    validate_model_alias_name_reserved,
    validate_model_name,
)
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import Area, is_repetition, mutation, operation


class Aliases(Area):
    @mutation
    async def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """Let an alias of a registered model point to a version."""
        validate_model_name(name)
        validate_model_alias_name(alias)
        validate_model_alias_name_reserved(alias)
        number = version_number(version)
        model, _ = await find_version(self.database, name, number)

        async def change(model: Document, session: Session | None) -> dict[str, object]:
            return {f"aliases.{alias}": number}

        checked = if_version_exists(self.database, name, number, change)
        if await change_model(self.database, model, checked) is None:
            refuse_unknown_version(name, number)
        await self._copy_alias(model, alias, number)

    @mutation
    async def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias; as in MLflow it need not be there, but the model must."""
        validate_model_name(name)
        validate_model_alias_name(alias)
        model = await find_model(self.database, name)

        async def change(model: Document, session: Session | None) -> dict[str, object]:
            return {"aliases": {key: number for key, number in model["aliases"].items() if key != alias}}

        if alias not in model["aliases"]:
            if is_repetition():  # which may have got only as far as the model
                await self._copy_alias(model, alias, None)
            return
        if await change_model(self.database, model, change) is None:
            refuse_unknown_model(name)
        await self._copy_alias(model, alias, None)

    async def _copy_alias(self, model: Document, alias: str, number: int | None) -> None:
        versions = versions_in(self.database)
        others = {"_id": versions_of(model), "workspace": model["workspace"], "name": model["name"]}
        if number is not None:
            await versions.update_one(
                {"_id": version_id(model["_id"], number)}, {"$addToSet": {"aliases": alias}}
            )
            others["version"] = {"$ne": number}
        await versions.update_many({**others, "aliases": alias}, {"$pull": {"aliases": alias}})

    @operation
    async def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias of a registered model points to."""
        validate_model_name(name)
        validate_model_alias_name(alias)
        return version_entity(*await self._find_by_alias(name, alias), with_aliases=True)

    async def _find_by_alias(
        self, name: str, alias: str, check: Callable[[Document], None] | None = None
    ) -> tuple[Document, Document]:
        if alias.lower() != REGISTERED_MODEL_ALIAS_LATEST:
            return await find_version_by_alias(self.database, name, alias, check)
        model, newest = await find_model_and_newest(self.database, name)
        if check is not None:
            check(model)
        if newest is None:
            raise MlflowException(f"Latest version not found for model {name}.", RESOURCE_DOES_NOT_EXIST)
        return model, newest
