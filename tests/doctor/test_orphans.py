"""Documents without their parent, as races and crashes leave them: found without being asked, and removed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Feedback, Metric
from mlflow.exceptions import MlflowException
from pymongo.database import Database

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.cli.doctor import orphans
from tests.contract.trace_scenes import span, trace_id
from tests.doctor.helpers import Report, examine
from tests.doctor.test_leftovers import check_repair
from tests.emptied import EmptiedDatabase
from tests.interruption import interrupted
from tests.mongod import Mongod

Raw = Database[dict[str, Any]]
LONG = "x" * 2_000_000
# What a call of the doctor's stores may take at most, and so how long a repair waits.
TIMEOUT = 8


@pytest.fixture(scope="module")
def emptied_standalone(standalone: Mongod) -> Iterator[EmptiedDatabase]:
    made = EmptiedDatabase(standalone)
    yield made
    made.close()


@pytest.fixture(params=["emptied", "emptied_standalone"], ids=["mongod", "standalone"])
async def uri(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """On a replica set and on a standalone server; each has one database, emptied between the tests."""
    database: EmptiedDatabase = request.getfixturevalue(request.param)
    yield await database.uri()
    database.give_back()


@pytest.fixture
def raw(uri: str) -> Iterator[Raw]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        yield client.get_default_database()


@pytest.fixture
def store(uri: str, raw: Raw) -> Iterator[MongoDBStore]:
    made = MongoDBStore(uri)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long repairs would have waited for calls that may still be writing: none is, in most tests."""
    seconds: list[float] = []
    monkeypatch.setattr(orphans, "sleep", seconds.append)
    return seconds


def doctor(uri: str, tmp_path: Path, *options: str) -> Report:
    uri = f"{uri}&timeoutMS={TIMEOUT * 1000}"
    return examine("--artifact-root", str(tmp_path / "artifacts"), *options, uri=uri)


def fill(store: MongoDBStore, number: int) -> dict[str, Any]:
    """A run, a model, a trace and a dataset, each with everything that can belong to it."""
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    model_id = store.create_logged_model("0", "m").model_id
    points = [Metric("many", float(step), 1, step) for step in range(100)]
    store.log_batch(run_id, [*points, Metric("of a model", 1.0, 1, 0, model_id)], [], [])
    trace = trace_id(number)
    store.log_spans("0", [span(trace, 1, attributes={"long": LONG})])
    store.create_assessment(Feedback(name="f", value=1, trace_id=trace))
    dataset_id = store.create_dataset(f"d{number}").dataset_id
    store.upsert_dataset_records(dataset_id, [{"inputs": {"n": n}} for n in range(3)])
    experiment = store.create_experiment(f"e{number}")
    store.list_label_schemas(experiment)
    queue = store.create_review_queue(experiment, name="q", queue_type="custom")
    store.add_items_to_review_queue(queue.queue_id, item_ids=[trace])
    store.create_issue(experiment, "slow", "too slow")
    store.register_scorer(experiment, "judge", "{}")
    return {
        "experiments": int(experiment),
        "review_queues": queue.queue_id,
        "runs": run_id,
        "logged_models": model_id,
        "traces": trace,
        "evaluation_datasets": dataset_id,
    }


CHILDREN = (
    *("latest_metrics", "metrics", "logged_model_metrics", "spans", "span_payloads", "assessments"),
    *("evaluation_dataset_records", "label_schemas", "review_queue_items", "issues", "scorers"),
)


def counted(raw: Raw) -> dict[str, int]:
    return {name: raw[name].count_documents({}) for name in CHILDREN}


