"""What connecting does: an empty database is brought to head, and nothing else ever happens implicitly."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.files import migration_files
from genesis_flow.stores.areas import DECLARED
from tests.commands import CommandRecorder
from tests.migration.dumping import dump
from tests.migration.helpers import PROCESSES, add_step, database, make_config, real_steps

HEAD = migration_files()[-1].version


async def use(uri: str) -> str:
    """By a client of its own: with one that a store of another test still has the database stays open."""
    async with MongoDBStore(f"{uri}&appName=connects") as store:
        return (await store.get_experiment("0")).name


@pytest.mark.parametrize("way", ["connect", "up"])
async def test_collections_wait_for_no_majority_and_the_entries_of_steps_do(
    real: MigrateConfig, store_uri: str, commands: CommandRecorder, way: str
) -> None:
    with commands.recording() as sent:
        if way == "up":
            command.up(real)
        else:
            await use(store_uri)
    creating: dict[str, dict[str, Any]] = {}
    for name, each in sent:
        if name in ("create", "createIndexes"):  # an index that comes later is waited for
            creating.setdefault(each[name], each)
    entries = [each for name, each in sent if each.get(name) == "schema_migrations" and name != "find"]
    assert len(creating) > 40
    assert [name for name, each in creating.items() if each["writeConcern"]["w"] != 1] == []
    assert {each.get("writeConcern", {"w": "default"})["w"] for each in entries} == {"majority"}


async def test_each_collection_of_an_empty_database_is_one_command(
    store_uri: str, commands: CommandRecorder
) -> None:
    with commands.recording() as sent:
        await use(store_uri)
    wanted = Counter(each[name] for name, each in sent if name in ("create", "createIndexes"))
    assert wanted == dict.fromkeys((*(declared.Settings.name for declared in DECLARED), "params", "tags"), 1)
    assert len([name for name, each in sent if each.get("update") == "schema_migrations"]) == 1


async def refusal(uri: str) -> str:
    with pytest.raises(MlflowException) as caught:
        await use(uri)
    assert caught.value.error_code == "INVALID_STATE"
    return str(caught.value)


async def test_an_older_schema_is_refused_with_the_command(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["experiments"].insert_one({"_id": 0, "name": "Default", "workspace": "default"})
        db["schema_migrations"].delete_one({"_id": HEAD})
        before = dump(db)
        text = await refusal(store_uri)
        assert "`genesis-migrate up`" in text
        assert f"older than {HEAD}" in text
        assert dump(db) == before


async def test_a_step_that_is_not_known_is_named(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["schema_migrations"].insert_one({"_id": "20200101000000", "state": "applied"})
    text = await refusal(store_uri)
    assert "20200101000000" in text
    assert "newer" not in text


async def test_a_step_in_progress_is_named(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["schema_migrations"].update_one({"_id": HEAD}, {"$set": {"state": "applying"}})
    text = await refusal(store_uri)
    assert HEAD in text
    assert "genesis-migrate status" in text


async def test_a_newer_schema_is_refused_unless_its_steps_are_compatible(
    store_uri: str, tmp_path: Path
) -> None:
    location = real_steps(tmp_path / "steps")
    expand = "compatible = True\n\ndef upgrade(self):\n    self.create_collection('wider')"
    add_step(location, "20290101000000", "expand", expand)
    config = make_config(store_uri, location)
    command.up(config)
    assert await use(store_uri) == "Default"
    add_step(location, "20290101000001", "contract", "def upgrade(self):\n    pass")
    command.up(config)
    text = await refusal(store_uri)
    assert f"schema version 20290101000001, newer than {HEAD}" in text


async def test_a_client_that_was_refused_leaves_its_connection(real: MigrateConfig, store_uri: str) -> None:
    """Else those after it would find the database opened, and never look at its schema again."""
    command.up(real)
    with database(store_uri) as db:
        db["schema_migrations"].insert_one({"_id": "20200101000000", "state": "applied"})
        with pytest.raises(MlflowException) as kept:
            await use(store_uri)
        assert kept.value.error_code == "INVALID_STATE"
        db["schema_migrations"].delete_one({"_id": "20200101000000"})
        assert await use(store_uri) == "Default"
        db["schema_migrations"].insert_one({"_id": "20200101000000", "state": "applied"})
        await refusal(store_uri)


async def test_the_error_names_the_database_without_its_password(real: MigrateConfig, store_uri: str) -> None:
    with database(store_uri) as db:
        db["experiments"].insert_one({"_id": 0, "name": "mine"})
    text = await refusal(store_uri)
    assert store_uri in text
    assert "did not make" in text


def connect_child(uri: str, barrier: Any) -> None:
    barrier.wait(timeout=60)
    assert asyncio.run(use(uri)) == "Default"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_many_clients_on_an_empty_database(store_uri: str) -> None:
    barrier = PROCESSES.Barrier(8)
    children = [PROCESSES.Process(target=connect_child, args=(store_uri, barrier)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 8
    assert command.plan(make_config(store_uri)) == []


async def test_a_client_that_died_while_initialising_is_helped_on(
    real: MigrateConfig, store_uri: str
) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["schema_migrations"].delete_many({})
        db["runs"].drop()
        db["schema_lock"].insert_one({"_id": "initialise"})
    assert await use(store_uri) == "Default"
    assert command.plan(real) == []
    assert command.check(real, DECLARED) == []


async def test_opening_an_empty_database_asks_for_each_collection_once(
    store_uri: str, commands: CommandRecorder
) -> None:
    with commands.recording() as sent:
        assert await use(store_uri) == "Default"
    names = Counter(name for name, _ in sent)
    made = [
        command["createIndexes" if "createIndexes" in command else "create"]
        for _, command in sent
        if "createIndexes" in command or "create" in command
    ]
    with database(store_uri) as db:
        bookkeeping = {"schema_migrations", "schema_lock", "system.views"}
        assert sorted(set(made)) == sorted(set(db.list_collection_names()) - bookkeeping)
    # A step that is not the first may make what it needs in two commands.
    assert len(made) <= len(set(made)) + len(migration_files()) - 1
    assert names["listCollections"] == 1
    assert names["find"] <= 3, "of an empty ledger, and of the default experiment"
    assert names["update"] == 1, "the entries of all steps at once"


async def test_an_empty_database_that_an_operator_migrated_part_way_is_left_to_him(
    real: MigrateConfig, store_uri: str
) -> None:
    command.up(real)
    with database(store_uri) as db:
        db["schema_migrations"].delete_one({"_id": HEAD})
    assert "genesis-migrate up" in await refusal(store_uri)
