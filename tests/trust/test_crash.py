"""Clients and the server are killed at any moment: what was acknowledged is there, nothing is half there."""

import asyncio
import json
import multiprocessing
import os
import random
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from pymongo.errors import ConfigurationError

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.cli.doctor.consistency import Inconsistency, inconsistencies
from genesis_flow.mongo.connection import Session
from tests.contract.trace_scenes import span
from tests.doctor.helpers import examine
from tests.mongod import Mongod, running_mongod
from tests.scenes import play
from tests.scenes.stage import ONE
from tests.trust.soak import amount
from tests.trust.tour import World

KILLS = amount(6, 100)
WORKERS = 3
PROGRESS = 15
SPANS = 3


def work(uri: str, journal: str) -> None:
    try:
        write_without_end(uri, journal)
    except BaseException:
        Path(f"{journal}.error").write_text(traceback.format_exc())
        raise


def write_without_end(uri: str, journal: str) -> None:
    """Writes without end, and says in the journal what was acknowledged, in the order of the calls."""
    store, registry = MongoDBStore(uri), MongoDBModelRegistryStore(uri)
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    dice = random.Random(os.getpid())

    def acknowledged(kind: str, **what: Any) -> None:
        os.write(file, (json.dumps({"kind": kind, **what}) + "\n").encode())

    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    acknowledged("run", run=run_id)
    number = 0
    while True:
        number += 1
        match dice.randrange(6):
            case 0:
                run_id = store.create_run("0", "me", number, [RunTag("t", "v")], "named").info.run_id
                acknowledged("run", run=run_id)
            case 1:
                store.log_metric(run_id, Metric("m", number, number, number))
                acknowledged("metric", run=run_id, number=number)
            case 2:
                made = registry.create_model_version("model", f"s3://{uuid.uuid4().hex}")
                acknowledged("version", version=int(made.version), source=made.source)
            case 3:
                trace_id = f"tr-{uuid.uuid4().hex}"
                store.log_spans(
                    "0", [span(trace_id, 1), *(span(trace_id, n, 1) for n in range(2, SPANS + 1))]
                )
                acknowledged("trace", trace=trace_id)
            case _:
                points = [Metric(f"a{number}", 1, 1, 1)]
                points += [Metric("long", n, number, number * 100 + n) for n in range(80)]
                store.log_batch(run_id, points, [Param(f"p{number}", "x")], [RunTag(f"t{number}", "y")])
                acknowledged("batch", run=run_id, number=number)


