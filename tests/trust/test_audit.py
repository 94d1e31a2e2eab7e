"""The audit trail: a record of every call that changes something and of no other, if it is asked for."""

import asyncio
import inspect
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import flask
import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.migrate import command
from genesis_flow.mongo import audit
from genesis_flow.mongo.operation import Area
from genesis_flow.stores.areas import DECLARED
from genesis_flow.sync.tracking import MongoDBStore as SyncStore
from tests.commands import CommandRecorder
from tests.migration.helpers import make_config
from tests.mongod import Mongod
from tests.scenes import Stage, play
from tests.versions import SINCE_3_18

WRITES = {"insert", "update", "delete", "findAndModify", "bulkWrite"}

# Arguments that a record does not name: they are values, or say how and not what.
CONTENT = {
    *("artifact_location", "user_id", "start_time", "run_name", "run_status", "end_time", "status", "value"),
    *("request_metadata", "timestamp_ms", "tracking_uri", "broader_retention", "long_retention_allowlist"),
    *("max_traces_per_pass", "model_type", "expectation", "feedback", "rationale", "metadata", "description"),
    *("deployment_job_id", "source", "run_link", "local_model_path", "archive_existing_versions", "url"),
    *("type", "input", "instruction", "enable_comment", "queue_type", "users", "created_by", "new_owner"),
    *(
        "completed_by",
        "cost",
        "severity",
        "root_causes",
        "categories",
        "last_seen_timestamp",
        "last_updated_by",
    ),
    *("delete_metadata_keys", "item_type", "user"),
    *("events", "secret", "template", "response_format", "model_config", "serialized_scorer", "sample_rate"),
    *("filter_string", "icons", "display_name", "tools", "connect_options", "transport_type"),
    *("source_type", "ref", "subpath", "digest", "expected_parent_exists"),
    *(
        "execution_order",
        "budget_amount",
        "duration",
        "budget_action",
        "target_value",
        "budget_unit",
        "action",
    ),
    *("routing_strategy", "usage_tracking", "model_configs", "fallback_config", "scorer_version", "provider"),
    *("model_name", "auth_config", "secret_value", "updated_by", "linkage_type", "action"),
    *("timeout", "creator", "executor_backend", "lease_duration", "result", "error_message", "error"),
    *("is_transient_error", "status_details", "message", "progress", "acquired_at", "ttl_seconds"),
    *("held_seconds", "password", "grants", "workspace_scoped"),
}

