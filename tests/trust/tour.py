"""A tour: all scenes on stores of one database, and what that holds afterwards.

Ids and times apart it is the same each time, so databases can be compared.
"""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymongo
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.metrics.points import Point, distinct, unpack
from genesis_flow.documents.keys import children_of
from tests.scenes import Stage
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
    ("generation", "tokens_of", "revision", "packed", "metric_keys", "tail", "additions"), 0
)
_RANDOM = re.compile(
    "|".join(
        (
            r'(?<="_id": )\d+',
            r'(?<="experiment_id": )\d+',
            r'(?<="destination_id": ")\d+(?=")',
            r'(?<=/)\d+(?=[/"])',
            r"Timestamp\(\d+, \d+\)",
            r'(?<="default\|)\d+(?=\|)',
            r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}",
            r'(?<="digest": ")[0-9a-f]{8}(?=")',
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


def _shown(value: Any) -> str:
    """Of what is encrypted, which is other bytes each time, only how much it is."""
    return f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)


def contents(client: pymongo.MongoClient[dict[str, Any]], database: str) -> dict[str, list[str]]:
    """What a database holds, with random ids and the present time made the same."""
    found = {}
    for name in client[database].list_collection_names():
        if name not in ("schema_migrations", "counters", "system.views", "params", "tags", "metrics"):
            documents = client[database][name].find({}, _COUNTS)
            found[name] = sorted(
                _RANDOM.sub("*", json.dumps(document, default=_shown, sort_keys=True))
                for document in documents
            )
    found["histories"] = sorted(
        _RANDOM.sub("*", json.dumps([head["key"], history(client[database], head)]))
        for head in client[database]["latest_metrics"].find()
    )
    return found
