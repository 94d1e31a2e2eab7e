"""``--verify`` compares everything: a single changed digit, on either side, is found and named."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest

from tests.importing.trees import VERSIONS, unpack
from tests.importing.verifying import bring, changed, check, leaves, with_change
from tests.mongod import Mongod

# Bookkeeping that says nothing about the data.
NOT_DATA = {
    "registered_models.revision",
    "traces.generation",
    "traces.tokens_of",
    "traces.cost_of",
}
NOT_DATA_COLLECTIONS = {"counters", "schema_migrations", "params", "tags"}


@pytest.fixture(scope="module")
def imported(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The newest tree, imported: the target's and the source's URI."""
    source = str(unpack(VERSIONS[-1], tmp_path_factory.mktemp("verify")))
    uri = mongod.database_uri("test_verify_tree")
    bring(uri, source)
    yield uri, source
    with pymongo.MongoClient(uri) as client:
        client.drop_database("test_verify_tree")


def _paths(uri: str) -> Iterator[tuple[str, Any, tuple[Any, ...], Any]]:
    """One document for each kind of field: collection, id, the way to the value, the value."""
    seen = set()
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for name in sorted(database.list_collection_names()):
            if name in NOT_DATA_COLLECTIONS or name.startswith(("import_", "system.")):
                continue
            for document in database[name].find():
                for path, value in leaves(document):
                    # Keys of maps and places in lists are many of a kind.
                    kind = f"{name}.{path[0]}" + (f".{path[-1]}" if name != "runs" and len(path) == 2 else "")
                    kind = (
                        kind
                        if path[0] not in ("params", "tags", "texts", "metadata")
                        else f"{name}.{path[0]}"
                    )
                    if path != ("_id",) and kind not in seen | NOT_DATA:
                        seen.add(kind)
                        yield name, document["_id"], path, value


def _undetected(uri: str, source: str) -> list[str]:
    missed = []
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for name, key, path, value in list(_paths(uri)):
            before = database[name].find_one({"_id": key})
            try:
                database[name].replace_one({"_id": key}, with_change(before, path, changed(value)))
                if check(uri, source).equal:
                    missed.append(f"{name} {key} {path} {value!r}")
            finally:
                database[name].replace_one({"_id": key}, before)
    return missed


def test_a_change_of_any_field_in_the_target_is_found(imported: tuple[str, str]) -> None:
    uri, source = imported
    assert check(uri, source).equal
    assert _undetected(uri, source) == []
    assert check(uri, source).equal
