"""Registered things: a parent with a unique name, versions with a status, aliases, tags, a derived latest.

The parent's document has all of that, a short entry for each version included, so each change is one update
of one document: of an alias and its version, a reader sees both or neither. A change is computed from the
document as it was read and written over exactly that revision; when somebody else was faster, it is read and
computed again. ``settle`` works out anew in each change what follows from the versions.

A registry has fields of its own for what it has beyond this. ADR 23 says what a new one costs.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities.mcp_server import VALID_STATUS_TRANSITIONS, MCPStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.utils.time import get_current_time_millis
from pydantic import BaseModel, Field
from pymongo.errors import DuplicateKeyError

from genesis_flow.core.errors import invalid
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import escape, stored_text
from genesis_flow.documents.plain import Document
from genesis_flow.kit.entities import Refusal
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import call_token, is_repetition
from genesis_flow.mongo.scoping import current_workspace, scoped

DRAFT, ACTIVE, DELETED = "draft", "active", "deleted"
LATEST = "latest"


class VersionEntry(BaseModel):
    """What each version has in its parent."""

    status: str = Field(
        description="`draft`, `active`, `deprecated` or `deleted`. Deleted ones keep their number."
    )
    tags: dict[str, str | None] = Field(
        default_factory=dict, description="Tags of the version by escaped key."
    )
    call: str = Field(description="The call that made or last changed it, which may be repeated.")
    created_by: str | None = Field(default=None, description="Who made it.")
    last_updated_by: str | None = Field(default=None, description="Who changed it last.")
    creation_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")


class RegisteredFields(Declared):
    """What each registered thing has."""

    id: str = Field(alias="_id", description="Workspace and name, joined by `|`.")
    workspace: str = Field(description="Workspace; every query names it.")
    name: str = Field(description="Name.")
    description: str | None = Field(default=None, description="Description.")
    icons: str | None = Field(default=None, description="Icons, JSON.")
    tags: dict[str, str | None] = Field(default_factory=dict, description="Tags by escaped key.")
    aliases: list[dict[str, Any]] = Field(
        default_factory=list, description="`{alias, version}`, by alias; each names a version that is there."
    )
    latest: dict[str, Any] | None = Field(
        default=None,
        description="What searches ask of the latest version: an active one first, then the highest.",
    )
    revision: int = Field(default=0, description="Counts the changes: each is made over what was read.")
    born: str = Field(description="The call that made it, which may be repeated.")
    created_by: str | None = Field(default=None, description="Who made it.")
    last_updated_by: str | None = Field(default=None, description="Who changed it last.")
    creation_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed; changes of versions do not count.")


@dataclass(frozen=True, slots=True)
class Registry:
    """What makes one registry differ from another."""

    order: Callable[[Document], Any]
    """What makes one version later than another."""
    of_latest: Sequence[str]
    """The fields of the latest version that the parent repeats, for searches."""
    settle_more: Callable[[Document], None] = lambda _: None
    """Works out what else follows from the versions."""

    def settle(self, thing: Document) -> None:
        """Work out what follows from the versions of ``thing``: the latest, and which aliases there are."""
        live = live_versions(thing)
        known = {version["version"] for version in live}
        thing["aliases"] = [each for each in thing["aliases"] if each["version"] in known]
        latest = max(
            live, key=lambda version: (version["status"] == ACTIVE, self.order(version)), default=None
        )
        if latest is None:
            thing.pop("latest", None)
        else:
            thing["latest"] = {field: latest[field] for field in self.of_latest if field in latest}
        self.settle_more(thing)

    async def change(
        self, things: Collection, key: str, alter: Callable[[Document], None], absent: Callable[[], Document]
    ) -> tuple[Document | None, Document]:
        """A thing before and after ``alter``, which may refuse; ``absent`` makes one, or refuses."""
        while True:
            before = await things.find_one(scoped({"_id": key}))
            after = self.altered(before, alter, absent)
            if await _write(things, before, after):
                return before, after

    def altered(
        self, before: Document | None, alter: Callable[[Document], None], absent: Callable[[], Document]
    ) -> Document:
        after = absent() if before is None else copy.deepcopy(before)
        alter(after)
        self.settle(after)
        return after


async def _write(things: Collection, before: Document | None, after: Document) -> bool:
    """Whether ``after`` is stored now, over exactly what was there before."""
    if before is None:
        try:
            await things.insert_one(after)
        except DuplicateKeyError:
            return False
        return True
    if before == after:
        return True
    written = await things.update_one(unchanged(before), difference(before, after))
    return written.matched_count > 0


def unchanged(before: Document) -> Document:
    """The query for a thing as long as nobody has changed it."""
    return scoped({"_id": before["_id"], "revision": before["revision"]})


def difference(before: Document, after: Document) -> Document:
    """The update that makes ``after`` of ``before``; of the versions, the new and changed ones."""
    changed = {
        field: value
        for field, value in after.items()
        if field != "versions" and (field not in before or before[field] != value)
    }
    update: Document = {"$inc": {"revision": 1}}
    old, new = before["versions"], after["versions"]
    edited = {f"versions.{place}": new[place] for place in range(len(old)) if new[place] != old[place]}
    if edited and len(new) > len(old):
        changed["versions"] = new  # an update cannot do both
    elif len(new) > len(old):
        update["$push"] = {"versions": {"$each": new[len(old) :]}}
    changed |= edited if "versions" not in changed else {}
    if changed:
        update["$set"] = changed
    if gone := before.keys() - after.keys():
        update["$unset"] = dict.fromkeys(gone, "")
    return update


def new_thing(key: str, name: str, user: str | None, **fields: Any) -> Document:
    """The document of a thing without versions."""
    now = get_current_time_millis()
    return given(
        _id=key,
        workspace=current_workspace(),
        name=name,
        tags={},
        aliases=[],
        versions=[],
        revision=0,
        born=call_token(),
        created_by=user,
        last_updated_by=user,
        creation_time=now,
        last_update_time=now,
        **fields,
    )


def new_version(version: str | int, status: str, user: str | None, **fields: Any) -> Document:
    """The entry of a new version."""
    now = get_current_time_millis()
    return given(
        version=version,
        status=status,
        tags={},
        call=call_token(),
        created_by=user,
        last_updated_by=user,
        creation_time=now,
        last_update_time=now,
        **fields,
    )


def given(**fields: Any) -> Document:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def put(document: Document, **fields: Any) -> None:
    """Set fields, or take out those without a value."""
    for name, value in fields.items():
        if value is None:
            document.pop(name, None)
        else:
            document[name] = value


async def insert_thing(things: Collection, thing: Document, taken: Refusal) -> Document:
    """``thing``, once it is stored; refused if its name is taken by another call."""
    try:
        await things.insert_one(thing)
    except DuplicateKeyError as error:
        made: Document | None = await things.find_one(scoped({"_id": thing["_id"], "born": thing["born"]}))
        if made is None:
            raise taken() from error
        return made
    return thing


def live_versions(thing: Document) -> list[Document]:
    return [version for version in thing["versions"] if version["status"] != DELETED]


def version_of(thing: Document | None, version: str | int | None) -> Document | None:
    """The entry of a version, deleted ones included."""
    versions = thing["versions"] if thing else []
    return next((each for each in versions if each["version"] == version), None)


def live_version(thing: Document | None, version: str | int | None, unknown: Refusal) -> Document:
    version_there = version_of(thing, version)
    if version_there is None or version_there["status"] == DELETED:
        raise unknown()
    return version_there


def latest_version(thing: Document, unknown: Refusal) -> Document:
    return live_version(thing, (thing.get("latest") or {}).get("version"), unknown)


def aliased_version(thing: Document | None, alias: str) -> Document | None:
    """The entry of the version that an alias names."""
    named = stored_text(alias)
    entry = next((each for each in (thing or {}).get("aliases", ()) if each["alias"] == named), None)
    return None if entry is None else version_of(thing, entry["version"])


def aliases_of(thing: Document, version: str | int) -> list[str]:
    return [each["alias"] for each in thing["aliases"] if each["version"] == version]


def set_alias(thing: Document, alias: str, version: str | int) -> None:
    others = [each for each in thing["aliases"] if each["alias"] != alias]
    thing["aliases"] = sorted([*others, {"alias": alias, "version": version}], key=lambda each: each["alias"])


def drop_alias(thing: Document, alias: str, unknown: Refusal) -> None:
    named = stored_text(alias)
    others = [each for each in thing["aliases"] if each["alias"] != named]
    if len(others) == len(thing["aliases"]) and not is_repetition():
        raise unknown()
    thing["aliases"] = others


def set_tag(tagged: Document, key: str, value: str | None) -> None:
    tagged["tags"] = {**tagged["tags"], escape(key): stored_text(value)}


def drop_tag(tagged: Document, key: str, unknown: Refusal) -> None:
    field = escape(key)
    if field not in tagged["tags"] and not is_repetition():
        raise unknown()
    tagged["tags"] = {name: value for name, value in tagged["tags"].items() if name != field}


def is_done(version: Document) -> bool:
    """Whether an earlier attempt of this call has made or changed the version."""
    return is_repetition() and bool(version["call"] == call_token())


def touch(version: Document, **fields: Any) -> None:
    """Change a version, and say who did and when."""
    put(version, call=call_token(), last_update_time=get_current_time_millis(), **fields)


def check_transition(current: str, wanted: str) -> None:
    """Refuse a status that does not follow on the current one."""
    allowed = VALID_STATUS_TRANSITIONS.get(MCPStatus(current), set())
    if wanted not in allowed:
        raise MlflowException(
            f"Invalid status transition from '{current}' to '{wanted}'. "
            f"Allowed transitions: {sorted(str(status) for status in allowed)}",
            INVALID_PARAMETER_VALUE,
        )


def refuse_null_status() -> MlflowException:
    return invalid("status cannot be null; omit the field to leave it unchanged")
