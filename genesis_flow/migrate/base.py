"""The base class of a migration step.

The file convention is that of mongodb-migrations: ``YYYYMMDDHHMMSS_what.py`` with a class ``Migration``
whose ``upgrade`` and ``downgrade`` work on ``self.db``, a synchronous PyMongo database. The class accepts
that tool's constructor arguments too, so its runner can run our files; nothing of it is imported, which
keeps its licence away from whoever does not choose it.
"""

import os
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import CollectionInvalid

PREFIX_VARIABLE = "MONGODB_COLLECTION_PREFIX"


def _database_of_tool(
    url: str | None, host: str, port: str, database: str | None, user: str | None, password: str | None
) -> Database[dict[str, Any]]:
    options: dict[str, Any] = {} if user is None else {"username": user, "password": password}
    client: pymongo.MongoClient[dict[str, Any]] = (
        pymongo.MongoClient(url, **options) if url else pymongo.MongoClient(host, int(port), **options)
    )
    return client.get_database(database) if database else client.get_default_database()


class BaseMigration:
    """One step of the schema. Every step is idempotent: applied twice, it leaves what applied once leaves."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: str = "27017",
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        url: str | None = None,
        *,
        db: Database[dict[str, Any]] | None = None,
        prefix: str | None = None,
    ) -> None:
        self.db = db if db is not None else _database_of_tool(url, host, port, database, user, password)
        self.prefix = prefix if prefix is not None else os.environ.get(PREFIX_VARIABLE, "")

    def collection(self, name: str) -> Collection[dict[str, Any]]:
        return self.db[self.prefix + name]

    def create_collection(self, name: str, **options: Any) -> None:
        """Create a collection or view, unless it is there."""
        try:
            self.db.create_collection(self.prefix + name, **options)
        except CollectionInvalid:  # a step that is run again, or two clients on one new database
            if self.prefix + name not in self.db.list_collection_names():
                raise

    def upgrade(self) -> None:
        raise NotImplementedError

    def downgrade(self) -> None:
        raise NotImplementedError