HEARTBEATS = {"renew_job_lease", "take_scheduler_lease", "renew_scheduler_lease"}


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def database(store_uri: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        yield client.get_default_database()


@pytest.fixture
async def trail(audited: None, store_uri: str) -> AsyncIterator[MongoDBStore]:
    async with MongoDBStore(store_uri) as store:
        yield store


def records(database: Database[dict[str, Any]], **query: Any) -> list[dict[str, Any]]:
    return list(database["audit"].find({"operation": {"$ne": audit.CONNECT}, **query}))


def operations(store: type[Area]) -> dict[str, bool]:
    """The names of the store's public calls, and whether they say that they change something."""
    # An asynchronous store fills in what may be left out around some operations.
    members = ((name, vars(cls)[name]) for cls in reversed(store.__mro__) for name in vars(cls))
    marked = {name: member.changes_data for name, member in members if hasattr(member, "changes_data")}
    found = ((name, marked.get(name)) for name, _ in inspect.getmembers(store))
    return {name: changes for name, changes in found if changes is not None}


class Checker:
    """Makes calls; each must have left a record if, and only if, it has written to the database."""

    def __init__(self, store: Area, database: Database[dict[str, Any]], commands: CommandRecorder) -> None:
        self.store = store
        self.database = database
        self.commands = commands
        self.called: set[str] = set()

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        before = {record["_id"] for record in self.database["audit"].find({}, {"_id": 1})}
        with self.commands.recording() as sent:
            result = await getattr(self.store, name)(*args, **kwargs)
        written = {
            command[each]
            for each, command in sent
            if each in WRITES and command["$db"] == self.database.name and command[each] != "audit"
        }
        if name == "list_label_schemas":
            # The first list of an experiment makes its default question, which nobody chose.
            written.discard("label_schemas")
        if name in ("_exceeded_gateway_budget", "_gateway_budget_windows"):
            # A look at traces leaves in the budget what they say, for later ones.
            written.discard("gateway_budgets")
        new = records(self.database, _id={"$nin": list(before)})
        registry = isinstance(self.store, MongoDBModelRegistryStore)
        mine = (("tracking", "registry")[registry], name)
        own = [record for record in new if (record["store"], record["operation"]) == mine]
        changes = operations(type(self.store))[name]
        assert bool(written) == changes, f"{name} writes {written}, and is marked {changes}"
        long = own[:1] if own and own[0]["outcome"] == audit.BEGUN else []
        # That a runner is alive is said every few seconds, and no record.
        recorded = changes and name not in HEARTBEATS
        assert [record["outcome"] for record in own[len(long) :]] == [audit.DONE] * recorded, name
        assert all(record["target"] for record in own), f"the record of {name} does not say what it was about"
        # What MLflow does through a store of its own, to link prompts, is recorded there.
        assert name.startswith("link_prompt") or own == new
        self.called.add(name)
        return result


async def test_every_call_that_writes_leaves_one_record_and_no_other_does(
    audited: None,
    store_uri: str,
    database: Database[dict[str, Any]],
    commands: CommandRecorder,
    tmp_path: Path,
) -> None:
    async with MongoDBStore(store_uri) as tracking, MongoDBModelRegistryStore(store_uri) as registry:
        await tracking.get_experiment("0")  # makes the default experiment
        track = Checker(tracking, database, commands)
        register = Checker(registry, database, commands)
        await play(Stage(track, register, tmp_path, linked_uri=store_uri))
    for checker in (track, register):
        named = operations(type(checker.store)).keys()
        assert checker.called == {name for name in named if SINCE_3_18 or "skill" not in name}


@pytest.mark.parametrize("store", [MongoDBStore, MongoDBModelRegistryStore])
def test_every_argument_is_named_or_known_to_be_content(store: type[Area]) -> None:
    for name, changes in operations(store).items():
        arguments = set(inspect.signature(getattr(store, name)).parameters) - {"self"}
        named = {each for each in arguments if each in audit.ARGUMENTS or audit._by_name(each)}
        if changes:
            assert arguments <= named | CONTENT, f"{name}: decide what a record says about it"
            assert named, f"{name}: nothing says what it is about"
    assert not CONTENT & audit.ARGUMENTS.keys()


async def test_nothing_is_written_unless_it_is_asked_for(
    store_uri: str, database: Database[dict[str, Any]]
) -> None:
    async with MongoDBStore(store_uri) as store:
        await store.create_experiment("quiet")
    assert database["audit"].count_documents({}) == 0


async def test_a_record_says_who_did_what_to_what_and_when(
    trail: MongoDBStore, database: Database[dict[str, Any]]
) -> None:
    run = await trail.create_run("0", "someone", 1, [], "canary-name")
    run_id = run.info.run_id
    await trail.log_batch(
        run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "canary-1")], [RunTag("t", "canary-2")]
    )
    await trail.log_param(run_id, Param("q", "canary-3"))
    made, batch, param = records(database)
    assert made["target"] == {"experiment_id": "0", "tags": 0, "run_id": run_id}
    assert batch["target"] == {"run_id": run_id, "metrics": 1, "params": 1, "tags": 1}
    assert param["target"] == {"run_id": run_id, "key": "q"}
    assert {"user", "host", "pid"} <= made["actor"].keys()
    assert abs(made["time"].timestamp() - time.time()) < 60
    assert "canary" not in str(records(database))
    touched = database["audit"].find({"target.run_id": run_id}).hint("by_target")
    assert [each["operation"] for each in touched] == ["create_run", "log_batch", "log_param"]


