"""Every kept schema version, migrated to head, is what a fresh database is, and its data is still there.

When a step that was never released is changed, its dumps are made again with make_dump.py. A step that was
released is never changed; this test is what says so.
"""

from pathlib import Path

import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.stores.areas import DECLARED
from tests.migration.dumping import DUMPS, dump, read, restore, schema_of
from tests.migration.helpers import database, make_config
from tests.mongod import Mongod

KEPT = sorted(DUMPS.glob("*.json.gz"))


def test_there_are_dumps() -> None:
    assert KEPT


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name.split(".")[0])
async def test_a_kept_database_migrated_to_head_equals_a_fresh_one(
    path: Path, real: MigrateConfig, store_uri: str, mongod: Mongod, database_name: str
) -> None:
    fresh_uri = mongod.database_uri(f"{database_name}_fresh")
    command.up(make_config(fresh_uri))
    kept = read(path)
    with database(store_uri) as db, database(fresh_uri) as fresh:
        restore(db, kept)
        command.up(real)
        assert schema_of(dump(db)) == schema_of(dump(fresh))
        fresh.client.drop_database(fresh)
    assert command.check(real, DECLARED) == []
    async with MongoDBStore(store_uri) as store:
        documents = sorted(kept["runs"]["documents"], key=lambda run: run["start_time"])
        assert documents
        for number, document in enumerate(documents):
            run = await store.get_run(document["_id"])
            assert run.info.lifecycle_stage == ("active" if number < len(documents) - 1 else "deleted")
            assert run.data.params == {"lr": "0.1", "odd.key/a": str(number)}
            assert run.data.metrics["val.acc/top 1"] == number + 2.9
            history = await store.get_metric_history(run.info.run_id, "loss")
            assert [point.value for point in history] == [number + step / 10 for step in range(30)]
