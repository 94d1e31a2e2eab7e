"""Keep a small database of the schema version that this checkout works with.

Run at each release, and commit the file it writes::

    python -m tests.migration.make_dump

Later versions migrate every kept database to their head in test_dumps.py. It is filled through the store
of the version itself, since only that knows what its documents look like.
"""

import asyncio
from pathlib import Path

import pymongo
from mlflow.entities import Metric, Param, RunTag, ViewType

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate.files import migration_files
from tests.migration.dumping import DUMPS, dump, write
from tests.mongod import running_mongod

RUNS = 5
POINTS = 30


async def fill(uri: str) -> None:
    """Two experiments, a deleted run, keys that need escaping, histories long enough to be in use."""
    async with MongoDBStore(uri, "file:///srv/artifacts") as store:
        experiment = await store.create_experiment("dump", "file:///srv/artifacts/dump", [])
        for number in range(RUNS):
            run = await store.create_run(
                experiment, "someone", 1_700_000_000_000 + number, [], f"run {number}"
            )
            run_id = run.info.run_id
            points = [
                Metric(key, number + step / 10, 1_700_000_000_000 + step, step)
                for key in ("loss", "val.acc/top 1")
                for step in range(POINTS)
            ]
            params = [Param("lr", "0.1"), Param("odd.key/a", str(number))]
            await store.log_batch(run_id, points, params, [RunTag("team", "a"), RunTag("dot.ted", "x")])
        await store.delete_run(run_id)
        assert len(await store.search_experiments(ViewType.ALL)) == 2


def make(folder: Path = DUMPS) -> Path:
    version = migration_files()[-1].version
    with running_mongod() as server:
        asyncio.run(fill(server.database_uri("dump")))
        with pymongo.MongoClient(server.uri) as client:
            found = dump(client["dump"], bookkeeping=True)
    path = folder / f"{version}.json.gz"
    write(path, found)
    return path


if __name__ == "__main__":
    print(make())
