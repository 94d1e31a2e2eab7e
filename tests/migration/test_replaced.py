"""One step in place of several: a database that has those goes on, whoever opens it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from pymongo.database import Database

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.files import migration_files, replacements
from tests.commands import CommandRecorder
from tests.migration.dumping import dump, schema_of
from tests.migration.helpers import SAMPLES, add_step, database, make_config, replacing_steps

FIRST, REPLACED = next(iter(replacements(migration_files()).items()))


@pytest.fixture
def replacing(store_uri: str, tmp_path: Path) -> MigrateConfig:
    return make_config(store_uri, replacing_steps(tmp_path / "replacing"))


def samples(config: MigrateConfig) -> MigrateConfig:
    return dataclasses.replace(config, script_location=SAMPLES)


def as_before(db: Database[dict[str, Any]], count: int = len(REPLACED)) -> None:
    """Make the ledger what it was before the first step stood in place of others; the schema is theirs."""
    ledger = db["schema_migrations"]
    own = ledger.find_one_and_delete({"_id": FIRST})
    assert own is not None
    ledger.insert_many([{**own, "_id": version, "name": "old"} for version in REPLACED[:count]])


async def test_a_client_opens_a_database_that_has_the_replaced_steps_and_writes_no_ledger(
    real: MigrateConfig, store_uri: str, commands: CommandRecorder
) -> None:
    command.up(real)
    with database(store_uri) as db:
        as_before(db)
        before = dump(db)["schema_migrations"]
        with commands.recording() as sent:
            async with MongoDBStore(store_uri) as store:
                assert (await store.get_experiment("0")).name == "Default"
        assert not {"create", "createIndexes", "listCollections"} & {name for name, _ in sent}
        assert dump(db)["schema_migrations"] == before
    assert command.plan(real) == []
    assert command.at_head(real)
    assert command.validate(real) == []
    assert "not taken over yet" in command.status(real).steps[0].detail


async def test_a_database_that_has_some_of_them_gets_the_rest(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        fresh = schema_of(dump(db))
        for file in command.steps(real)[1:]:
            db["schema_migrations"].delete_one({"_id": file.version})
        db["spans"].drop()
        db["traces"].drop_index("touched")
        as_before(db, 2)
        with pytest.raises(MlflowException, match=r"run `genesis-migrate up`"):
            async with MongoDBStore(store_uri) as store:
                await store.get_experiment("0")
        state = command.status(real).steps[0]
        assert (state.state, state.detail) == ("pending", "2 of the 8 steps that it replaces were run")
        assert command.status(real).problems == []
        assert command.up(real).steps[0].version == FIRST
        assert schema_of(dump(db)) == fresh
    async with MongoDBStore(store_uri) as store:
        assert (await store.get_experiment("0")).name == "Default"


def test_up_takes_them_over_once_and_runs_what_is_behind(replacing: MigrateConfig, store_uri: str) -> None:
    command.up(samples(replacing), "fill")
    assert command.plan(replacing) == ["20260101000400_change"]
    outcome = command.up(replacing)
    assert outcome.adopted == ["20260101000250"]
    assert [done.name for done in outcome.steps] == ["change"]
    assert command.up(replacing) == command.Outcome()
    assert [event["action"] for event in command.history(replacing)][-2:] == ["adopt", "up"]
    with database(store_uri) as db:
        assert len(db["schema_migrations"].distinct("_id")) == 3


@pytest.mark.parametrize("before", ["words", "index", "head"])
def test_down_undoes_what_the_replaced_steps_did(
    replacing: MigrateConfig, store_uri: str, before: str
) -> None:
    command.up(samples(replacing), before)
    command.down(replacing, "base", accept_data_loss=True)
    with database(store_uri) as db:
        assert set(dump(db)) == {"schema_migrations"}
        assert dump(db)["schema_migrations"]["documents"] == []
    assert len(command.plan(replacing)) == 3


@pytest.mark.parametrize("before", ["words", "head"])
def test_a_stamp_is_the_last_word(replacing: MigrateConfig, store_uri: str, before: str) -> None:
    command.up(samples(replacing), before)
    command.stamp(replacing, "all_in_one")
    assert [step.state for step in command.status(replacing).steps] == ["applied", "pending", "pending"]
    with database(store_uri) as db:
        assert db["schema_migrations"].distinct("_id") == ["20260101000250"]
    command.stamp(replacing, "base")
    assert [step.state for step in command.status(replacing).steps] == ["pending"] * 3


def test_what_replaces_is_not_out_of_order_where_it_was_applied(replacing: MigrateConfig) -> None:
    """It may be older than steps that a database has got since."""
    command.up(samples(replacing))
    later = add_step(replacing.script_location, "20270101000000", "later", "def upgrade(self):\n    pass")
    assert command.plan(replacing) == [later.stem]
    assert command.validate(replacing) == []


def test_what_a_run_left_that_died_while_it_took_over_is_removed(
    replacing: MigrateConfig, store_uri: str
) -> None:
    command.up(replacing)
    with database(store_uri) as db:
        own = db["schema_migrations"].find_one({"_id": "20260101000250"})
        assert own is not None
        db["schema_migrations"].insert_one({**own, "_id": "20260101000100"})
        assert command.validate(replacing) == []
        command.up(replacing)
        assert db["schema_migrations"].count_documents({}) == 3
