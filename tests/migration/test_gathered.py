"""Steps on an empty database: what they create is sent together, and is there for a step that needs it."""

from collections import Counter
from typing import Any

import pytest
from pymongo import ASCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, OperationFailure

from genesis_flow.migrate.base import BaseMigration, StepContext
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.gathered import Gathered
from genesis_flow.migrate.initialise import initialise
from tests.commands import CommandRecorder
from tests.migration.dumping import dump
from tests.migration.helpers import database

UNIQUE = IndexModel([("name", ASCENDING)], name="unique", unique=True)
OTHER = IndexModel([("time", ASCENDING)], name="by_time")


class Step(BaseMigration):
    def upgrade(self) -> None:
        self.create_collections({"things": [UNIQUE], "empty": []})
        self.create_collection("view", viewOn=self.prefix + "things", pipeline=[])
        self.collection("things").create_indexes([OTHER])


class Step_that_writes(BaseMigration):
    def upgrade(self) -> None:
        self.collection("things").insert_one({"name": "one"})


def on(db: Database[dict[str, Any]]) -> dict[str, Any]:
    return {"db": db, "prefix": "p_", "context": StepContext(gathered=Gathered(db))}


def test_nothing_is_sent_before_it_is_needed(store_uri: str, commands: CommandRecorder) -> None:
    with database(store_uri) as db:
        given = on(db)
        with commands.recording() as sent:
            Step(**given).upgrade()
        assert sent == []
        with commands.recording() as sent:
            given["context"].gathered.send()
            given["context"].gathered.send()
        assert Counter(name for name, _ in sent) == {"createIndexes": 1, "create": 2}
        assert sent[-1][1]["create"] == "p_view"
        assert set(db["p_things"].index_information()) == {"_id_", "unique", "by_time"}


@pytest.mark.parametrize("way", ["collection", "database"])
def test_a_step_that_needs_a_collection_finds_it(store_uri: str, way: str) -> None:
    with database(store_uri) as db:
        given = on(db)
        Step(**given).upgrade()
        if way == "collection":
            Step_that_writes(**given).upgrade()
            with pytest.raises(DuplicateKeyError):
                Step_that_writes(**given).upgrade()
        else:
            assert set(Step(**given).db.list_collection_names()) >= {"p_things", "p_empty", "p_view"}


def test_what_is_there_stays(store_uri: str) -> None:
    """As after a client that died on the way, or beside another one."""
    with database(store_uri) as db:
        for _ in range(2):
            given = on(db)
            Step(**given).upgrade()
            given["context"].gathered.send()
        assert set(db["p_things"].index_information()) == {"_id_", "unique", "by_time"}


def test_an_index_that_cannot_be_made_is_an_error(store_uri: str) -> None:
    with database(store_uri) as db:
        db["p_things"].create_index("time", name="unique")
        given = on(db)
        Step(**given).upgrade()
        with pytest.raises(OperationFailure, match="unique"):
            given["context"].gathered.send()


def test_all_steps_together_make_what_they_make_one_by_one(store_uri: str) -> None:
    with database(store_uri) as db:
        initialise(db, "p_")
        for file in migration_files():
            file.load()(db=db, prefix="q_").upgrade()
        together, singly = dump(db, "p_"), dump(db, "q_")
        assert [entry["_id"] for entry in together.pop("schema_migrations")["documents"]] == [
            file.version for file in migration_files()
        ]
        for view in ("params", "tags"):
            assert singly[view]["options"].pop("viewOn") == "q_runs"
            assert together[view]["options"].pop("viewOn") == "p_runs"
        assert together == singly
