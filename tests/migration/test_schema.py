"""Fresh = migrated = what the documents declare; and what `check` says when they are not."""

import re
import time
from typing import Any

import pymongo
import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.files import folder, misnamed
from genesis_flow.migrate.schema_check import Finding
from genesis_flow.stores.areas import DECLARED
from tests.migration.dumping import dump, schema_of
from tests.migration.helpers import PROCESSES, database, make_config
from tests.mongod import Mongod


async def test_fresh_equals_migrated_equals_declared(
    mongod: Mongod, store_uri: str, database_name: str
) -> None:
    async with MongoDBStore(store_uri) as store:
        await store.get_experiment("0")
    migrated_uri = mongod.database_uri(f"{database_name}_migrated")
    migrated_config = make_config(migrated_uri)
    command.up(migrated_config)
    with database(store_uri) as fresh, database(migrated_uri) as migrated:
        assert schema_of(dump(fresh)) == schema_of(dump(migrated))
        migrated.client.drop_database(migrated)
    assert command.check(make_config(store_uri), DECLARED) == []


def test_declared_indexes_are_the_server_s(real: MigrateConfig, store_uri: str) -> None:
    """Compared without schema_check, lest that be what is wrong."""
    command.up(real)
    with database(store_uri) as db:
        for document in DECLARED:
            settings: Any = document.Settings  # type: ignore[attr-defined]
            declared = {
                index.document["name"]: list(index.document["key"].items()) for index in settings.indexes
            }
            unique = {index.document["name"] for index in settings.indexes if index.document.get("unique")}
            present = db[settings.name].index_information()
            present.pop("_id_")
            assert {name: list(index["key"]) for name, index in present.items()} == declared
            assert {name for name, index in present.items() if index.get("unique")} == unique


def test_names_of_the_steps_follow_the_convention() -> None:
    assert misnamed(folder()) == []
    versions = [file.version for file in command.steps(make_config("mongodb://127.0.0.1:9/none"))]
    assert versions == sorted(set(versions))
    for file in folder().glob("[0-9]*.py"):
        assert re.fullmatch(r"\d+[_a-z]*\.py", file.name), "mongodb-migrations would ignore the file"


def test_every_step_says_what_it_changes_and_what_down_loses() -> None:
    config = make_config("mongodb://127.0.0.1:9/none")
    steps = list(command.steps(config))
    assert steps
    for file in steps:
        shown = command.show(config, file.version)
        assert shown["description"]
        assert "does not say" not in shown["loses"]


def test_no_step_imports_the_models() -> None:
    files = list(folder().glob("[0-9]*.py"))
    assert files
    for file in files:
        assert "genesis_flow.documents" not in file.read_text(), "a step freezes its own definitions"


def test_steps_are_idempotent(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        first = dump(db)
        for file in command.steps(real):
            file.load()(db=db, prefix="").upgrade()
        assert dump(db) == first
        for file in reversed(command.steps(real)):
            migration = file.load()(db=db, prefix="")
            migration.downgrade()
            migration.downgrade()
        assert set(dump(db)) == {"schema_migrations"}


def kinds(findings: list[Finding]) -> dict[str, str]:
    return {found.what: found.kind for found in findings}


def test_check_names_each_difference(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["runs"].drop_index("by_dataset")
        db["runs"].create_index([("user_id", 1)], name="by_user")
        db["experiments"].drop_index("name_unique")
        db["experiments"].create_index([("workspace", 1), ("name", 1)], name="name_unique")
        db.command({"collMod": "latest_metrics", "index": {"name": "by_value", "hidden": True}})
        db["datasets"].drop()
        db["tags"].drop()
        db.create_collection("somebody_else_s")
        assert kinds(command.check(real, DECLARED)) == {
            "runs.by_dataset": "missing",
            "runs.by_user": "extra",
            "experiments.name_unique": "different",
            "latest_metrics.by_value": "unusable",
            "datasets": "missing",
            "tags": "missing",
            "somebody_else_s": "note",
        }


def build_index(uri: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client.get_default_database()["runs"].create_index([("inputs.name", 1)], name="by_dataset")


@pytest.mark.timeout(400)
def test_an_index_that_is_being_built_is_unusable(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["runs"].drop_index("by_dataset")
        db["runs"].insert_one({"_id": "r"})  # an index on an empty collection is built at once
        hang = "hangAfterStartingIndexBuild"
        db.client.admin.command({"configureFailPoint": hang, "mode": "alwaysOn"})
        builder = PROCESSES.Process(target=build_index, args=(store_uri,))
        try:
            builder.start()
            deadline = time.monotonic() + 120
            found: dict[str, str] = {}
            while found.get("runs.by_dataset") != "unusable" and time.monotonic() < deadline:
                found = kinds(command.check(real, DECLARED))
        finally:
            db.client.admin.command({"configureFailPoint": hang, "mode": "off"})
            builder.join(120)
        assert found == {"runs.by_dataset": "unusable"}
    assert command.check(real, DECLARED) == []
