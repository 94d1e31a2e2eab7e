"""Who may watch, and what of: rights, prefixes, workspaces."""

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymongo
import pytest
from mlflow.entities import Metric, Workspace
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import ServerWorkspaceContext

from genesis_flow.aio import MongoDBStore
from tests.mongod import Mongod, running_mongod, unique
from tests.roles import make_user
from tests.watch.conftest import log, logs, new_run, until

ROOT, PASSWORD = "root", "c4nary-P@ss/w:rd"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A replica set that asks for users."""
    key: Path = tmp_path_factory.mktemp("key") / "key"
    key.write_text(base64.b64encode(os.urandom(96)).decode())
    key.chmod(0o400)
    with running_mongod(options=("--keyFile", str(key))) as server:
        with pymongo.MongoClient[dict[str, Any]](server.uri) as client:
            client.admin.command("createUser", ROOT, pwd=PASSWORD, roles=["root"])
        yield server


@pytest.fixture
def uri_of(guarded: Mongod) -> Callable[..., str]:
    """The URI of a database for a user who has these roles; without any for who may do everything."""
    name = unique("rights")

    def made(*roles: str) -> str:
        user, source = (roles[0], name) if roles else (ROOT, "admin")
        if roles:
            with pymongo.MongoClient[dict[str, Any]](guarded.uri, username=ROOT, password=PASSWORD) as client:
                if roles == ("read",):
                    client[name].command("createUser", user, pwd=PASSWORD, roles=["read"])
                else:
                    make_user(client[name], user, PASSWORD, *roles)
        secret = quote(PASSWORD, safe="")
        place = f"127.0.0.1:{guarded.port}/{name}?directConnection=true&authSource={source}"
        return f"mongodb://{user}:{secret}@{place}"

    return made


@pytest.mark.parametrize("role", ["mlflowWatcher", "read"])
async def test_a_watcher_needs_no_more_than_its_role(uri_of: Callable[..., str], role: str) -> None:
    async with MongoDBStore(uri_of()) as store, MongoDBStore(uri_of(role)) as reader:
        run_id = await new_run(store)
        watch = reader.watch(experiment_ids=["0"])
        await until(watch, lambda event: event.run_id == run_id)
        await log(store, run_id, "loss", range(200))
        await log(store, run_id, "last", [1])
        await until(watch, logs("last"))
        with pytest.raises(MlflowException, match="may not do this"):
            await reader.log_metric(run_id, Metric("loss", 1.0, 1, 1))


async def test_a_reader_is_told_which_right_is_missing(uri_of: Callable[..., str]) -> None:
    async with MongoDBStore(uri_of()) as store, MongoDBStore(uri_of("mlflowReader")) as reader:
        run_id = await new_run(store)
        with pytest.raises(MlflowException, match="rights find and changeStream on the whole") as caught:
            await reader.watch(run_ids=[run_id]).begin()
        assert caught.value.error_code == "PERMISSION_DENIED"
        assert "c4nary" not in str(caught.value)


async def test_another_prefix_is_not_heard(store: MongoDBStore, store_uri: str) -> None:
    async with MongoDBStore(f"{store_uri}#team") as other:
        watches = [each.watch(experiment_ids=["0"], start="now") for each in (store, other)]
        for watch in watches:
            await watch.begin()
        for each in (store, other):
            run_id = await new_run(each, each.settings.prefix or "no prefix")
            await log(each, run_id, "last", [1])
        names = [(await until(watch, logs("last")))[0].name for watch in watches]  # type: ignore[attr-defined]
        assert names == ["no prefix", "team_"]


async def test_a_watch_sees_its_workspace(store: MongoDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    experiments: dict[str, str] = {}
    for name in ("team-a", "team-b"):
        with ServerWorkspaceContext("default"):
            await store.create_workspace(Workspace(name=name))
        with ServerWorkspaceContext(name):
            experiments[name] = await store.create_experiment(name)
    with ServerWorkspaceContext("team-a"):
        run_id = await new_run(store, "mine", experiments["team-a"])
        await log(store, run_id, "loss", [1])
        watch = store.watch(experiment_ids=[experiments["team-a"]])
    with ServerWorkspaceContext("team-b"):
        # Whoever reads it, it is of the workspace in which it was made.
        events = await until(watch, logs("loss"))
        assert {event.run_id for event in events} == {run_id}
        with pytest.raises(MlflowException, match="No Experiment with id"):
            await store.watch(experiment_ids=[experiments["team-a"]]).begin()
        with pytest.raises(MlflowException, match="not found"):
            await store.watch(run_ids=[run_id]).begin()
        other = await new_run(store, "theirs", experiments["team-b"])
        with pytest.raises(MlflowException, match="of another workspace"):
            await store.watch(run_ids=[other], after=events[-1].token).begin()
