"""Reads and checks that the areas of the registry share."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from mlflow.entities.model_registry.model_version_stages import ALL_STAGES, get_canonical_stage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from pymongo import DESCENDING, ReturnDocument

from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields, version_id
from genesis_flow.compat.validation import validate_model_name, validate_model_version
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.scoping import scoped

# The largest that a version number can be in MLflow's SQL store as well.
LARGEST_VERSION = 2**31 - 1


def models_in(database: Database) -> Collection:
    return database.collection(RegisteredModelFields)


def versions_in(database: Database) -> Collection:
    return database.collection(ModelVersionFields)


async def find_model(
    database: Database,
    name: str,
    projection: dict[str, Any] | None = None,
    session: Session | None = None,
) -> Document:
    """The model's document, or MLflow's error for a model that is not there."""
    validate_model_name(name)
    model = await models_in(database).find_one(scoped({"name": name}), projection, session=session)
    return model or refuse_unknown_model(name)


async def update_model(database: Database, name: str, update: dict[str, Any]) -> Document:
    """The model's document after ``update``."""
    validate_model_name(name)
    model = await models_in(database).find_one_and_update(
        scoped({"name": name}), update, return_document=ReturnDocument.AFTER
    )
    return model or refuse_unknown_model(name)


async def find_version(database: Database, name: str, version: Any) -> tuple[Document, Document]:
    """A version by its number, with its model: two reads side by side."""
    number = version_number(version)
    model, found = await look_up_version(database, name, number)
    if model is None or found is None:
        refuse_unknown_version(name, number)
    return model, found


async def look_up_version(
    database: Database, name: str, number: int
) -> tuple[Document | None, Document | None]:
    """A version and its model, or None for what is missing: two reads side by side."""
    validate_model_name(name)
    model, candidates = await asyncio.gather(
        models_in(database).find_one(scoped({"name": name})),
        versions_in(database).find(scoped({"name": name, "version": number})).to_list(),
    )
    return model, await _own(database, model, candidates, number) if model else None


async def find_model_of_version(
    database: Database, name: str, number: int, projection: dict[str, Any] | None = None
) -> Document:
    """The model of a version that is about to be written by its id."""
    validate_model_name(name)
    model = await models_in(database).find_one(scoped({"name": name}), projection)
    return model or refuse_unknown_version(name, number)


async def find_version_by_alias(
    database: Database, name: str, alias: str, check: Callable[[Document], None] | None = None
) -> tuple[Document, Document]:
    """The version that an alias names, with its model: two reads side by side.

    ``check`` may refuse the model before the alias is looked at.
    """
    validate_model_name(name)
    model, candidates = await asyncio.gather(
        models_in(database).find_one(scoped({"name": name})),
        versions_in(database).find(scoped({"name": name, "aliases": alias})).to_list(),
    )
    if model is None:
        refuse_unknown_model(name)
    if check is not None:
        check(model)
    number = model["aliases"].get(alias)
    if number is None:
        raise MlflowException(f"Registered model alias {alias} not found.", INVALID_PARAMETER_VALUE)
    return model, await _own(database, model, candidates, number) or refuse_unknown_version(name, number)


async def find_model_and_newest(database: Database, name: str) -> tuple[Document, Document | None]:
    """A model with its newest version: two reads side by side."""
    validate_model_name(name)
    newest = versions_in(database).find_one(scoped({"name": name}), sort=[("version", DESCENDING)])
    model, version = await asyncio.gather(models_in(database).find_one(scoped({"name": name})), newest)
    if model is None:
        refuse_unknown_model(name)
    if version is not None and version["model"] == model["_id"]:
        return model, version
    # No versions, or a rename has not reached them yet.
    return model, await versions_in(database).find_one(scoped({"_id": versions_of(model)}), sort=NEWEST_ID)


async def _own(
    database: Database, model: Document, candidates: list[Document], number: int
) -> Document | None:
    """The model's version ``number``, looked up by id if it is not among ``candidates``.

    Candidates were found by copies that follow the model's document; the id is always right.
    """
    wanted = version_id(model["_id"], number)
    for candidate in candidates:
        if candidate["_id"] == wanted:
            return candidate
    return await versions_in(database).find_one({"_id": wanted})


NEWEST_ID = [("_id", DESCENDING)]


def versions_of(model: Document) -> dict[str, str]:
    """A condition on ``_id``: all versions of a model."""
    return {"$gte": version_id(model["_id"], 0), "$lte": version_id(model["_id"], LARGEST_VERSION)}


def version_number(version: Any) -> int:
    """The number in a version argument, which MLflow lets be a string."""
    try:
        number: int = validate_model_version(version)
    except (TypeError, OverflowError) as error:
        raise MlflowException(
            f"Invalid value {version!r} for parameter 'version' supplied. It must be an integer",
            INVALID_PARAMETER_VALUE,
        ) from error
    # A number that no version can have finds nothing, as it should, and fits a document.
    return number if abs(number) <= LARGEST_VERSION else -1


def canonical_stage(stage: Any) -> str:
    if not isinstance(stage, str):
        raise MlflowException(
            f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(ALL_STAGES)}.",
            INVALID_PARAMETER_VALUE,
        )
    return str(get_canonical_stage(stage))


def refuse_unknown_model(name: str) -> NoReturn:
    raise MlflowException(f"Registered Model with name={name} not found", RESOURCE_DOES_NOT_EXIST)


def refuse_unknown_version(name: str, version: Any) -> NoReturn:
    raise MlflowException(
        f"Model Version (name={name}, version={version}) not found", RESOURCE_DOES_NOT_EXIST
    )
