"""Moving things from one workspace to another: what the command line does, and no call of MLflow's stores.

What belongs to a thing goes first and the thing last, so that a move that was cut off is still seen as one
that has to be made; and once more behind it, for what was made in between. All of it may be made again.
MCP servers and skills have ids that begin with the workspace: their copies come first, and the old ones go.

Round trips grow with what is moved: about fifteen for each portion of two hundred things.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, RESOURCE_ALREADY_EXISTS
from mlflow.utils.uri import append_to_uri_path
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from genesis_flow.areas.workspaces.contents import (
    DEFAULT_EXPERIMENT,
    NAMED,
    NAMED_BY_WORKSPACE,
    ROOTS,
    TIES,
    Conflict,
    announce,
    beginnings,
    by_name,
    conflicts,
    conflicts_of,
    copy,
    give,
    in_experiments,
    movable_in,
    owned,
    roots_in,
    told_name,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import escape, stored_text
from genesis_flow.documents.plain import Document
from genesis_flow.documents.tag_values import tag_field
from genesis_flow.mongo.operation import Area, drawn_once, long_mutation, operation

DATASET, EXPERIMENT = "evaluation_dataset", "experiment"
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Movable:
    """A kind of things that can be moved singly."""

    # No two of a workspace may have one name.
    unique: bool = True
    tagged: bool = False


# The gateway's things refer to each other, so they go together with everything else, or not at all.
MOVABLE = {
    "experiments": Movable(tagged=True),
    "registered_models": Movable(tagged=True),
    "mcp_servers": Movable(tagged=True),
    "skills": Movable(tagged=True),
    "evaluation_datasets": Movable(unique=False),
    "webhooks": Movable(unique=False),
    "jobs": Movable(unique=False),
}


# As when a workspace is deleted, but for what MLflow lets have one name.
UNIQUE = tuple(each for each in NAMED if each not in ("webhooks", "gateway_guardrails"))
# The field of what belongs to things of a kind that says to which.
OWNERS = {"experiments": "experiment_id", "registered_models": "model"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be moved: all of a kind, or those with one of the names, or with all of the tags."""

    kind: str
    names: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def query(self, workspace: str) -> Document:
        query: Document = {"workspace": workspace}
        if self.kind == "skills" and self.names:
            query["$or"] = [_skill(name) for name in self.names]
        elif self.names:
            query["job_name" if self.kind == "jobs" else "name"] = {"$in": list(self.names)}
        for key, value in self.tags:
            # Only registered models keep long values beside the others.
            field = tag_field(key, value) if self.kind == "registered_models" else f"tags.{escape(key)}"
            query[field] = stored_text(value)
        return query


