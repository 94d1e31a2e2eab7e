"""Documents that go when another one is deleted for good: each collection declares which it goes with."""

from collections.abc import Sequence
from typing import Any

from genesis_flow.documents.declared import declared_collections
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped


async def delete_followers(database: Database, collection: str, ids: Sequence[Any]) -> None:
    """Delete what goes with these documents of ``collection``; empty the fields that only name them."""
    for declared in declared_collections():
        settings = declared.Settings
        for field in _naming(settings.goes_with, collection):
            await database.collection(declared).delete_many(scoped({field: {"$in": list(ids)}}))
        for field in _naming(settings.forgets, collection):
            await database.collection(declared).update_many(
                scoped({field: {"$in": list(ids)}}), {"$unset": {field: ""}}
            )


def _naming(fields: dict[str, str], collection: str) -> list[str]:
    return [field for field, named in fields.items() if named == collection]
