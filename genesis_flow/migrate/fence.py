"""A database handle for steps that asks before every write whether the run may still write."""

from collections.abc import Callable
from typing import Any, cast

from pymongo.collection import Collection
from pymongo.database import Database

Check = Callable[[], None]

# Names that do not ask. All others of the driver do, also those that a later version adds; ``aggregate``
# may end in ``$out`` or ``$merge``, and ``command`` may be any.
_EITHER = {"codec_options", "name", "read_concern", "read_preference", "with_options", "write_concern"}
READS: dict[type, set[str]] = {
    Collection: _EITHER
    | {"count_documents", "database", "distinct", "estimated_document_count", "find", "find_one", "full_name"}
    | {"find_raw_batches", "index_information", "list_indexes", "list_search_indexes", "options"},
    Database: _EITHER
    | {"client", "dereference", "get_collection", "list_collection_names", "list_collections"}
    | {"validate_collection"},
}


def _check(kind: type, fenced: Any, name: str) -> None:
    # Other names are those of collections.
    if not name.startswith("_") and name not in READS[kind] and hasattr(kind, name):
        object.__getattribute__(fenced, "__dict__")["_fence_check"]()


class FencedCollection(Collection[dict[str, Any]]):
    def __init__(self, database: "FencedDatabase", name: str, **options: Any) -> None:
        super().__init__(database, name, **options)
        self.__dict__["_fence_check"] = database.__dict__["_fence_check"]

    def __getattribute__(self, name: str) -> Any:
        _check(Collection, self, name)
        return super().__getattribute__(name)

    def __getitem__(self, name: str) -> "FencedCollection":
        return FencedCollection(cast(FencedDatabase, self.database), f"{self.name}.{name}")

    def with_options(self, *args: Any, **options: Any) -> Any:
        return cast(FencedDatabase, self.database).get_collection(self.name, *args, **options)


class FencedDatabase(Database[dict[str, Any]]):
    """``Database`` that calls ``check`` before whatever may write, also through its collections."""

    def __init__(self, plain: Database[dict[str, Any]], check: Check) -> None:
        options = plain.codec_options, plain.read_preference, plain.write_concern, plain.read_concern
        super().__init__(plain.client, plain.name, *options)
        self.__dict__["_fence_check"] = check

    def __getattribute__(self, name: str) -> Any:
        _check(Database, self, name)
        return super().__getattribute__(name)

    def __getitem__(self, name: str) -> FencedCollection:
        return FencedCollection(self, name)

    def get_collection(self, name: str, *args: Any, **options: Any) -> Any:
        names = ("codec_options", "read_preference", "write_concern", "read_concern")
        return FencedCollection(self, name, **dict(zip(names, args, strict=False)), **options)

    def with_options(self, *args: Any, **options: Any) -> Any:
        return FencedDatabase(super().with_options(*args, **options), self.__dict__["_fence_check"])
