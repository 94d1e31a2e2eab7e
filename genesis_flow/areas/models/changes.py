"""Changes of a model's stages and aliases.

Each is computed from the model's document as it was read and written over exactly that revision, in one
update; when somebody else was faster, the document is read and the change computed again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_ARCHIVED, STAGE_NONE
from mlflow.utils.time import get_current_time_millis
from pymongo import ReturnDocument

from genesis_flow.areas.models.documents import latest_unstaged, version_id
from genesis_flow.areas.models.guards import models_in, refuse_unknown_version, versions_in
from genesis_flow.areas.models.latest import newest_unstaged
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database, Session

# The fields to set, from the document as it was read.
Change = Callable[[Document, Session | None], Awaitable[dict[str, Any]]]


async def change_model(
    database: Database, model: Document, change: Change, session: Session | None = None
) -> tuple[Document, Document] | None:
    """The document before and after ``change``, or None when the model was deleted meanwhile."""
    while True:
        fields = await change(model, session)
        changed = await models_in(database).find_one_and_update(
            {"_id": model["_id"], "revision": model["revision"]},
            {"$set": fields, "$inc": {"revision": 1}},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if changed is not None:
            return model, changed
        current = await models_in(database).find_one({"_id": model["_id"]}, session=session)
        if current is None:
            return None
        model = current


def if_version_exists(database: Database, name: str, number: int, change: Change) -> Change:
    """``change``, provided that the version exists when the model's document has been read.

    A deletion removes a version first and then changes its model. So with one at the same moment, either
    the version is missed here, or the revision has moved on, or the deletion takes out again what was
    written here.
    """

    async def checked(model: Document, session: Session | None) -> dict[str, Any]:
        exists = await versions_in(database).find_one(
            {"_id": version_id(model["_id"], number)}, {"_id": 1}, session=session
        )
        if exists is None:
            refuse_unknown_version(name, number)
        return await change(model, session)

    return checked


@dataclass(frozen=True, slots=True)
class VersionTraces:
    """What a model's document says of one version."""

    model: Document
    number: int

    def any(self) -> bool:
        return str(self.number) in self.model["stages"] or self.number in self.model["aliases"].values()


def forget_version(database: Database, number: int) -> Change:
    """Take a deleted version out of the stages and aliases."""

    async def change(model: Document, session: Session | None) -> dict[str, Any]:
        stages = {key: stage for key, stage in model["stages"].items() if key != str(number)}
        fields: dict[str, Any] = {
            "stages": stages,
            "aliases": {alias: version for alias, version in model["aliases"].items() if version != number},
            "last_updated_time": get_current_time_millis(),
        }
        if latest_unstaged(model) == number:
            fields["latest_unstaged"] = await _next_unstaged(database, model, {*stages, str(number)}, session)
        return fields

    return change


def move_to_stage(database: Database, number: int, stage: str, *, archive_others: bool, now: int) -> Change:
    """Give a version its stage and archive those that had it, in one update."""

    async def change(model: Document, session: Session | None) -> dict[str, Any]:
        stages = dict(model["stages"])
        if archive_others:
            stages = {key: STAGE_ARCHIVED if old == stage else old for key, old in stages.items()}
        stages.pop(str(number), None)
        if stage != STAGE_NONE:
            stages[str(number)] = stage
        fields: dict[str, Any] = {"stages": stages, "last_updated_time": now}
        unstaged = latest_unstaged(model)
        if stage == STAGE_NONE and number > unstaged:
            fields["latest_unstaged"] = {"of": model["last_version"], "version": number}
        elif stage != STAGE_NONE and number == unstaged:
            fields["latest_unstaged"] = await _next_unstaged(database, model, set(stages), session)
        return fields

    return change


async def _next_unstaged(
    database: Database, model: Document, excluded: set[str], session: Session | None
) -> dict[str, int]:
    version = await newest_unstaged(database, model, excluded, session)
    return {"of": model["last_version"], "version": version["version"] if version else 0}
