"""A tour: all scenes on stores of one database, and what that holds afterwards.

Ids and times apart it is the same each time, so databases can be compared.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pymongo
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.metrics.places import PLACE, laid_over, waiting_points
from genesis_flow.areas.metrics.points import Point, distinct, unpack
from genesis_flow.documents.keys import children_of
from tests.mongod import unique
from tests.scenes import Stage, play
from tests.threads import InThreads

Made = Callable[[], Awaitable[Any]]
"""Makes one call."""


class World(Stage):
    """Both stores of a database as a stage."""

    def __init__(self, uri: str, artifacts: str) -> None:
        super().__init__(self._track, self._register, Path(artifacts))
        self.uri = uri
        self.store: Any = MongoDBStore(uri, artifacts)
        self.registry = MongoDBModelRegistryStore(uri)
        self.around = self.plainly
        """Makes each call of a scene; tests put one of their own in its place, to disturb it."""

    async def plainly(self, name: str, make: Made) -> Any:
        return await make()

    async def close(self) -> None:
        await self.store.close()
        await self.registry.close()

    async def _track(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await self.around(name, lambda: getattr(self.store, name)(*args, **kwargs))

    async def _register(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await self.around(name, lambda: getattr(self.registry, name)(*args, **kwargs))


class WorldOfThreads(World):
    """A world with a blocking tracking store."""

    def __init__(self, uri: str, artifacts: str) -> None:
        super().__init__(uri, artifacts)
        self.store = InThreads(uri, artifacts)


# What a training does: calls that a blocking caller runs itself, and what they need.
TRAINING = ("experiments", "runs", "metrics", "traces", "logged_models")

# They count updates, and repetitions are updates.
_COUNTS = dict.fromkeys(
    ("generation", "tokens_of", "revision", "packed", "folds", "metric_keys", "places", "tail", "additions"),
    0,
)
_RANDOM = re.compile(
    "|".join(
        (
            r'(?<="_id": )\d+',
            r'(?<="experiment_id": )\d+',
            # Numbers of users, roles and permissions, of which a repetition may leave out some.
            r'(?<="id": )\d+',
            r'(?<="role_id": )\d+',
            r'(?<="owner_id": )\d+',
            r"(?<=__user_)\d+(?=__)",
            r'(?<="destination_id": ")\d+(?=")',
            r'(?<=/)\d+(?=[/"])',
            r"Timestamp\(\d+, \d+\)",
            r'(?<="default\|)\d+(?=\|)',
            r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}",
            r'(?<="digest": ")[0-9a-f]{8}(?=")',
            r'(?<="password_hash": ")[^"]+',  # has a salt of its own
            r"\b(?:17[5-9]|1[89]\d)\d{10}\b",
        )
    )
)


def history(database: Database[dict[str, Any]], head: dict[str, Any]) -> list[Point]:
    """Points may be in the tail of the head, in blocks or for a moment in both: a history is their set."""
    points = [(timestamp, number, value) for timestamp, number, value in head["tail"]]
    for block in database["metrics"].find({"_id": children_of(head["_id"])}):
        points += unpack(block)
    return distinct(points)


def seen_heads(database: Database[dict[str, Any]]) -> list[dict[str, Any]]:
    """The heads as readers see them: what waits to become part of them is as good as in their tails."""
    of_runs: dict[str, list[dict[str, Any]]] = {}
    for document in database["latest_metrics"].find().sort("_id"):
        of_runs.setdefault(document["run_uuid"], []).append(document)
    heads = []
    for documents in of_runs.values():
        places = [document for document in documents if document["key"] == PLACE]
        for head in laid_over(documents):
            waiting = [point for place in places for point in waiting_points(place, head["key"])]
            heads.append({**head, "tail": [*head["tail"], *waiting]})
    return heads


def _shown(value: Any) -> str:
    """Of what is encrypted, which is other bytes each time, only how much it is."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


def contents(client: pymongo.MongoClient[dict[str, Any]], database: str) -> dict[str, list[str]]:
    """What a database holds, with random ids and the present time made the same."""
    found, heads = {}, seen_heads(client[database])
    for name in client[database].list_collection_names():
        if name not in ("schema_migrations", "counters", "system.views", "params", "tags", "metrics"):
            documents = client[database][name].find({}, _COUNTS)
            if name == "latest_metrics":
                documents = [{**head, **dict.fromkeys(_COUNTS)} for head in heads]
            found[name] = sorted(
                _RANDOM.sub("*", json.dumps(document, default=_shown, sort_keys=True))
                for document in documents
            )
    found["histories"] = sorted(
        _RANDOM.sub("*", json.dumps([head["key"], history(client[database], head)])) for head in heads
    )
    return found


def stored(world: World) -> dict[str, list[str]]:
    with pymongo.MongoClient[dict[str, Any]](world.uri) as client:
        return contents(client, world.store.settings.database)


async def opened(world: World) -> None:
    """Its database is there, with its schema."""
    await world.store.get_experiment("0")
    await world.registry.search_registered_models()


@asynccontextmanager
async def temporary(kind: type[World], port: int, artifacts: str) -> AsyncIterator[World]:
    """A world on a database of its own."""
    uri = f"mongodb://127.0.0.1:{port}/{unique('test')}?directConnection=true"
    world = kind(uri, artifacts)
    try:
        yield world
    finally:
        name = world.store.settings.database
        await world.close()
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            client.drop_database(name)


class Undisturbed:
    """What tours leave to which nothing happens: one of a kind on each server serves a process's tests."""

    def __init__(self, artifacts: str) -> None:
        self.artifacts = artifacts
        """Where all tours keep artifacts, disturbed ones too: their addresses are compared."""
        self._found: dict[Any, dict[str, list[str]]] = {}

    async def tour(
        self, port: int, kind: type[World] = World, areas: tuple[str, ...] = ()
    ) -> dict[str, list[str]]:
        key = port, kind, areas
        if key not in self._found:
            async with temporary(kind, port, self.artifacts) as world:
                await opened(world)
                await play(world, *areas)
                self._found[key] = stored(world)
        return self._found[key]
