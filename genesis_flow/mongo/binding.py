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

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.portable import PortableCollection

if TYPE_CHECKING:
    from beanie import Document

Collection = AsyncCollection[dict[str, Any]]

# A reply holds 101 documents unless more are asked for, and whatever is left costs a round trip more.
BATCH = 10_000


class Documents:
    """The collections of one database."""

    def __init__(
        self, database: "AsyncDatabase[dict[str, Any]]", prefix: str, *, portable: bool = False
    ) -> None:
        self._database = database
        self._prefix = prefix
        self.portable = portable
        self._collections: dict[type[Declared], Collection] = {}
        self._models: dict[type[Declared], type[Document]] = {}

    def collection(self, declared: type[Declared]) -> Collection:
        """The driver's collection."""
        found = self._collections.get(declared)
        if found is None:
            name = declared.Settings.name
            found = self._database[self._prefix + name]
            if self.portable:
                found = cast(Collection, PortableCollection(found, name))
            self._collections[declared] = found
        return found

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