def test_whatever_lacks_its_parent_is_removed(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path
) -> None:
    fill(store, 1)
    whole = counted(raw)
    assert all(whole.values())
    gone = fill(store, 2)
    assert doctor(uri, tmp_path).verdict("orphans") == "ok"
    for collection, identity in gone.items():
        raw[collection].delete_one({"_id": identity})
    found = doctor(uri, tmp_path)
    assert (found.code, found.verdict("orphans")) == (0, "warn")
    assert all(str(gone[name]) in found.told("orphans") for name in gone)
    assert found.checks["orphans"]["details"] == {
        "metrics of runs that are gone": 2,
        "blocks of metrics of runs that are gone": 1,
        "points of logged models from runs that are gone": 1,
        "points of logged models that are gone": 1,
        "spans of traces that are gone": 1,
        "contents of spans of traces that are gone": raw.span_payloads.count_documents({}) // 2,
        "assessments of traces that are gone": 1,
        "records of evaluation datasets that are gone": 3,
        "items of review queues that are gone": 1,
        "label schemas of experiments that are gone": 1,
        "review queue items of experiments that are gone": 1,
        "issues of experiments that are gone": 1,
        "scorers of experiments that are gone": 1,
    }
    assert counted(raw) == {name: 2 * count for name, count in whole.items()}, "to look changes nothing"
    assert doctor(uri, tmp_path, "--repair").verdict("orphans") == "ok"
    assert counted(raw) == whole
    assert doctor(uri, tmp_path, "--deep").verdict("orphans") == "ok"


def test_contents_that_no_version_of_an_mcp_server_has(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path, waited: list[float]
) -> None:
    """As crashes leave them: made and never named, replaced and not removed, outliving their server."""
    for name in ("com.example/kept", "com.example/gone"):
        for version in ("1.0.0", "2.0.0"):
            store.create_mcp_server_version({"name": name, "version": version})
    store.delete_mcp_server_version("com.example/kept", "2.0.0")  # its number stays taken, with its content
    assert doctor(uri, tmp_path).verdict("orphans") == "ok"
    whole = {content["_id"] for content in raw.mcp_contents.find({"server": {"$regex": "kept$"}})}
    kept = raw.mcp_contents.find_one({"_id": {"$regex": "kept.*1.0.0"}})
    assert kept is not None
    raw.mcp_contents.insert_many({**kept, "_id": f"{kept['_id']} {why}"} for why in ("unnamed", "replaced"))
    raw.mcp_servers.delete_one({"name": "com.example/gone"})
    found = doctor(uri, tmp_path)
    assert (found.code, found.verdict("orphans")) == (0, "warn")
    assert found.checks["orphans"]["details"] == {"contents that no version of an MCP server has": 4}
    assert doctor(uri, tmp_path, "--repair").verdict("orphans") == "ok"
    assert waited == [TIMEOUT]
    assert {content["_id"] for content in raw.mcp_contents.find()} == whole
    assert store.get_mcp_server_version("com.example/kept", "1.0.0").version == "1.0.0"


