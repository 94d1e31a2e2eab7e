"""The latest version of each stage, as the model's document names them."""

from collections.abc import Iterable
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_NONE

from genesis_flow.areas.models.documents import latest_by_stage, latest_unstaged, version_id
from genesis_flow.areas.models.guards import (
    NEWEST_ID,
    find_model,
    find_model_and_newest,
    versions_in,
    versions_of,
)
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.scoping import scoped

# How often a version may disappear between two reads before it is left out.
_ATTEMPTS = 5


async def model_with_latest(database: Database, name: str) -> tuple[Document, list[Document]]:
    """A model and its latest versions, in the order of their numbers.

    One round trip for a model whose versions have no stages, two for another one. The stages are those of
    one moment; when a version that had one is deleted before it is read, everything is read again.
    """
    model, newest = await find_model_and_newest(database, name)
    known = [newest] if newest is not None else []
    for _ in range(_ATTEMPTS):
        versions = (await latest_of_models(database, [model], known))[model["_id"]]
        numbers = {version["version"] for version in versions}
        if numbers >= set(latest_by_stage(model).values()):
            return model, versions
        model, known = await find_model(database, name), []
    return model, versions


async def latest_of_models(
    database: Database, models: list[Document], known: Iterable[Document] = ()
) -> dict[str, list[Document]]:
    """The documents of the latest versions of each model, by its id; one read, but for rare cases."""
    wanted = {model["_id"]: _wanted(model) for model in models}
    by_id = {version["_id"]: version for version in known}
    missing = [
        key
        for model, numbers in wanted.items()
        for number in numbers.values()
        if (key := version_id(model, number)) not in by_id
    ]
    by_id |= await versions_by_id(database, missing)
    latest: dict[str, list[Document]] = {}
    for model in models:
        by_stage = {
            stage: by_id[key]
            for stage, number in wanted[model["_id"]].items()
            if (key := version_id(model["_id"], number)) in by_id
        }
        if STAGE_NONE in wanted[model["_id"]] and STAGE_NONE not in by_stage:
            # Given out, but not there (yet).
            unstaged = await newest_unstaged(database, model, set(model["stages"]))
            if unstaged is not None:
                by_stage[STAGE_NONE] = unstaged
        latest[model["_id"]] = sorted(by_stage.values(), key=lambda version: int(version["version"]))
    return latest


async def versions_by_id(database: Database, ids: list[str]) -> dict[str, Document]:
    by_id: dict[str, Document] = {}
    for portion in portions(ids):
        # The default batch of 101 would make a page of models two round trips.
        versions = versions_in(database).find({"_id": {"$in": portion}}, batch_size=len(portion) + 1)
        by_id |= {version["_id"]: version async for version in versions}
    return by_id


async def newest_unstaged(
    database: Database, model: Document, excluded: set[str], session: Session | None = None
) -> Document | None:
    """The newest version of a model whose number is not among ``excluded``."""
    query: dict[str, Any] = {"_id": versions_of(model)}
    if excluded:
        query["version"] = {"$nin": [int(number) for number in excluded]}
    return await versions_in(database).find_one(scoped(query), sort=NEWEST_ID, session=session)


def _wanted(model: Document) -> dict[str, int]:
    """The number of the latest version of each stage."""
    unstaged = latest_unstaged(model)
    return {**latest_by_stage(model), **({STAGE_NONE: unstaged} if unstaged else {})}
