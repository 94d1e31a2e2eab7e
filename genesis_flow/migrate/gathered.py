"""What the steps create in an empty database, sent together: one command for each collection."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from pymongo import IndexModel, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

NAMESPACE_EXISTS = 48
# MongoDB makes one table after the other, of which each index is one; what is beside that, it does at once.
_AT_ONCE = 2


def create_collection(db: Database[dict[str, Any]], name: str, **options: Any) -> None:
    """Create a collection or view, unless it is there."""
    try:
        db.create_collection(name, check_exists=False, **options)
    except OperationFailure as exc:
        # A step that is run again finds it; of two clients on one new database, one loses the race.
        if exc.code != NAMESPACE_EXISTS:
            raise


class Gathered:
    """Collections, indexes and views that are wanted, and created when somebody needs them.

    None of it waits for a majority: the entries of the steps, which are written behind it, do.
    """

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._db = db.with_options(write_concern=WriteConcern(1))
        self._indexes: dict[str, list[IndexModel]] = {}
        self._special: dict[str, dict[str, Any]] = {}

    def create(self, name: str, **options: Any) -> None:
        if options:
            self._special[name] = options
        else:
            self._indexes.setdefault(name, [])

    def index(self, name: str, indexes: Sequence[IndexModel]) -> None:
        self._indexes.setdefault(name, []).extend(indexes)

    def send(self) -> None:
        """Create what is wanted, views and such behind what they may stand on."""
        indexes, self._indexes = self._indexes, {}
        special, self._special = self._special, {}
        if indexes:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                # Each has the deadline of this one, which is in its context.
                work = [partial(copy_context().run, self._make, *each) for each in indexes.items()]
                list(threads.map(lambda make: make(), work))
        for name, options in special.items():
            create_collection(self._db, name, **options)

    def _make(self, name: str, indexes: list[IndexModel]) -> None:
        if indexes:
            self._db[name].create_indexes(indexes)  # which creates the collection, too
        else:
            create_collection(self._db, name)


class GatheredCollection:
    """A collection whose indexes are gathered; for anything else, all that is wanted is created before."""

    def __init__(self, collection: Collection[dict[str, Any]], gathered: Gathered) -> None:
        self._collection = collection
        self._gathered = gathered

    def create_indexes(self, indexes: Sequence[IndexModel]) -> list[str]:
        self._gathered.index(self._collection.name, indexes)
        return [index.document["name"] for index in indexes]

    def __getattr__(self, name: str) -> Any:
        self._gathered.send()
        return getattr(self._collection, name)
