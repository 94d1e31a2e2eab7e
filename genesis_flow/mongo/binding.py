"""The declared documents in one database, under one prefix.

Areas use the driver's collections. Beanie's classes, for queries by hand, are made when they are asked for:
to make all of them costs each new process a tenth of a second.

Beanie ties a Document class to one database in a process. Two stores with other databases or prefixes would
therefore see each other's collections if they shared classes, so each database gets subclasses of its own.
The declared classes are plain pydantic models: were they Documents, initialising a subclass would also
initialise (and create) the base's unprefixed collection.
"""

from typing import TYPE_CHECKING, Any, cast

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from genesis_flow.documents.declared import Declared, declared_collections
from genesis_flow.documents.portable import PortableCollection
from genesis_flow.mongo.following import FollowingCollection, Members
from genesis_flow.mongo.scoped import FIELD, ScopedCollection
from genesis_flow.mongo.scoping import current_workspace, workspaces_enabled

if TYPE_CHECKING:
    from beanie import Document

Collection = AsyncCollection[dict[str, Any]]

# A reply holds 101 documents unless more are asked for, and whatever is left costs a round trip more.
BATCH = 10_000


class Documents:
    """The collections of one database."""

    def __init__(
        self,
        database: "AsyncDatabase[dict[str, Any]]",
        prefix: str,
        *,
        portable: bool = False,
        members: Members | None = None,
    ) -> None:
        """``members`` are those that searches and histories ask, if not the primary alone."""
        self._members = members
        self._database = database
        self._prefix = prefix
        self.portable = portable
        self._collections: dict[str, Collection] = {}
        self._models: dict[type[Declared], type[Document]] = {}
        self._owned: frozenset[str] = frozenset()

    def collection(self, declared: type[Declared]) -> Collection:
        """The collection for the running call: where workspaces are enabled, that of its workspace.

        What has no field for it belongs to something that has, and is found by its id.
        """
        return self._held(declared, self.everywhere(declared))

    def reading(self, declared: type[Declared]) -> Collection:
        """For searches and histories of the running call: read from the members that the URI names."""
        collection = self.everywhere(declared)
        if self._members is not None:
            collection = cast(Collection, FollowingCollection(collection, self._members))
        return self._held(declared, collection)

    def _held(self, declared: type[Declared], collection: Collection) -> Collection:
        if not workspaces_enabled() or FIELD not in declared.model_fields:
            return collection
        return cast(Collection, ScopedCollection(collection, current_workspace(), self._owned_names()))

    def _owned_names(self) -> frozenset[str]:
        """The collections whose documents have a workspace."""
        self._owned = self._owned or frozenset(
            self._prefix + each.Settings.name for each in declared_collections() if FIELD in each.model_fields
        )
        return self._owned

    def everywhere(self, declared: type[Declared]) -> Collection:
        """The driver's collection, with the documents of all workspaces."""
        return self.called(declared.Settings.name)

    def called(self, name: str) -> Collection:
        """A collection by its name, without its declaration."""
        bound = self._collections.get(name)
        if bound is None:
            bound = self._database[self._prefix + name]
            if self.portable:
                bound = cast(Collection, PortableCollection(bound, name))
            self._collections[name] = bound
        return bound

    async def model(self, declared: type[Declared]) -> "type[Document]":
        """Beanie's class for the collection; touches no index, migrations own those."""
        from beanie import init_beanie

        if declared not in self._models:
            model = _bound(declared, self._prefix)
            await init_beanie(database=self._database, document_models=[model], skip_indexes=True)
            self._models.setdefault(declared, model)
        return self._models[declared]


def _bound(base: type[Declared], prefix: str) -> "type[Document]":
    from beanie import Document

    settings = base.Settings

    class Bound(base, Document):  # type: ignore[valid-type,misc]
        class Settings(settings):  # type: ignore[valid-type,misc]
            name = prefix + settings.name

    Bound.__name__ = Bound.__qualname__ = base.__name__.removesuffix("Fields")
    return Bound
