"""The roles of docs/security.md, made as they are written there: each may do its work and nothing else."""

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from pymongo.errors import OperationFailure

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.migrate import command
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.initialise import LEDGER
from genesis_flow.stores.areas import DECLARED
from tests.migration.helpers import make_config
from tests.scenes import Stage, play
from tests.trust.secure import PASSWORD, SecureServer

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
ROLES = {
    found["name"]: found["body"]
    for found in re.finditer(
        r"db\.createRole\((?P<body>\{\s*\"role\": \"(?P<name>\w+)\".*?\n\})\)", PAGE, re.DOTALL
    )
}

User = Callable[..., str]


@pytest.fixture
def name() -> str:
    return f"roles_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def user(secure: SecureServer, name: str) -> User:
    """The URI of a user that has one role of the page."""

    def make(role: str) -> str:
        with secure.root() as client:
            written = json.loads(ROLES[role].replace('"mlflow"', json.dumps(name)))
            client[name].command("createRole", written.pop("role"), **written)
            client[name].command("createUser", role, pwd=PASSWORD, roles=[role])
        return secure.uri(name, user=role)

    return make


def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(OperationFailure) as caught:
        call()
    assert caught.value.code == 13


def test_the_page_has_the_roles() -> None:
    assert set(ROLES) == {"mlflowOperator", "mlflowClient", "mlflowReader"}
    declared = {document.Settings.name for document in DECLARED}  # type: ignore[attr-defined]
    granted = {each["resource"]["collection"] for each in json.loads(ROLES["mlflowClient"])["privileges"]}
    # Imports are the operator's.
    assert granted == {each for each in declared if not each.startswith("import_")} | {LEDGER}


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


async def test_a_client_makes_every_call_and_changes_no_schema(
    at_head: str, user: User, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit trail included, which it can add to, but neither read nor change."""
    uri = user("mlflowClient")
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")
    async with MongoDBStore(uri) as tracking, MongoDBModelRegistryStore(uri) as registry:

        async def track(method: str, *args: Any, **kwargs: Any) -> Any:
            return await getattr(tracking, method)(*args, **kwargs)

        async def register(method: str, *args: Any, **kwargs: Any) -> Any:
            return await getattr(registry, method)(*args, **kwargs)

        await tracking.get_experiment("0")
        await play(Stage(track, register, tmp_path, linked_uri=uri))
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


async def test_a_reader_reads_and_is_told_who_may_write(
    at_head: str, user: User, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 0)
    count = (["0"], MetricViewType.TRACES, "trace_count", [MetricAggregation(AggregationType.COUNT)])
    async with MongoDBStore(at_head) as store:
        run_id = (await store.create_run("0", "u", 1, [], "r")).info.run_id
        await store.log_batch(run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")])
    uri = user("mlflowReader")
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
