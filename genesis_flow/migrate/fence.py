"""A database handle for steps that asks before every write whether the run may still write."""

from collections.abc import Callable
from typing import Any, cast

from pymongo.collection import Collection
from pymongo.database import Database

Check = Callable[[], None]

_COLLECTION_WRITES = frozenset(
    (
        "aggregate",  # may end in $out or $merge
        "aggregate_raw_batches",
        "bulk_write",
        "create_index",
        "create_indexes",
        "create_search_index",
        "create_search_indexes",
        "delete_many",
        "delete_one",
        "drop",
        "drop_index",
        "drop_indexes",
        "drop_search_index",
        "find_one_and_delete",
        "find_one_and_replace",
        "find_one_and_update",
        "insert_many",
        "insert_one",
        "rename",
        "replace_one",
        "update_many",
        "update_one",
        "update_search_index",
    )
)
_DATABASE_WRITES = frozenset(
    ("aggregate", "command", "create_collection", "cursor_command", "drop_collection")
)


class FencedCollection(Collection[dict[str, Any]]):
    def __init__(self, database: "FencedDatabase", name: str, **options: Any) -> None:
        super().__init__(database, name, **options)
        self.__dict__["_fence_check"] = database.__dict__["_fence_check"]

    def __getattribute__(self, name: str) -> Any:
        if name in _COLLECTION_WRITES:
            object.__getattribute__(self, "__dict__")["_fence_check"]()
        return super().__getattribute__(name)

    def __getitem__(self, name: str) -> "FencedCollection":
        return FencedCollection(cast(FencedDatabase, self.database), f"{self.name}.{name}")

    def with_options(self, *args: Any, **options: Any) -> Any:
        return cast(FencedDatabase, self.database).get_collection(self.name, *args, **options)


class FencedDatabase(Database[dict[str, Any]]):
    """``Database`` whose writes call ``check`` first, also through its collections."""

    def __init__(self, plain: Database[dict[str, Any]], check: Check) -> None:
        super().__init__(plain.client, plain.name, plain.codec_options, plain.read_preference)
        self.__dict__["_fence_check"] = check

    def __getattribute__(self, name: str) -> Any:
        if name in _DATABASE_WRITES:
            object.__getattribute__(self, "__dict__")["_fence_check"]()
        return super().__getattribute__(name)

    def __getitem__(self, name: str) -> FencedCollection:
        return FencedCollection(self, name)

    def get_collection(self, name: str, *args: Any, **options: Any) -> Any:
        names = ("codec_options", "read_preference", "write_concern", "read_concern")
        return FencedCollection(self, name, **dict(zip(names, args, strict=False)), **options)

    def with_options(self, *args: Any, **options: Any) -> Any:
        return FencedDatabase(super().with_options(*args, **options), self.__dict__["_fence_check"])
