"""What the server did for a call: MongoDB's profiler tells the plan that really ran, with its counts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from genesis_flow.mongo.connection import Database


@dataclass(frozen=True)
class Query:
    collection: str
    plan: str
    blocking_sort: bool
    keys: int
    documents: int
    returned: int

    @property
    def scans_collection(self) -> bool:
        return "COLLSCAN" in self.plan


def raw(database: Database) -> AsyncDatabase[dict[str, Any]]:
    """The driver's own, for what a store does not do."""
    return database.client[database.settings.database]


@asynccontextmanager
async def profiled(opened: Database) -> AsyncIterator[list[Query]]:
    """The reads made inside the block, in order, once it has ended."""
    database = raw(opened)
    await database.command("profile", 0)
    await database.drop_collection("system.profile")
    await database.command("profile", 2)
    queries: list[Query] = []
    try:
        yield queries
    finally:
        await database.command("profile", 0)
        # A query on the profile itself is not in it: profiling is off by now.
        async for entry in database["system.profile"].find({"planSummary": {"$exists": True}}):
            queries.append(
                Query(
                    collection=entry["ns"].partition(".")[2],
                    plan=entry["planSummary"],
                    blocking_sort=entry.get("hasSortStage", False),
                    keys=entry.get("keysExamined", 0),
                    documents=entry.get("docsExamined", 0),
                    returned=entry.get("nreturned", 0),
                )
            )
        # With a collection more, the database would not be handed to the next test.
        await database.drop_collection("system.profile")
