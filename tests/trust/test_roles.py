"""The roles of docs/security.md, made as they are written there: each may do its work and nothing else."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Metric, Param, RunTag, ViewType, Workspace
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.entities.workspace import WorkspaceDeletionMode
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import ServerWorkspaceContext
from pymongo.errors import OperationFailure

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.areas.users.area import AREA as USERS
from genesis_flow.cli.main import cli
from genesis_flow.cli.usage.command import INCOMPLETE
from genesis_flow.cli.workspace_moves import Moves
from genesis_flow.migrate import command
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.initialise import LEDGER
from genesis_flow.stores.areas import DECLARED
from tests.migration.helpers import make_config
from tests.roles import ROLES, make_user
from tests.scenes import Stage, play
from tests.trust.secure import PASSWORD, SecureServer

User = Callable[..., str]


@pytest.fixture
def name() -> str:
    return f"roles_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def user(secure: SecureServer, name: str) -> User:
    """The URI of a user that has one role of the page."""

    def make(role: str) -> str:
        with secure.root() as client:
            make_user(client[name], role, PASSWORD, role)
        return secure.uri(name, user=role)

    return make


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(OperationFailure) as caught:
        call()
    assert caught.value.code == 13


def test_the_page_has_the_roles() -> None:
    assert set(ROLES) == {"mlflowOperator", "mlflowClient", "mlflowServer", "mlflowReader", "mlflowWatcher"}
    declared = {document.Settings.name for document in DECLARED}  # type: ignore[attr-defined]
    granted, login = (
        {each["resource"]["collection"] for each in json.loads(ROLES[role])["privileges"]}
        for role in ("mlflowClient", "mlflowServer")
    )
    assert login == {each.Settings.name for each in USERS.documents}
    # Imports are the operator's.
    assert granted | login == {each for each in declared if not each.startswith("import_")} | {LEDGER}


def test_the_operator_migrates_up_and_down_and_sets_the_retention(user: User, name: str) -> None:
    uri = user("mlflowOperator")
    config = make_config(uri)
    command.up(config)
    assert [each for each in command.check(config, DECLARED) if each.kind != "note"] == []
    assert all(step.state == "applied" for step in command.status(config).steps)
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        index = {"name": "by_record_time", "expireAfterSeconds": 1000}
        client[name].command("collMod", "audit", index=index)
        refused(lambda: client[name].command("dropDatabase"))
        refused(lambda: client["other"]["c"].insert_one({}))
        refused(lambda: client[name].command("createUser", "eve", pwd="x", roles=[]))
    command.down(config, "base", accept_data_loss=True)


@pytest.fixture
def at_head(user: User) -> str:
    uri = user("mlflowOperator")
    command.up(make_config(uri))
    return uri


def stage_of(tracking: MongoDBStore, registry: MongoDBModelRegistryStore, folder: Path, uri: str) -> Stage:
    async def track(method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(tracking, method)(*args, **kwargs)

    async def register(method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(registry, method)(*args, **kwargs)

    return Stage(track, register, folder, linked_uri=uri)


async def test_a_client_makes_every_call_and_changes_no_schema(
    at_head: str, user: User, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit trail included, which it can add to, but neither read nor change."""
    uri = user("mlflowServer")  # a client's rights, and those on users
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")
    async with MongoDBStore(uri) as tracking, MongoDBModelRegistryStore(uri) as registry:
        await tracking.get_experiment("0")
        await play(stage_of(tracking, registry, tmp_path, uri))
    moves = Moves(tracking.settings)  # what `genesis-flow workspaces` does
    await moves.give_all("default", "team-a")
    await moves.close()
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        db = client[name]
        for forbidden in (
            lambda: db["runs"].create_index("x"),
            lambda: db["runs"].drop(),
            lambda: db["runs"].drop_indexes(),
            lambda: db.create_collection("mine"),
            lambda: db["schema_migrations"].insert_one({"_id": "20990101000000"}),
            lambda: db["audit"].find_one(),
            lambda: db["audit"].delete_many({}),
            lambda: db["audit"].update_many({}, {"$set": {"operation": "nothing"}}),
            lambda: client["other"]["c"].find_one(),
            lambda: client.admin.command("listDatabases", nameOnly=False, authorizedDatabases=False),
        ):
            refused(forbidden)
    with pytest.raises(MigrationError, match="lacks the right"):
        command.down(make_config(uri), "base", accept_data_loss=True)


