"""The base of what a collection is declared with: its fields, its name, its indexes."""

from collections.abc import Callable, Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from genesis_flow.documents.indexes import Index
from genesis_flow.documents.sharding import ShardKey


class CollectionSettings:
    """A collection's name, indexes and references. The names are those that Beanie gives to such settings."""

    name: ClassVar[str]
    indexes: ClassVar[list[Index]] = []
    keep_nulls: ClassVar[bool] = True
    refers: ClassVar[dict[str, str]] = {}
    """The collections that fields name documents of."""
    goes_with: ClassVar[dict[str, str]] = {}
    """The fields that name what takes these documents along when it is deleted for good."""
    forgets: ClassVar[dict[str, str]] = {}
    """The fields that name what may go without these documents, and are emptied then."""
    derived: ClassVar[tuple[str, ...]] = ()
    """The fields that readers keep for each other: a document that differs in no other is unchanged."""
    shard: ClassVar[ShardKey | None] = None
    """How it is spread over a cluster; without one it stays whole on one shard."""


class Declared(BaseModel):
    """A document's fields. ``mongo/binding.py`` makes a Beanie document of it for one database."""

    # Only those who validate documents need what pydantic makes of the fields, and few programs do.
    model_config = ConfigDict(defer_build=True)

    class Settings(CollectionSettings):
        name = ""


# What imports the classes that no module has needed yet, so that a list of all of them has all.
_loaders: list[Callable[[], object]] = []


def declared_by(load: Callable[[], object]) -> None:
    """Have ``load`` import whatever declares collections before somebody asks for all of them."""
    _loaders.append(load)


def declared_collections() -> Iterator[type[Declared]]:
    """The classes that declare a collection, bases that several share left out."""
    for load in _loaders:
        load()
    waiting: list[type[Declared]] = [Declared]
    while waiting:
        for subclass in waiting.pop().__subclasses__():
            if "Settings" in vars(subclass):
                yield subclass
            else:
                waiting.append(subclass)