def _skill(name: str) -> Document:
    organization, _, rest = name[1:].partition("/") if name.startswith("@") else ("", "", name)
    return {"organization": organization, "name": rest}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a choice means, and what keeps it from being moved."""

    # With what is there by now, and not followed by all that belongs to it.
    things: list[Document]
    conflicts: list[Conflict]
    # The names that were asked for and are neither here nor there.
    unknown: list[str]

    @property
    def names(self) -> list[str]:
        return [told_name(each) for each in self.things]


class Moves(Area):
    """The moves of one database. It sees all workspaces, whatever the process was told."""

    store = "tracking"

    @operation
    async def count_things(self) -> dict[str, dict[str, int]]:
        """By workspace, how many things of each kind are in it."""
        counts: dict[str, dict[str, int]] = {}
        for kind in ROOTS:
            groups = [{"$group": {"_id": "$workspace", "count": {"$sum": 1}}}]
            async for each in await by_name(self.database, kind).aggregate(groups):
                counts.setdefault(each["_id"], {})[kind] = each["count"]
        return counts

    @operation
    async def count_movable(self, origins: list[str]) -> dict[str, int]:
        """By collection, how many documents are in these workspaces and can leave them."""
        counts: dict[str, int] = {}
        for name in sorted(owned()):
            for origin in origins:
                count = await by_name(self.database, name).count_documents(movable_in(name, origin))
                if count:
                    counts[name] = counts.get(name, 0) + count
        return counts

    @operation
    async def plan(self, choice: Choice, origin: str, destination: str) -> Plan:
        """What would be moved: nothing is changed."""
        things, there = await self._find(choice, origin), await self._find(choice, destination)
        known = {told_name(each) for each in (*things, *there)}
        unknown = [name for name in choice.names if name not in known]
        if choice.kind == "skills":
            await self.refuse_kept_skills([origin], [told_name(each) for each in things])
        taken: list[Conflict] = []
        if MOVABLE[choice.kind].unique:
            taken = await conflicts_of(self.database, choice.kind, origin, destination, things)
        left = await self._left_behind(choice.kind, [each["_id"] for each in there], origin)
        return Plan([*things, *(each for each in there if each["_id"] in left)], taken, unknown)

    async def _left_behind(self, kind: str, ids: list[Any], origin: str) -> set[Any]:
        """Those of which something is still in another workspace, since a move was cut off."""
        left: set[Any] = set()
        if kind not in OWNERS or not ids:
            return left
        for begin in range(0, len(ids), AT_ONCE):
            for name, query in _followers(kind, ids[begin : begin + AT_ONCE]).items():
                owners = by_name(self.database, name).distinct(OWNERS[kind], {**query, "workspace": origin})
                left.update(await owners)
        return left

    async def _find(self, choice: Choice, workspace: str) -> list[Document]:
        """What a choice means in a workspace, by name; never the default experiment."""
        found = [each async for each in roots_in(self.database, choice.kind, choice.query(workspace))]
        things = [each for each in found if (choice.kind, each["_id"]) != ("experiments", DEFAULT_EXPERIMENT)]
        return sorted(things, key=lambda each: (told_name(each), str(each["_id"])))

    @operation
    async def find_all_conflicts(self, origins: list[str], destination: str) -> list[Conflict]:
        """The names that keep all of these workspaces from being given to another one."""
        return await conflicts(self.database, origins, destination, UNIQUE)

    @operation
    async def refuse_kept_skills(self, origins: list[str], names: list[str] | None = None) -> None:
        """MLflow looks for files that it keeps itself in the folder of the workspace."""
        query: Document = {"workspace": {"$in": origins}, "versions.source_type": "mlflow"}
        if names is not None:
            query = {**query, "$or": [_skill(name) for name in names] or [{"_id": None}]}
        if found := await by_name(self.database, "skills").find_one(query, {"name": 1, "organization": 1}):
            raise MlflowException(
                f"The skill {told_name(found)!r} has versions whose files MLflow keeps in the folder of its "
                "workspace, and would not find in another one. Remove these versions, or register them "
                "from another source, before it is moved.",
                INVALID_STATE,
            )

    @long_mutation
    async def move_things(
        self, kind: str, thing_ids: list[Any], origin: str, destination: str, root: str | None = None
    ) -> None:
        """Move things of one kind, at most AT_ONCE, with all that belongs to them.

        With a ``root``, new runs of the experiments keep their artifacts there.
        """
        if len(thing_ids) > AT_ONCE or kind not in MOVABLE:
            raise invalid(f"{len(thing_ids)} {kind} cannot be moved at once.")
        if kind in NAMED_BY_WORKSPACE:
            await self._move_copied(kind, thing_ids, origin, destination)
            return
        if kind == "experiments":
            await drawn_once("announced", partial(announce, self.database, destination))
        followers = _followers(kind, thing_ids)
        await self._move_followers("before", followers, origin, destination)
        await self._move_ties(kind, thing_ids, origin, destination)
        try:
            await self._move_roots(kind, thing_ids, origin, destination, root)
        except (DuplicateKeyError, BulkWriteError) as error:
            raise MlflowException(
                f"The workspace {destination!r} has got one of the same name in {kind} meanwhile: run the "
                "command again, and it will be named.",
                RESOURCE_ALREADY_EXISTS,
            ) from error
        await self._move_followers("behind", followers, origin, destination)
        if kind == "experiments":
            await announce(self.database, destination)

    @long_mutation
    async def give_all(self, origin: str, destination: str) -> None:
        """Give all that is in a workspace to another one, but for the default experiment."""
        await give(self.database, origin, destination, once=drawn_once)

    async def _move_roots(
        self, kind: str, ids: list[Any], origin: str, destination: str, root: str | None
    ) -> None:
        collection = by_name(self.database, kind)
        if root is None:
            query = {"_id": {"$in": ids}, "workspace": origin}
            await collection.update_many(query, {"$set": {"workspace": destination}})
            return
        places = {each: append_to_uri_path(root, str(each)) for each in ids}
        await collection.bulk_write(
            [
                UpdateOne(
                    {"_id": each, "workspace": origin},
                    {"$set": {"workspace": destination, "artifact_location": place}},
                )
                for each, place in places.items()
            ]
        )

    async def _move_followers(
        self, when: str, followers: dict[str, Document], origin: str, destination: str
    ) -> None:
        change = {"$set": {"workspace": destination}}
        for name, query in followers.items():
            step = partial(by_name(self.database, name).update_many, {**query, "workspace": origin}, change)
            await drawn_once(f"{name} {when}", step)

    async def _move_ties(self, kind: str, ids: list[Any], origin: str, destination: str) -> None:
        """A dataset is tied to experiments: that is so where both are."""
        if kind not in ("experiments", "evaluation_datasets"):
            return
        mine, other = ("destination", "source") if kind == "experiments" else ("source", "destination")
        named = EXPERIMENT if kind == "experiments" else DATASET
        query = {f"{mine}_type": named, f"{mine}_id": {"$in": [str(each) for each in ids]}}
        ties = await by_name(self.database, TIES).find({**query, "workspace": origin}).to_list()
        known = {EXPERIMENT: "experiments", DATASET: "evaluation_datasets"}
        for tie in ties:
            if (others := known.get(tie[f"{other}_type"])) is not None:
                of_other: Any = tie[f"{other}_id"]
                if others == "experiments":
                    of_other = int(of_other)
                if not await by_name(self.database, others).find_one(
                    {"_id": of_other, "workspace": destination}, {"_id": 1}
                ):
                    continue
            await by_name(self.database, TIES).update_one(
                {"_id": tie["_id"]}, {"$set": {"workspace": destination}}
            )

    async def _move_copied(self, kind: str, ids: list[Any], origin: str, destination: str) -> None:
        """Copies of what belongs to a thing come before it, and go behind it."""
        steps = [(kind, {"_id": {"$in": ids}, "workspace": origin})]
        if kind == "mcp_servers":
            steps.insert(0, ("mcp_contents", {"server": {"$in": ids}, "workspace": origin}))
        for name, query in steps:
            collection = by_name(self.database, name)
            await drawn_once(f"copy {name}", partial(copy, collection, query, origin, destination))
        for name, query in reversed(steps):
            await drawn_once(f"erase {name}", partial(by_name(self.database, name).delete_many, query))


def _followers(kind: str, ids: list[Any]) -> dict[str, Document]:
    """By collection, what goes with these."""
    if kind == "experiments":
        return {name: {"experiment_id": {"$in": ids}} for name in in_experiments()}
    if kind == "registered_models":
        return {"model_versions": {"_id": beginnings(ids)}}
    return {"job_locks": {"job_id": {"$in": ids}}} if kind == "jobs" else {}