async def test_the_content_of_a_version_that_is_being_made_stays(
    uri: str, raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor looks when the content is there and the server does not name it yet, and repairs."""
    async with AsyncStore(f"{uri}&appName=patient") as patient:
        server_json = {"name": "com.example/new", "version": "1.0.0"}
        making = patient.create_mcp_server_version(server_json)
        report = await repaired_meanwhile(uri, tmp_path, monkeypatch, ("insert", "mcp_servers"), making)
        removed = {"contents that no version of an MCP server has": 0}
        assert report.checks["orphans"]["details"] == {"removed": removed}
        assert (await patient.get_mcp_server_version("com.example/new", "1.0.0")).server_json == server_json


def test_of_large_collections_some_are_looked_at(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 8):
        store.log_spans("0", [span(trace_id(number), 1)])
    raw.traces.delete_many({})
    monkeypatch.setattr(orphans, "_SOME", 2)
    some = doctor(uri, tmp_path)
    assert some.checks["orphans"]["details"] == {"spans of traces that are gone": 2}
    assert "--deep" in some.told("orphans")
    everything = doctor(uri, tmp_path, "--deep")
    assert everything.checks["orphans"]["details"] == {"spans of traces that are gone": 7}
    doctor(uri, tmp_path, "--repair")
    assert raw.spans.count_documents({}) == 0


async def repaired_meanwhile(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: tuple[str, str], making: Awaitable[Any]
) -> Report:
    """The report of a doctor who looks just before the last command of a call, and repairs."""
    waited: list[float] = []
    waits, written = threading.Event(), threading.Event()
    reports: list[Report] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        waits.set()
        assert written.wait(150)

    monkeypatch.setattr(orphans, "sleep", wait)
    repairing = threading.Thread(target=lambda: reports.append(doctor(uri, tmp_path, "--repair")))

    def look() -> None:
        repairing.start()
        assert waits.wait(150)

    with interrupted(*last, look) as interruption:
        await making
    assert interruption.error is None
    written.set()
    await asyncio.to_thread(repairing.join, 150)
    assert waited == [TIMEOUT]
    return reports[0]


async def test_children_of_a_trace_that_is_being_made_stay(
    uri: str, raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor looks when the spans are there and their trace is not yet, and repairs."""
    async with AsyncStore(f"{uri}&appName=patient") as patient:
        making = patient.log_spans("0", [span(trace_id(1), 1)])
        report = await repaired_meanwhile(uri, tmp_path, monkeypatch, ("findAndModify", "traces"), making)
        assert report.checks["orphans"]["details"] == {"removed": {"spans of traces that are gone": 0}}
        assert len((await patient.get_trace(trace_id(1))).data.spans) == 1


def test_nothing_is_removed_while_an_import_is_unfinished(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path
) -> None:
    """An import writes runs behind their metrics; killed, it goes on where it was."""
    store.get_experiment("0")
    raw.latest_metrics.insert_one({"_id": "r|m", "run_uuid": "r"})
    raw.import_journals.insert_one({"_id": "mlruns-1", "state": "running"})
    kept = doctor(uri, tmp_path, "--repair")
    assert kept.verdict("orphans") == "warn"
    assert "mlruns-1" in kept.told("orphans")
    assert raw.latest_metrics.count_documents({}) == 1
    raw.import_journals.update_one({}, {"$set": {"state": "done"}})
    assert doctor(uri, tmp_path, "--repair").verdict("orphans") == "ok"
    assert raw.latest_metrics.count_documents({}) == 0


def test_a_run_that_was_being_deleted_for_good(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path
) -> None:
    run_id = fill(store, 1)["runs"]
    store.delete_run(run_id)
    raw.runs.update_one({"_id": run_id}, {"$set": {"erasing": True}})
    with pytest.raises(MlflowException):
        store.restore_run(run_id)
    check_repair(uri, tmp_path, run_id)
    assert raw.runs.count_documents({}) == raw.latest_metrics.count_documents({}) == 0


def test_a_trace_that_was_being_deleted(store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path) -> None:
    trace = fill(store, 1)["traces"]
    raw.traces.update_one(
        {"_id": trace},
        {
            "$rename": {"experiment_id": "erasing.experiment_id"},
            "$set": {"erasing.by": "somebody", "spans_location": "ERASED"},
        },
    )
    assert store.search_traces(locations=["0"])[0] == []
    check_repair(uri, tmp_path, trace)
    assert raw.traces.count_documents({}) == raw.spans.count_documents({}) == 0
    assert raw.span_payloads.count_documents({}) == raw.assessments.count_documents({}) == 0


def test_an_experiment_that_was_being_deleted_for_good(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path
) -> None:
    experiment_id = store.create_experiment("half gone")
    run_id = store.create_run(experiment_id, "me", 1, [], None).info.run_id
    store.log_metric(run_id, Metric("m", 1.0, 1, 0))
    store.delete_experiment(experiment_id)
    raw.experiments.update_one({"name": "half gone"}, {"$set": {"pending": "erased"}})
    check_repair(uri, tmp_path, "half gone")
    assert raw.experiments.count_documents({"name": "half gone"}) == 0
    assert raw.runs.count_documents({}) == raw.latest_metrics.count_documents({}) == 0


def test_an_active_run_in_a_deleted_experiment(
    store: MongoDBStore, uri: str, raw: Raw, tmp_path: Path
) -> None:
    experiment_id = store.create_experiment("deleted")
    run_id = store.create_run(experiment_id, "me", 1, [], None).info.run_id
    raw.experiments.update_one({"name": "deleted"}, {"$set": {"lifecycle_stage": "deleted"}})
    check_repair(uri, tmp_path, run_id)
    assert store.get_run(run_id).info.lifecycle_stage == "deleted"
