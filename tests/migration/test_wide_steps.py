"""The schema step of wide steps: clients without it are refused, and its way back loses no point."""

from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.files import migration_files
from genesis_flow.mongo import schema
from tests.migration.helpers import database

STEP = "20261130010000"
NAMES = [f"m{number}" for number in range(WIDE_FROM)]


async def logged(uri: str) -> str:
    """A run of whose steps the last ones wait, some with odd points."""
    async with MongoDBStore(uri) as store:
        run_id = str((await store.create_run("0", "me", 1, [], None)).info.run_id)
        for step in range(140):
            await store.log_batch(run_id, [Metric(name, step / 2, 10 + step, step) for name in NAMES], [], [])
        odd = [Metric(name, float("nan"), place, 900 - place) for place, name in enumerate(NAMES)]
        await store.log_batch(run_id, [*odd[1:], *odd], [], [])
        return run_id


async def histories(uri: str, run_id: str) -> str:
    async with MongoDBStore(uri) as store:
        found = {name: await store.get_metric_history(run_id, name) for name in NAMES}
        latest = (await store.get_run(run_id)).data.metrics
        return repr(
            [
                (name, str(latest[name]), [(m.timestamp, m.step, str(m.value)) for m in points])
                for name, points in sorted(found.items())
            ]
        )


async def test_the_way_back_makes_what_waits_part_of_the_heads(real: MigrateConfig, store_uri: str) -> None:
    run_id = await logged(store_uri)
    before = await histories(store_uri, run_id)
    with database(store_uri) as db:
        assert len(db["latest_metrics"].find_one({"key": "\t"})["rows"]) > 5
        earlier = [file.version for file in migration_files() if file.version < STEP][-1]
        command.down(real, earlier)
        heads = list(db["latest_metrics"].find())
        assert {head["key"] for head in heads} == {*NAMES}
        assert all("latest" in head for head in heads)
        assert db["runs"].count_documents({"places": {"$exists": True}}) == 0
        command.up(real)
    assert await histories(store_uri, run_id) == before
    async with MongoDBStore(store_uri) as store:
        for name in NAMES:  # tails that were filled beyond their limit are packed by whoever comes by
            await store.log_metric(run_id, Metric(name, 0.0, 10, 0))
    assert await histories(store_uri, run_id) == before


async def test_a_client_of_the_schema_before_is_refused(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not see the steps that wait."""
    await logged(store_uri)
    before = [file for file in migration_files() if file.version < STEP]
    monkeypatch.setattr(schema, "migration_files", lambda: before)
    with pytest.raises(MlflowException, match=f"newer than {before[-1].version}") as refused:
        async with MongoDBStore(store_uri) as store:
            await store.get_experiment("0")
    assert refused.value.error_code == "INVALID_STATE"


def test_the_step_says_that_older_clients_must_stop(real: MigrateConfig) -> None:
    assert command.show(real, STEP)["compatible"] is False
    assert Path(command.show(real, STEP)["file"]).name == f"{STEP}_wide_steps.py"
