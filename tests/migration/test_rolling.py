"""Upgrade under load: clients of the schema before go on logging while a long step runs."""

import asyncio
import dataclasses
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, Run, RunTag

from genesis_flow.aio import MongoDBStore
from genesis_flow.migrate import batches, command
from genesis_flow.migrate.config import MigrateConfig
from tests.migration.helpers import add_step, database, make_config, real_steps

DOCUMENTS = 60_000
WRITERS = 4

# It adds a field to every run and indexes it, which is what a step that expands the schema does.
EXPAND = """
    compatible = True
    loses = ""

    def upgrade(self):
        from pymongo import UpdateOne
        for batch in self.batches("runs", {"label": {"$exists": False}}, {"user_id": 1}):
            changes = [
                UpdateOne({"_id": run["_id"]}, {"$set": {"label": f"{run['user_id']}/{run['_id']}"}})
                for run in batch
            ]
            self.collection("runs").bulk_write(changes, ordered=False)
        self.collection("runs").create_index([("label", 1)], name="by_label")

    def downgrade(self):
        self.drop_index("runs", "by_label")
        for batch in self.batches("runs", {"label": {"$exists": True}}, {}):
            ids = [run["_id"] for run in batch]
            self.collection("runs").update_many({"_id": {"$in": ids}}, {"$unset": {"label": ""}})
"""


async def log(store: MongoDBStore, run: Run, stop: asyncio.Event) -> int:
    """Log one point, a batch, a param and a tag in turns until told to stop; the number of rounds."""
    run_id = run.info.run_id
    for number in itertools.count():
        await store.log_metric(run_id, Metric("loss", float(number), 1000 + number, number))
        batch = [Metric("accuracy", float(number), 1000 + number, number)]
        await store.log_batch(run_id, batch, [Param(f"p{number % 50}", str(number % 50))], [])
        await store.set_tag(run_id, RunTag("progress", str(number)))
        if stop.is_set():
            return number + 1
    raise AssertionError("unreachable")


def many_runs(uri: str, template: dict[str, Any]) -> None:
    with database(uri) as db:
        for first in range(0, DOCUMENTS, 20_000):
            numbers = range(first, first + 20_000)
            db["runs"].insert_many(
                [{**template, "_id": f"{number:032x}", "start_time": number} for number in numbers],
                ordered=False,
            )


class Upgrade(threading.Thread):
    """``up`` in a thread of its own, with what it said and whether it failed."""

    def __init__(self, config: MigrateConfig) -> None:
        super().__init__()
        self.said: list[str] = []
        self.config = dataclasses.replace(config, report=self.said.append)
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            command.up(self.config)
        except Exception as exc:
            self.error = exc


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_clients_log_without_one_failed_write_while_up_runs(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = real_steps(tmp_path / "steps")
    async with MongoDBStore(store_uri) as store:
        experiment = await store.create_experiment("busy")
        runs = [
            await store.create_run(experiment, "someone", 1, [], f"r{number}") for number in range(WRITERS)
        ]
        with database(store_uri) as db:
            template = dict(db["runs"].find_one({"_id": runs[0].info.run_id}) or {})
        await asyncio.to_thread(many_runs, store_uri, template)
        add_step(location, "20290101000000", "expand", EXPAND)
        upgrade = Upgrade(make_config(store_uri, location))
        monkeypatch.setattr(batches, "REPORT_SECONDS", 0.2)
        stop = asyncio.Event()
        writers = [asyncio.create_task(log(store, run, stop)) for run in runs]
        upgrade.start()
        while upgrade.is_alive():
            await asyncio.sleep(0.1)
            assert not any(writer.done() for writer in writers), [writer.exception() for writer in writers]
        stop.set()
        rounds = await asyncio.gather(*writers)
        assert upgrade.error is None, upgrade.error
        assert any("/s, about" in line for line in upgrade.said), (
            "the step was long enough to report progress"
        )
        for run, count in zip(runs, rounds, strict=True):
            assert count > 5
            for key in ("loss", "accuracy"):
                history = await store.get_metric_history(run.info.run_id, key)
                assert [point.value for point in history] == [float(number) for number in range(count)]
        async with MongoDBStore(store_uri) as late:
            assert (await late.get_run(runs[0].info.run_id)).data.tags["progress"] == str(rounds[0] - 1)
    with database(store_uri) as db:
        assert db["runs"].count_documents({"label": {"$exists": False}}) == 0
        assert db["runs"].count_documents({"label": {"$exists": True}}) == DOCUMENTS + WRITERS
    print(f"{sum(rounds) * 3} writes while the step ran; {upgrade.said[-1]}")