async def test_failed_calls_are_recorded_as_failed(
    trail: MongoDBStore, database: Database[dict[str, Any]]
) -> None:
    for bad in ("no-such-run", None, 7, "\ud800", "x" * 10_000, {"$ne": 1}, "\0"):
        with pytest.raises(MlflowException):
            await trail.set_tag(bad, RunTag("k", "v"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await trail.set_tag()  # type: ignore[call-arg]
    with pytest.raises(MlflowException):
        await trail.log_param("no-such-run", object())  # type: ignore[arg-type]
    found = records(database)
    assert len(found) == 9
    assert {record["outcome"] for record in found} == {audit.FAILED}
    assert found[0]["error"] == "RESOURCE_DOES_NOT_EXIST"
    assert found[0]["target"] == {"run_id": "no-such-run", "key": "k"}


async def test_an_interrupted_call_is_recorded_as_that(
    trail: MongoDBStore, database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await trail.create_experiment("first")
    reached = asyncio.Event()

    async def slow(*_: Any, **__: Any) -> None:
        reached.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("genesis_flow.areas.experiments.methods.insert_once", slow)
    task = asyncio.create_task(trail.create_experiment("second"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record["outcome"] for record in records(database)] == [audit.DONE, audit.INTERRUPTED]


def fail(client: pymongo.MongoClient[dict[str, Any]], mode: Any, **data: Any) -> None:
    client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})


async def test_who_may_not_write_records_changes_nothing(
    audited: None, store_uri: str, database: Database[dict[str, Any]]
) -> None:
    uri = store_uri + "&appname=audit_refused"
    client = database.client
    async with MongoDBStore(uri) as store:
        await store.get_experiment("0")
        namespace = f"{database.name}.audit"
        with_name = {"appName": "audit_refused", "namespace": namespace}
        fail(client, "alwaysOn", failCommands=["insert"], errorCode=13, **with_name)
        try:
            with pytest.raises(MlflowException) as caught:
                await store.create_experiment("unrecorded")
        finally:
            fail(client, "off")
        assert caught.value.error_code == "PERMISSION_DENIED"
        assert await store.get_experiment_by_name("unrecorded") is None


async def test_a_record_that_fails_later_fails_the_call_and_is_tried_again_when_that_can_help(
    audited: None, store_uri: str, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    uri = store_uri + "&appname=audit_fails"
    client = database.client
    with_name = {"appName": "audit_fails", "namespace": f"{database.name}.audit"}
    async with MongoDBStore(uri) as store:
        await store.create_experiment("introduces itself")
        fail(client, {"times": 3}, failCommands=["insert"], closeConnection=True, **with_name)
        await store.create_experiment("retried")
        assert len(records(database)) == 2
        fail(client, "alwaysOn", failCommands=["insert"], errorCode=13, **with_name)
        try:
            with pytest.raises(MlflowException, match="did its work, but its audit record") as caught:
                await store.create_experiment("done")
            with pytest.raises(MlflowException, match="already exists"), caplog.at_level(logging.WARNING):
                await store.create_experiment("done")
        finally:
            fail(client, "off")
        assert caught.value.error_code == "PERMISSION_DENIED"
        assert "audit record could not be written" in caplog.text


KILLED = """
import os, signal, sys
from mlflow.entities import Param
from genesis_flow import MongoDBStore
from genesis_flow.mongo import audit

store = MongoDBStore(sys.argv[1])
run = store.create_run("0", "u", 1, [], "r").info.run_id
print(run, flush=True)
for number in range(100_000):
    store.log_param(run, Param(str(number), "v"))
    print(number, flush=True)
"""


@pytest.mark.usefixtures("database_name")  # of its own: nobody knows when a killed client's last command ends
def test_a_killed_client_leaves_a_record_of_all_that_was_acknowledged(
    audited: None, store_uri: str, database: Database[dict[str, Any]]
) -> None:
    for round_number in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, store_uri], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        for _ in range(40 + 7 * round_number):
            process.stdout.readline()
        process.kill()
        lines = process.stdout.read().splitlines(keepends=True)
        process.wait()
        acknowledged = 40 + 7 * round_number + sum(line.endswith("\n") for line in lines)
        recorded = {
            each["target"]["key"]
            for each in records(database, operation="log_param", **{"target.run_id": run_id})
        }
        assert {str(number) for number in range(acknowledged)} <= recorded
        run = database["runs"].find_one({"_id": run_id})
        assert run is not None
        assert len(run["params"].keys() - recorded) <= 1, "only the call that was killed may lack its record"


def test_the_server_names_the_user_of_the_request(
    audited: None, store_uri: str, database: Database[dict[str, Any]]
) -> None:
    store = SyncStore(store_uri)
    with flask.Flask("server").test_request_context("/", auth=("alice", "canary-password")):
        store.create_experiment("by alice")
    store.create_experiment("by nobody")
    alice, nobody = records(database)
    assert alice["actor"]["request_user"] == "alice"
    assert "request_user" not in nobody["actor"]
    assert "canary" not in str(alice)


@pytest.mark.usefixtures("database_name")  # of its own: the command stays
def test_retention_is_one_command_of_the_operator(
    audited: None, store_uri: str, database: Database[dict[str, Any]]
) -> None:
    """The command of docs/security.md; the server's own thread removes the records then."""
    SyncStore(store_uri).create_experiment("old")
    database.command(
        "collMod", "audit", index={"name": "by_record_time", "expireAfterSeconds": 365 * 24 * 3600}
    )
    index = database["audit"].index_information()["by_record_time"]
    assert index["expireAfterSeconds"] == 365 * 24 * 3600
    findings = command.check(make_config(store_uri), DECLARED)
    assert [finding for finding in findings if finding.kind != "note"] == []


@pytest.mark.slow
async def test_what_it_costs(
    mongod: Mongod, store_uri: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Interleaved, so that a busy machine slows both; one more round trip cannot cost five times as much."""
    quiet = MongoDBStore(store_uri)
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")
    loud = MongoDBStore(store_uri)
    run_id = (await quiet.create_run("0", "u", 1, [], "r")).info.run_id
    taken: dict[str, list[float]] = {"off": [], "on": []}
    for number in range(400):
        for name, store in (("off", quiet), ("on", loud)):
            begin = time.perf_counter()
            await store.log_metric(run_id, Metric(name, number, number, number))
            taken[name].append(time.perf_counter() - begin)
    medians = {name: sorted(times)[len(times) // 2] for name, times in taken.items()}
    ratio = medians["on"] / medians["off"]
    print({name: f"{median * 1000:.2f} ms" for name, median in medians.items()}, f"{ratio:.2f} times")
    record_property("ratio", ratio)
    assert ratio < 5
    await quiet.close()
