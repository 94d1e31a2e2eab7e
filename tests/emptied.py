"""A database that the tests of a process use one after the other: emptied between them, not made anew.

To make one takes dozens of commands that create files, to empty one a command and one for each collection
that has documents.
"""

from typing import Any

import pymongo
from pymongo.database import Database

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate.initialise import LEDGER
from tests.mongod import Mongod, unique


class EmptiedDatabase:
    """One at a time: a test that changed the schema is the last to have used its database."""

    def __init__(self, mongod: Mongod) -> None:
        self._mongod = mongod
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongod.uri)
        self._name = ""
        self._schema: tuple[int, ...] = ()

    async def uri(self) -> str:
        """A database at head without documents, not even a default experiment: the next store makes that."""
        if not self._name:
            self._name = unique("emptied")
            async with MongoDBStore(self._mongod.database_uri(self._name)) as store:
                await store.get_experiment("0")
            self._schema = self._counted()
            empty(self._database)
        return self._mongod.database_uri(self._name)

    def give_back(self) -> None:
        """Empty it for the next test, or drop it if its schema is not what it was."""
        if self._counted() == self._schema:
            empty(self._database)
        else:
            self._drop()

    def close(self) -> None:
        self._drop()
        self._client.close()

    @property
    def _database(self) -> Database[dict[str, Any]]:
        return self._client[self._name]

    def _counted(self) -> tuple[int, ...]:
        """How many collections, views and indexes there are: what a test makes or drops shows."""
        stats = self._database.command("dbStats")
        return stats["collections"], stats["views"], stats["indexes"]

    def _drop(self) -> None:
        if self._name:
            self._client.drop_database(self._name)
            self._name = ""


def empty(database: Database[dict[str, Any]]) -> None:
    """One command finds the collections that have documents; most have none."""
    names = [
        each["name"]
        for each in database.list_collections(filter={"type": "collection"})
        if each["name"] != LEDGER and not each["name"].startswith("system.")
    ]
    if not names:
        return
    first, *others = names
    joined = [{"$unionWith": {"coll": name, "pipeline": _whether_any(name)}} for name in others]
    for found in database[first].aggregate([*_whether_any(first), *joined]):
        database[found["name"]].delete_many({})


def _whether_any(name: str) -> list[dict[str, Any]]:
    return [{"$limit": 1}, {"$project": {"_id": 0, "name": {"$literal": name}}}]
