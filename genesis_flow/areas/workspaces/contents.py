"""All that is in a workspace, for those who delete it or give it to another one.

It is found by the field ``workspace``, whatever the area; what has none belongs to what has, by its id. Each
step may be made again: a call that was cut off is finished by the same call.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Collection as Several
from functools import partial
from typing import Any, NamedTuple

from bson.regex import Regex
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo.errors import OperationFailure

from genesis_flow.areas.traces.sums.documents import COSTS, COSTS_OF_ALL, LEAVING, notes_of_everything
from genesis_flow.documents.declared import Declared, declared_collections
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.error_edge import is_unauthorized

# What keeps a workspace from being deleted, and must not have the name of a thing in the one that gets it.
ROOTS = (
    *("registered_models", "experiments", "evaluation_datasets", "webhooks"),
    *("gateway_secrets", "gateway_endpoints", "gateway_models", "gateway_budgets", "gateway_guardrails"),
    *("jobs", "mcp_servers", "skills"),
)
NAMED = tuple(each for each in ROOTS if each not in ("jobs", "gateway_budgets"))
# What has no workspace: whose it is, and the field that says so, or the beginning of its id.
CHILDREN = {
    "metrics": ("runs", "_id"),
    "spans": ("traces", "_id"),
    "span_payloads": ("traces", "_id"),
    "logged_model_metrics": ("logged_models", "model_id"),
    "evaluation_dataset_records": ("evaluation_datasets", "dataset_id"),
}
SUMS = "trace_sums"
# The default experiment stays in the default workspace with all that is in it: clients count on its number.
DEFAULT_EXPERIMENT = 0
# What belongs to two things, of which the one may stay when the other goes.
TIES = "entity_associations"
# What happened stays what happened, imports are their journals' business, and MLflow's server tells its store
# of users what goes with a workspace.
STAYS = ("audit", "import_journals", "auth_users", "auth_roles")
# Ids begin with the workspace: the copies come first, in this order, and the old ones go in the other.
NAMED_BY_WORKSPACE = ("mcp_contents", "mcp_servers", "skills")
# A step of many, and what makes it once in a call: a server that throttles would never let all of them pass
# in one attempt.
Step = Callable[[], Awaitable[Any]]
Once = Callable[[str, Step], Awaitable[Any]]


class Conflict(NamedTuple):
    """A name that several have; whose they are."""

    kind: str
    name: str
    workspaces: tuple[str, ...]


_NAMES = ("_id", "server", "content", "replaces")
_AT_ONCE = 200


def owned() -> dict[str, type[Declared]]:
    """The collections of things that have a workspace."""
    return {
        each.Settings.name: each
        for each in declared_collections()
        if "workspace" in each.model_fields and each.Settings.name not in STAYS
    }


def by_name(database: Database, name: str) -> Collection:
    return database.documents.called(name)


async def first_root(database: Database, workspace: str) -> tuple[str, int] | None:
    """A kind of things that are still in a workspace, and how many."""
    for name in ROOTS:
        count = await by_name(database, name).count_documents({"workspace": workspace})
        if count:
            return name, count
    return None


async def first_outside(database: Database) -> str | None:
    """A kind of things that are outside the default workspace, as far as the user may see them."""
    outside: Document = {"workspace": {"$ne": DEFAULT_WORKSPACE_NAME}}
    if not database.documents.portable:  # whose server has no $unionWith
        looks: list[list[Document]] = [
            [{"$match": outside}, {"$limit": 1}, {"$project": {"_id": 0, "kind": {"$literal": name}}}]
            for name in ROOTS
        ]
        first, *others = ((by_name(database, name), look) for name, look in zip(ROOTS, looks, strict=True))
        beside = [{"$unionWith": {"coll": each.name, "pipeline": look}} for each, look in others]
        try:
            found = await (await first[0].aggregate([*first[1], *beside, {"$limit": 1}])).to_list()
            return found[0]["kind"] if found else None
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
    are_there = await asyncio.gather(*(_is_there(by_name(database, name), outside) for name in ROOTS))
    return next((name for name, is_there in zip(ROOTS, are_there, strict=True) if is_there), None)


async def _is_there(collection: Collection, query: Document) -> bool:
    try:
        return await collection.find_one(query, {"_id": 1}) is not None
    except OperationFailure as error:
        if is_unauthorized(error):
            return False
        raise


async def refuse_single_tenant(database: Database) -> None:
    """Without workspaces nobody would see what is outside the default one."""
    if kind := await first_outside(database):
        raise MlflowException(
            f"Cannot disable workspaces because {kind.replace('_', ' ')} exist outside the default "
            "workspace. Enable workspace support (MLFLOW_ENABLE_WORKSPACES=true), or give everything to the "
            "default workspace: `genesis-flow workspaces migrate-to-default`.",
            INVALID_STATE,
        )


def told_name(thing: Document) -> str:
    """The name of a root as people write it."""
    name = str(thing.get("name", thing.get("job_name", thing["_id"])))
    return f"@{thing['organization']}/{name}" if thing.get("organization") else name


async def conflicts(
    database: Database,
    workspaces: Several[str],
    destination: str = DEFAULT_WORKSPACE_NAME,
    kinds: Several[str] = NAMED,
) -> list[Conflict]:
    """The names that are taken where they are to go, and those that two would bring there."""
    found = []
    for kind in kinds:
        holders: dict[str, dict[str, Document]] = defaultdict(dict)
        for workspace in workspaces:
            async for each in roots_in(database, kind, {"workspace": workspace}):
                holders[told_name(each)][workspace] = each
        await find_taken(database, kind, destination, holders)
        found += [
            Conflict(kind, name, tuple(sorted(whose)))
            for name, whose in holders.items()
            if len(whose) > 1 and not _is_half_moved(kind, whose, destination)
        ]
    return found


async def conflicts_of(
    database: Database, kind: str, workspace: str, destination: str, things: list[Document]
) -> list[Conflict]:
    """Of things of one kind that are to go to a workspace, those whose names are taken there."""
    holders = {told_name(each): {workspace: each} for each in things}
    await find_taken(database, kind, destination, holders)
    return [
        Conflict(kind, name, (destination,))
        for name, whose in holders.items()
        if len(whose) > 1 and not _is_half_moved(kind, whose, destination)
    ]


async def find_taken(
    database: Database, kind: str, destination: str, holders: dict[str, dict[str, Document]]
) -> None:
    names = list(holders)
    for begin in range(0, len(names), _AT_ONCE):
        some = names[begin : begin + _AT_ONCE]
        bare = [each.rpartition("/")[2] for each in some if each.startswith("@")]
        query = {"workspace": destination, "name": {"$in": [*some, *bare]}}
        async for each in roots_in(database, kind, query):
            if told_name(each) in holders:
                holders[told_name(each)][destination] = each


async def roots_in(database: Database, kind: str, query: Document) -> AsyncIterator[Document]:
    """Roots by what tells them apart; those whose ids name their workspace as a whole."""
    fields = None if kind in NAMED_BY_WORKSPACE else dict.fromkeys(("name", "job_name"), 1)
    async for some in _portions(by_name(database, kind).find(query, fields, batch_size=BATCH)):
        for each in some:
            yield each


def _is_half_moved(kind: str, by_workspace: dict[str, Document], destination: str) -> bool:
    """Whether what is there is the copy that somebody made who was cut off before he removed the original."""
    if kind not in NAMED_BY_WORKSPACE or destination not in by_workspace or len(by_workspace) > 2:
        return False
    ((workspace, original),) = ((name, each) for name, each in by_workspace.items() if name != destination)
    return moved(original, workspace, destination) == by_workspace[destination]


async def at_once(_name: str, step: Step) -> None:
    await step()


async def erase(database: Database, workspace: str, once: Once = at_once) -> None:
    """Delete all that is in a workspace; artifacts stay where they are."""
    for name in CHILDREN:
        await once(f"children {name}", partial(_erase_children, database, workspace, name))
    await once("sums", partial(_forget_sums, database, workspace))
    # Experiments last: what is left of a cut-off deletion belongs to something that is there.
    for name in sorted(owned(), key=lambda each: each == "experiments"):
        await once(f"erase {name}", partial(by_name(database, name).delete_many, {"workspace": workspace}))
    # Again: of those that were made meanwhile nobody knows.
    await once("sums of the rest", partial(_forget_sums, database, workspace))


async def _erase_children(database: Database, workspace: str, name: str) -> None:
    parents, field = CHILDREN[name]
    of_workspace = by_name(database, parents).find({"workspace": workspace}, {"_id": 1})
    async for some in _portions(of_workspace):
        ids = [each["_id"] for each in some]
        query = {field: beginnings(ids) if field == "_id" else {"$in": ids}}
        await by_name(database, name).delete_many(query)


async def give(
    database: Database, workspace: str, destination: str = DEFAULT_WORKSPACE_NAME, once: Once = at_once
) -> None:
    """Make all that is in a workspace another one's, but for the default experiment.

    What belongs to things goes before them, and again behind them: it may have been made in between.
    """
    own = {"workspace": workspace}
    for name in NAMED_BY_WORKSPACE:
        await once(f"copy {name}", partial(copy, by_name(database, name), own, workspace, destination))
    for name in reversed(NAMED_BY_WORKSPACE):
        await once(f"erase {name}", partial(by_name(database, name).delete_many, own))
    await once("sums", partial(_forget_sums, database, workspace))
    await once("sums before", partial(announce, database, destination))
    change = {"$set": {"workspace": destination}}
    in_place = sorted(owned().keys() - set(NAMED_BY_WORKSPACE))
    followers = [name for name in in_place if name not in ROOTS]
    roots = sorted((name for name in in_place if name in ROOTS), key=lambda each: each == "experiments")
    for turn, name in enumerate((*followers, *roots, *followers)):
        query = movable_in(name, workspace)
        await once(f"give {turn}", partial(by_name(database, name).update_many, query, change))
    await once("sums behind", partial(announce, database, destination))
    await once("sums of the rest", partial(_forget_sums, database, workspace))


def movable_in(name: str, workspace: str) -> Document:
    """What of a collection is in a workspace, and can leave it."""
    query: Document = {"workspace": workspace}
    if workspace != DEFAULT_WORKSPACE_NAME:
        return query
    if name == "experiments":
        return {**query, "_id": {"$ne": DEFAULT_EXPERIMENT}}
    if name == TIES:
        end = {"destination_type": "experiment", "destination_id": str(DEFAULT_EXPERIMENT)}
        return {**query, "$nor": [end]}
    return {**query, "experiment_id": {"$ne": DEFAULT_EXPERIMENT}} if name in in_experiments() else query


def in_experiments() -> list[str]:
    """The collections of what goes where its experiment goes."""
    return [
        name for name, each in owned().items() if name not in ROOTS and "experiment_id" in each.model_fields
    ]


async def copy(collection: Collection, query: Document, workspace: str, destination: str) -> None:
    """Copies of what is found, with ids of another workspace."""
    async for document in collection.find(query, batch_size=BATCH):
        copied = moved(document, workspace, destination)
        await collection.replace_one({"_id": copied["_id"]}, copied, upsert=True)


def moved(document: Document, workspace: str, destination: str) -> Document:
    """What a document whose id begins with its workspace is in another one."""
    return {**_renamed(document, workspace, destination), "workspace": destination}


def _renamed(value: Any, workspace: str, destination: str, field: str = "") -> Any:
    """A document whose ids, and what names such ids, begin with another workspace."""
    if isinstance(value, dict):
        return {key: _renamed(each, workspace, destination, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, workspace, destination, field) for each in value]
    before = workspace + SEPARATOR
    if field in _NAMES and isinstance(value, str) and value.startswith(before):
        return destination + SEPARATOR + value.removeprefix(before)
    return value


async def announce(database: Database, destination: str) -> None:
    """Before and after traces come: sums that are made meanwhile, or were once, do not count."""
    sums = by_name(database, SUMS)
    for key in notes_of_everything(destination):
        await sums.update_one({"_id": key}, LEAVING, upsert=True)


async def _forget_sums(database: Database, workspace: str) -> None:
    """They are made anew by whoever asks. Those of costs are of all workspaces, and said not to hold."""
    sums = by_name(database, SUMS)
    for beginning in (workspace, COSTS):
        await sums.delete_many({"_id": children_of(beginning)})
    await sums.update_one({"_id": COSTS_OF_ALL}, LEAVING, upsert=True)


async def _portions(cursor: Any) -> AsyncIterator[list[Document]]:
    while some := await cursor.to_list(_AT_ONCE):
        yield some


def beginnings(ids: list[str]) -> Document:
    # Not re.compile: its Unicode flag would make the server walk the whole index.
    return {"$in": [Regex("^" + re.escape(each + SEPARATOR)) for each in ids]}