@pytest.fixture(params=["replica set", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    with running_mongod(replica_set=request.param == "replica set") as running:
        yield running


class Crew:
    """The workers, one of which may be killed and replaced at any time."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.trust.test_crash"])
        self.workers: list[BaseProcess] = []
        self.started = 0

    def fill(self) -> None:
        while len(self.workers) < WORKERS:
            journal = str(self.folder / f"journal{self.started}.jsonl")
            self.started += 1
            worker = self.context.Process(target=work, args=(self.uri, journal), daemon=True)
            worker.start()
            self.workers.append(worker)

    def kill_one(self) -> None:
        worker = self.workers.pop(random.randrange(len(self.workers)))
        worker.kill()
        worker.join()

    def kill_all(self) -> None:
        while self.workers:
            self.kill_one()

    def journals(self) -> list[dict[str, Any]]:
        lines = [
            line for path in self.folder.glob("journal*.jsonl") for line in path.read_text().splitlines()
        ]
        return [json.loads(line) for line in lines]

    def wait_for_progress(self, count: int) -> None:
        goal = len(self.journals()) + count
        deadline = time.monotonic() + 300
        while len(self.journals()) < goal:
            assert time.monotonic() < deadline
            errors = [path.read_text() for path in self.folder.glob("*.error")]
            assert errors == []
            assert all(worker.is_alive() for worker in self.workers)
            time.sleep(0.02)


@pytest.mark.timeout(1800)
async def test_kills_at_random_moments(server: Mongod, tmp_path: Path) -> None:
    uri = server.database_uri("crash")
    store, registry = MongoDBStore(uri), MongoDBModelRegistryStore(uri)
    registry.create_registered_model("model")
    crew = Crew(uri, tmp_path)
    seen: list[Inconsistency] = []
    for number in range(KILLS):
        crew.fill()
        crew.wait_for_progress(PROGRESS)
        await asyncio.sleep(random.uniform(0, 0.1))
        if number % 2:
            server.kill()
            server.start()
        else:
            crew.kill_one()
        if number % 10 == 9:
            seen += await findings(uri)
    crew.kill_all()
    check_acknowledged(crew.journals(), store, registry)
    check_whole(store, server.replica_set)
    seen += await findings(uri)
    assert await half_done(uri) == {}
    print(len(crew.journals()), "acknowledged;", Counter(each.text for each in seen))
    assert [each for each in seen if each.visible] == []
    if server.replica_set:  # there, traces and their spans are the only ones written in several steps
        assert {each.collection for each in seen} <= {"spans"}
    store.close()
    registry.close()


async def half_done(uri: str) -> dict[str, list[str]]:
    """Changes that were cut in two, by kind: what the doctor would finish."""
    check = (await asyncio.to_thread(examine, "--deep", uri=uri)).checks["half-done"]
    assert check["verdict"] in ("ok", "warn"), check
    return dict(check["details"])


async def findings(uri: str) -> list[Inconsistency]:
    async with AsyncStore(f"{uri}&appName=check") as store:  # a client of its own, which it may close
        return [each async for each in inconsistencies(store.database)]


def check_acknowledged(
    journal: list[dict[str, Any]], store: MongoDBStore, registry: MongoDBModelRegistryStore
) -> None:
    runs = {run.info.run_id: run for run in store.search_runs(["0"], "", ViewType.ALL, 50_000)}
    versions = {
        int(version.version): version.source for version in registry.search_model_versions("name = 'model'")
    }
    histories: dict[str, set[int]] = {}
    assert len(journal) > KILLS * PROGRESS
    for entry in journal:
        run = runs[entry["run"]] if "run" in entry else None
        match entry["kind"]:
            case "metric":
                assert run is not None
                if run.info.run_id not in histories:
                    points = store.get_metric_history(run.info.run_id, "m")
                    assert len({point.step for point in points}) == len(points)
                    histories[run.info.run_id] = {point.step for point in points}
                assert entry["number"] in histories[run.info.run_id]
            case "batch":
                assert run is not None
                assert run.data.params[f"p{entry['number']}"] == "x"
                assert run.data.tags[f"t{entry['number']}"] == "y"
                assert run.data.metrics[f"a{entry['number']}"] == 1
            case "version":
                assert versions[entry["version"]] == entry["source"]
            case "trace":
                assert len(store.get_trace(entry["trace"]).data.spans) == SPANS
    acknowledged = [entry["version"] for entry in journal if entry["kind"] == "version"]
    assert len(acknowledged) == len(set(acknowledged))


def check_whole(store: MongoDBStore, atomic: bool) -> None:
    """Of what was not acknowledged either all is there or nothing, where the server has transactions."""
    for run in store.search_runs(["0"], "", ViewType.ALL, 50_000):
        numbers = {key[1:] for key in run.data.params}
        assert numbers == {key[1:] for key in run.data.tags if key[1:].isdigit()}
        metrics = {key[1:] for key in run.data.metrics if key[0] == "a"}
        points = Counter(point.timestamp for point in store.get_metric_history(run.info.run_id, "long"))
        if atomic:
            assert metrics == numbers == {str(number) for number in points}
        else:  # params and tags come first; the repetition of a killed call would bring the rest
            assert metrics <= numbers
        assert set(points.values()) <= {80}
    token = None
    while True:
        traces, token = store.search_traces(locations=["0"], max_results=500, page_token=token)
        for trace in traces:
            assert len(store.get_trace(trace.trace_id).data.spans) == SPANS
        if not token:
            return


async def test_every_kind_of_inconsistency_is_found(store_uri: str, tmp_path: Path) -> None:
    """A whole database has none; each document that is taken away or changed by hand shows."""
    world = World(store_uri, str(tmp_path / "artifacts"))
    await play(world)
    assert (await findings(store_uri), await half_done(store_uri)) == ([], {})
    database = world.store.database.client[world.store.settings.database]
    await database["experiments"].update_one({"name": "renamed"}, {"$set": {"pending": "deleted"}})
    await database["runs"].delete_one({"_id": world["second"]})
    await database["latest_metrics"].delete_one({"_id": f"{world['run']}|long"})
    head = {"_id": f"{world['run']}|m"}
    await database["latest_metrics"].update_one(head, {"$set": {"latest.step": -1}})
    await database["registered_models"].delete_one({"name": "copied"})
    await database["model_versions"].delete_one({"name": "renamed", "version": 2})
    await database["registered_models"].update_one(
        {"name": "renamed"}, {"$set": {"last_version": 0, "renamed_from": "m"}}
    )
    await database["span_payloads"].insert_one({"_id": f"{ONE}|00000000000000ff|x|0000"})
    await database["traces"].delete_one({"_id": ONE})
    point = {
        "model_id": world["model"],
        "experiment_id": 0,
        "key": "m",
        "value": 1,
        "timestamp": 1,
        "step": 0,
    }
    await database["logged_model_metrics"].insert_one({"_id": "gone|1", "run_id": "gone", **point})
    await database["logged_model_metrics"].insert_one(
        {"_id": f"{world['run']}|1", "run_id": world["run"], **point, "model_id": "gone"}
    )
    await database["evaluation_dataset_records"].insert_one({"_id": "d-gone|1", "dataset_id": "d-gone"})
    found = Counter((each.collection, each.text.split("'")[-1].strip()) for each in await findings(store_uri))
    assert found == {
        ("latest_metrics", "belongs to a run that is not there"): 1,
        ("latest_metrics", "has a later point than its latest"): 1,
        ("metrics", "holds points of a metric that is not there"): 1,
        ("registered_models", "has a stage or an alias for version 2, which is not there"): 1,
        ("model_versions", "was not given out"): 1,
        ("spans", "belongs to a trace that is not there"): 4,
        ("span_payloads", "is content of a span that is not there"): 1,
        ("assessments", "judges a trace that is not there"): 1,
        ("logged_model_metrics", "belongs to a run that is not there"): 1,
        ("logged_model_metrics", "belongs to a logged model that is not there"): 1,
        ("evaluation_dataset_records", "belongs to an evaluation dataset that is not there"): 1,
    }
    assert all(each.remedy for each in await findings(store_uri))
    assert await half_done(store_uri) == {
        "experiments whose runs did not all follow them": ["renamed"],
        "models whose versions did not all take their new name": ["m > renamed"],
        "models that are deleted but for some versions": ["copied"],
    }
    await world.close()


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("deleted", "deleted runs whose metrics can still be written"),
        ("active", "active runs some of whose metrics cannot be written"),
    ],
)
async def test_a_head_that_mistakes_its_run_is_found(
    store: AsyncStore, store_uri: str, stage: str, kind: str
) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.log_metric(run_id, Metric("m", 1, 1, 1))
    if stage == "active":
        await store.delete_run(run_id)
    runs = store.database.client[store.settings.database]["runs"]
    await runs.update_one({"_id": run_id}, {"$set": {"lifecycle_stage": stage}})
    assert await half_done(store_uri) == {kind: [run_id]}


async def test_a_connection_that_knows_no_sessions_does_without(store: AsyncStore) -> None:
    """One that was made in the first moments of a member stays so as long as it lives."""
    await store.get_experiment("0")
    sessions: list[bool] = []

    async def write(session: Session | None) -> int:
        sessions.append(session is not None)
        if session is not None:
            raise ConfigurationError("Sessions are not supported by this MongoDB deployment")
        return 7

    assert await store.database.atomically(write) == 7
    assert sessions == [True, False]