async def test_a_server_makes_every_call_in_a_workspace(
    at_head: str, user: User, secure: SecureServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it gives everything to the default one, deletes another with what is in it, and does without."""
    uri, root = user("mlflowServer"), f"{tmp_path}/artifacts"
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("GENESIS_FLOW_ARTIFACT_ROOT", root)  # for the store that links prompts
    async with MongoDBStore(uri, root) as tracking, MongoDBModelRegistryStore(uri) as registry:
        for team in ("team-a", "team-b"):
            await tracking.create_workspace(Workspace(team))
        with secure.root() as client:  # the scenes need experiment 0
            client[name]["experiments"].update_one({"_id": 0}, {"$set": {"workspace": "team-a"}})
        with ServerWorkspaceContext("team-a"):
            await play(stage_of(tracking, registry, tmp_path, uri))
        with ServerWorkspaceContext("team-b"):
            await play(stage_of(tracking, registry, tmp_path, uri), "experiments", "labels")
        await tracking.delete_workspace("team-a", WorkspaceDeletionMode.SET_DEFAULT)
        await tracking.delete_workspace("team-b", WorkspaceDeletionMode.CASCADE)
    monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES")
    async with MongoDBStore(uri, root) as tracking:
        assert (await tracking.get_experiment("0")).workspace == "default"


async def test_a_reader_reads_and_is_told_who_may_write(
    at_head: str, user: User, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 0)
    count = (["0"], MetricViewType.TRACES, "trace_count", [MetricAggregation(AggregationType.COUNT)])
    async with MongoDBStore(at_head) as store:
        run_id = (await store.create_run("0", "u", 1, [], "r")).info.run_id
        await store.log_batch(run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")])
    uri = user("mlflowReader")
    # It is told of what is outside the default workspace, as far as it may see that.
    with pymongo.MongoClient[dict[str, Any]](at_head) as client:
        for kind, is_seen in (("webhooks", False), ("jobs", True)):
            client[name][kind].insert_one({"_id": "x", "workspace": "team-a"})
            store = MongoDBStore(uri)
            if is_seen:
                with pytest.raises(MlflowException, match="because jobs exist"):
                    await store.get_run(run_id)
            else:
                await store.get_run(run_id)
            await store.close()
            client[name][kind].delete_one({"_id": "x"})
    async with MongoDBStore(uri) as store, MongoDBModelRegistryStore(uri) as registry:
        assert (await store.get_run(run_id)).data.params == {"p": "1"}
        assert len((await store._search_runs(["0"], "metrics.m > 0", ViewType.ALL, 5, None, None))[0]) == 1
        assert await store.get_metric_history(run_id, "m")
        assert (await store.search_traces(["0"]))[0] == []
        for _ in range(2):  # whoever may not keep sums gets answers all the same
            assert (await store.query_trace_metrics(*count))[0].values == {"COUNT": 0}
        assert await registry.search_registered_models() == []
        for call in (
            store.log_metric(run_id, Metric("m", 2.0, 2, 1)),
            store.create_experiment("e"),
            store.delete_run(run_id),
            registry.create_registered_model("m"),
        ):
            with pytest.raises(MlflowException, match="role") as caught:
                await call
            assert caught.value.error_code == "PERMISSION_DENIED"
            assert PASSWORD not in str(caught.value)
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        refused(lambda: client[name]["runs"].insert_one({}))
        refused(lambda: client[name]["webhooks"].find_one())
        refused(lambda: client[name]["audit"].find_one())
        refused(lambda: client["other"]["c"].find_one())


def test_a_client_neither_sees_nor_makes_users(at_head: str, user: User, name: str) -> None:
    for role in ("mlflowClient", "mlflowReader"):
        with pymongo.MongoClient[dict[str, Any]](user(role)) as client:
            for users in (client[name]["auth_users"], client[name]["auth_roles"]):
                refused(users.find_one)
                refused(lambda users=users: users.insert_one({}))  # type: ignore[misc]
                refused(lambda users=users: users.update_many({}, {"$set": {"is_admin": True}}))  # type: ignore[misc]


def usage(uri: str, *words: str) -> Result:
    done = CliRunner().invoke(cli, ["usage", uri, *words])
    assert PASSWORD not in done.output
    return done


async def test_a_reader_counts_usage_and_is_told_which_right_sizes_need(
    at_head: str, user: User, secure: SecureServer, name: str
) -> None:
    async with MongoDBStore(at_head) as store:
        run_id = (await store.create_run("0", "ann", 1, [], "r")).info.run_id
        await store.log_batch(run_id, [Metric("m", 1.0, step, step) for step in range(200)], [], [])
    uri = user("mlflowReader")
    done = usage(uri, "--json")
    assert done.exit_code == INCOMPLETE, done.output
    report = json.loads(done.stdout)
    assert (report["totals"]["runs"], report["totals"]["points"]) == (1, 200)
    assert [each["user"] for each in report["by_user"]] == ["ann"]
    documents = {each["collection"]: each["documents"] for each in report["disk"]["collections"]}
    # It does not see webhooks, and is told so by no number.
    assert (documents["runs"], documents["latest_metrics"], documents["webhooks"]) == (1, 1, None)
    assert report["disk"]["bytes"] is None
    (gap,) = report["gaps"]
    assert (gap["what"], gap["right"]) == ("sizes on disk", "collStats")
    assert "runs" in gap["collections"]
    told = usage(uri)
    assert told.exit_code == INCOMPLETE
    assert "1 runs" in told.stdout
    advice = (
        f'db.getSiblingDB("{name}").grantPrivilegesToRole("mlflowReader", [{{resource: {{db: "{name}", '
        'collection: ""}, actions: ["collStats"]}])'
    )
    assert advice in gap["says"]
    assert advice in told.stdout
    privilege = {"resource": {"db": name, "collection": ""}, "actions": ["collStats"]}
    with secure.root() as client:  # what was advised, as mongosh sends it
        client[name].command("grantPrivilegesToRole", "mlflowReader", privileges=[privilege])
    report = json.loads(usage(uri, "--json").stdout)
    assert report["gaps"] == []
    assert report["disk"]["bytes"] > 0
    assert usage(uri).exit_code == 0


async def test_what_a_user_may_not_find_is_left_out_of_usage_by_name(
    at_head: str, user: User, secure: SecureServer, name: str
) -> None:
    async with MongoDBStore(at_head) as store:
        await store.create_run("0", "ann", 1, [], "r")
    uri = user("mlflowReader")
    with secure.root() as client:
        gone = [
            {"resource": {"db": name, "collection": each}, "actions": ["find"]}
            for each in ("traces", "model_versions")
        ]
        client[name].command("revokePrivilegesFromRole", "mlflowReader", privileges=gone)
    done = usage(uri, "--json")
    assert done.exit_code == INCOMPLETE, done.output
    report = json.loads(done.stdout)
    assert report["totals"]["runs"] == 1
    refused = {each["what"]: (each["right"], each["collections"]) for each in report["gaps"]}
    assert refused.pop("sizes on disk")[0] == "collStats"
    assert refused == {
        "traces": ("find", ["traces"]),
        "largest traces": ("find", ["traces"]),
        "versions": ("find", ["model_versions"]),
    }
    with secure.root() as client:
        client[name].command("updateUser", "mlflowReader", roles=[])
    done = usage(uri, "--json")
    assert done.exit_code == INCOMPLETE, done.output
    assert {each["right"] for each in json.loads(done.stdout)["gaps"]} == {"find", "collStats"}
