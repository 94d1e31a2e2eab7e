"""The base class of a migration step.

The file convention is that of mongodb-migrations: ``YYYYMMDDHHMMSS_what.py`` with a class ``Migration``
whose ``upgrade`` and ``downgrade`` work on ``self.db``, a synchronous PyMongo database. The class accepts
that tool's constructor arguments too, so its runner can run our files; nothing of it is imported, which
keeps its licence away from whoever does not choose it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

import pymongo
from pymongo import IndexModel, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from genesis_flow.core.uri import normalize_prefix
from genesis_flow.documents.portable import portable_indexes
from genesis_flow.migrate.batches import BATCH_SIZE, Journal, NoJournal, Report, in_batches, silent
from genesis_flow.migrate.gathered import Gathered, GatheredCollection, create_collection
from genesis_flow.migrate.imports import Imports

PREFIX_VARIABLE = "MONGODB_COLLECTION_PREFIX"
Place = TypeVar("Place", Database[dict[str, Any]], Collection[dict[str, Any]])
_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND = 26, 27


@dataclass(frozen=True, slots=True)
class StepContext:
    """What the runner gives a step beyond the database."""

    journal: Journal = field(default_factory=NoJournal)
    report: Report = silent
    batch_size: int = BATCH_SIZE
    imports: Imports = field(default_factory=Imports)
    portable: bool = False
    """Whether the server has less than MongoDB: indexes are replaced, and there are no views."""
    gathered: Gathered | None = None
    """Where all steps are applied to an empty database: what they create waits here, to be sent together."""


def _database_of_tool(
    url: str | None, host: str, port: str, database: str | None, user: str | None, password: str | None
) -> Database[dict[str, Any]]:
    options: dict[str, Any] = {"username": user, "password": password} if user else {}
    client: pymongo.MongoClient[dict[str, Any]] = (
        pymongo.MongoClient(url, **options) if url else pymongo.MongoClient(host, int(port), **options)
    )
    return client.get_database(database) if database else client.get_default_database()


class _WithPortableIndexes:
    """A collection that is given the indexes which a lesser server has in place of those asked for."""

    def __init__(self, collection: Collection[dict[str, Any]], name: str) -> None:
        self._collection = collection
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def create_indexes(self, indexes: Sequence[IndexModel], **options: Any) -> list[str]:
        return self._collection.create_indexes(portable_indexes(self._name, indexes), **options)


class BaseMigration:
    """One step of the schema. Every step is idempotent: applied twice, it leaves what applied once leaves."""

    loses: ClassVar[str] = "what the step added (it does not say what)"
    """The losses of ``downgrade``, for people; empty when up, down and up again equals up."""

    compatible: ClassVar[bool] = False
    """Whether clients of the schema before this step may connect and write after it."""

    rights: ClassVar[tuple[str, ...]] = ()
    """Actions of MongoDB that the step needs beyond those of the role readWrite, such as ``collMod``."""

    replaces: ClassVar[tuple[str, ...]] = ()
    """Versions of the steps that this one stands in place of: where all of them were applied, it was."""

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
        context: StepContext | None = None,
    ) -> None:
        self._db = db if db is not None else _database_of_tool(url, host, port, database, user, password)
        self.prefix = (
            prefix
            if prefix is not None
            else normalize_prefix(os.environ.get(PREFIX_VARIABLE, ""), PREFIX_VARIABLE)
        )
        self.context = context or StepContext()

    @property
    def db(self) -> Database[dict[str, Any]]:
        """The database, with all that was created in it."""
        if self.context.gathered:
            self.context.gathered.send()
        return self._db

    @property
    def imports(self) -> Imports:
        """The sources of the ``[imports]`` section, for a step that brings data in from elsewhere."""
        return self.context.imports

    def collection(self, name: str) -> Collection[dict[str, Any]]:
        collection = self._db[self.prefix + name]
        if self.context.gathered:
            return cast("Collection[dict[str, Any]]", GatheredCollection(collection, self.context.gathered))
        if not self.context.portable:
            return collection
        return cast("Collection[dict[str, Any]]", _WithPortableIndexes(collection, name))

    def create_collection(self, name: str, **options: Any) -> None:
        """Create a collection or view, unless it is there."""
        if self.context.portable and "viewOn" in options:
            return
        if self.context.gathered:
            self.context.gathered.create(self.prefix + name, **options)
        else:
            create_collection(self._by_one(self._db), self.prefix + name, **options)

    def create_collections(self, indexes: Mapping[str, Sequence[IndexModel]]) -> None:
        """Create collections with their indexes, unless they are there; one command for each."""
        for name, wanted in indexes.items():
            # Creating an index creates its collection; that a lesser server does so is not certain.
            if not wanted or self.context.portable:
                self.create_collection(name)
            if wanted:
                self._by_one(self.collection(name)).create_indexes(wanted)

    def _by_one(self, place: Place) -> Place:
        """The database or collection, which does not wait for a majority at what is created.

        The entry of the step, which follows, does, and a majority that has it has all before it. A step that
        has no entry is applied again.
        """
        if self.context.portable or self.context.gathered:  # which does not wait anyway
            return place
        return place.with_options(write_concern=WriteConcern(1))

    def drop_index(self, name: str, index: str) -> None:
        """Drop an index by its name, unless it or its collection is gone."""
        try:
            self.collection(name).drop_index(index)
        except OperationFailure as exc:
            if exc.code not in (_NAMESPACE_NOT_FOUND, _INDEX_NOT_FOUND):
                raise

    def batches(
        self,
        name: str,
        query: Mapping[str, Any] | None = None,
        projection: Any = None,
        label: str | None = None,
    ) -> Iterator[list[dict[str, Any]]]:
        """Walk a collection by ``_id``, a list of documents at a time.

        Under ``genesis-migrate`` an interrupted step resumes after its last whole batch, and people see the
        progress. Two walks over one collection in one step need different labels.
        """
        return in_batches(
            self.collection(name),
            dict(query or {}),
            projection,
            self.context.batch_size,
            self.context.journal,
            self.context.report,
            label or name,
        )

    def upgrade(self) -> None:
        raise NotImplementedError

    def downgrade(self) -> None:
        raise NotImplementedError
