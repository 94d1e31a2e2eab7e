"""``genesis-flow workspaces`` (docs/workspaces.md): what it lists, moves, refuses; killed and run again."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Metric, Workspace
from mlflow.entities.mcp_server_version import MCPServerVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import ServerWorkspaceContext

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.workspaces import contents
from genesis_flow.cli.main import cli
from genesis_flow.cli.workspace_moves import MOVABLE, Moves
from genesis_flow.cli.workspaces import KINDS
from genesis_flow.sync.workspaces import MongoDBWorkspaceStore
from tests.contract.trace_scenes import span, trace_id

ROOT = "s3://bucket/base"


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


class Site:
    """A database with two teams, and what is called and run on it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.tracking = MongoDBStore(uri, ROOT)
        self.registry = MongoDBModelRegistryStore(uri)
        self.keeper = MongoDBWorkspaceStore(uri)
        for name in ("team-a", "team-b"):
            self.keeper.create_workspace(Workspace(name))

    def close(self) -> None:
        for each in (self.tracking, self.registry, self.keeper):
            each.close()

    def experiment(self, workspace: str, name: str) -> tuple[str, str]:
        """An experiment with a run that has a point and a trace, and their ids."""
        with ServerWorkspaceContext(workspace):
            experiment = self.tracking.create_experiment(name)
            run = self.tracking.create_run(experiment, "me", 1, [], "a run").info.run_id
            self.tracking.log_metric(run, Metric("m", 1.0, 1, 1))
            number = int(experiment) * 100
            self.tracking.log_spans(experiment, [span(trace_id(number), 1)])
        return experiment, run

    def model(self, workspace: str, name: str) -> None:
        with ServerWorkspaceContext(workspace):
            self.registry.create_registered_model(name)
            self.registry.create_model_version(name, "s3://x")

    def seen(self, workspace: str) -> dict[str, Any]:
        """What calls of a workspace find."""
        with ServerWorkspaceContext(workspace):
            experiments = [each for each in self.tracking.search_experiments() if each.experiment_id != "0"]
            ids = [each.experiment_id for each in experiments]
            runs = self.tracking.search_runs(ids, "", 3) if ids else []
            traces = self.tracking.search_traces(locations=ids)[0] if ids else []
            return {
                "experiments": sorted(each.name for each in experiments),
                "points": [self.tracking.get_metric_history(each.info.run_id, "m")[0].value for each in runs],
                "traces": len(traces),
                "models": [
                    (each.name, each.latest_versions[0].version if each.latest_versions else None)
                    for each in self.registry.search_registered_models()
                ],
                "versions": len(self.registry.search_model_versions()),
            }

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["workspaces", *arguments, "--uri", self.uri])

    def move(self, *arguments: str) -> Result:
        return self.command("move", *arguments, "--from", "team-a", "--to", "team-b", "--yes")

    @contextmanager
    def database(self) -> Iterator[Any]:
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            yield client.get_default_database()


NOTHING = {"experiments": [], "points": [], "traces": 0, "models": [], "versions": 0}


@pytest.fixture
def site(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    made = Site(store_uri)
    yield made
    made.close()


def test_the_kinds_are_those_that_can_be_moved() -> None:
    assert tuple(MOVABLE) == KINDS
    assert set(MOVABLE) == {each for each in contents.ROOTS if not each.startswith("gateway_")}
    assert all(MOVABLE[kind].unique for kind in contents.NAMED_BY_WORKSPACE if kind in MOVABLE)


def test_experiments_go_with_all_that_is_in_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")
    for name in ("one", "two"):
        site.experiment("team-a", name)
    site.experiment("team-b", "taken")
    before = site.seen("team-a")
    asked = site.move("experiments", "--name", "one", "--dry-run")
    assert asked.exit_code == 0, asked.output
    assert "one" in asked.output
    assert "Nothing is moved" in asked.output
    assert site.seen("team-a") == before
    done = site.move("experiments", "--name", "one", "--json")
    assert done.exit_code == 0, done.output
    told = {"from": ["team-a"], "to": "team-b", "things": {"experiments": ["one"]}, "moved": True}
    assert json.loads(done.output) == told
    assert site.seen("team-a")["experiments"] == ["two"]
    assert site.seen("team-b") == {
        "experiments": ["one", "taken"],
        "points": [1.0, 1.0],
        "traces": 2,
        "models": [],
        "versions": 0,
    }
    again = site.move("experiments", "--name", "one", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.output)["moved"] is False
    with site.database() as database:
        moved = database["audit"].find({"operation": "move_things", "outcome": "done"}).to_list()
    assert [each["target"]["destination"] for each in moved] == ["team-b"]
    assert moved[0]["target"]["thing_ids"]


def test_what_cannot_be_moved_is_named_and_nothing_is_moved(site: Site) -> None:
    site.experiment("team-a", "same")
    site.experiment("team-a", "other")
    site.experiment("team-b", "same")
    before = site.seen("team-a"), site.seen("team-b")
    for options in ((), ("--dry-run",)):
        refused = site.move("experiments", *options)
        assert refused.exit_code == 1
        assert "experiments: 'same' is in team-b" in refused.output
    assert (site.seen("team-a"), site.seen("team-b")) == before
    unknown = site.move("experiments", "--name", "nobody")
    assert unknown.exit_code == 1
    assert "'nobody'" in unknown.output
    default = site.command("move", "experiments", "--from", "default", "--to", "team-a", "--name", "Default")
    assert default.exit_code == 1
    assert "default experiment" in default.output
    for wrong in (
        ("move", "experiments", "--from", "team-a", "--to", "team-a"),
        ("move", "webhooks", "--from", "team-a", "--to", "team-b", "--tag", "a=b"),
        ("move", "webhooks", "--from", "team-a", "--to", "team-b", "--artifact-policy", "retarget"),
        ("move", "experiments", "--from", "team-a", "--to", "team-b", "--tag", "a"),
        ("move", "experiments", "--from", "team-a", "--to", "team-b", "--tag", "a=b", "--name", "c"),
        ("migrate-to-default", "--from", "default"),
    ):
        assert site.command(*wrong).exit_code == 2, wrong
    nowhere = site.command("move", "experiments", "--from", "team-a", "--to", "nowhere")
    assert (nowhere.exit_code, "'nowhere' not found" in nowhere.output) == (1, True), nowhere.output
    assert (site.seen("team-a"), site.seen("team-b")) == before


def test_models_mcp_servers_and_datasets_go_by_name_or_by_tag(site: Site) -> None:
    from mlflow.entities.model_registry import RegisteredModelTag

    experiment, _ = site.experiment("team-a", "e")
    for name in ("m1", "m2"):
        site.model("team-a", name)
    with ServerWorkspaceContext("team-a"):
        for key, value in (("team", "a"), ("long", "x" * 2_000)):
            site.registry.set_registered_model_tag("m1", RegisteredModelTag(key, value))
        dataset = site.tracking.create_dataset("d", {}, [experiment])
        server = {"name": "io.x/server", "version": "1.0.0", "description": "d"}
        site.tracking.create_mcp_server("io.x/server")
        site.tracking.create_mcp_server_version(server_json=server)
    chosen = ("--tag", "team=a", "--tag", f"long={'x' * 2_000}")
    assert site.move("registered_models", "--tag", "team=b").output.endswith("Nothing has to be moved.\n")
    for kind, options in (
        ("registered_models", chosen),
        ("mcp_servers", ("--name", "io.x/server")),
        ("evaluation_datasets", ()),
    ):
        done = site.move(kind, *options)
        assert done.exit_code == 0, done.output
    assert site.seen("team-a")["models"] == [("m2", 1)]
    assert site.seen("team-b")["models"] == [("m1", 1)]
    with ServerWorkspaceContext("team-b"):
        version = site.tracking.get_mcp_server_version("io.x/server", "1.0.0")
        assert isinstance(version, MCPServerVersion)
        assert version.workspace == "team-b"
        # It is tied to an experiment that is not here.
        assert site.tracking.get_dataset_experiment_ids(dataset.dataset_id) == []
    with ServerWorkspaceContext("team-a"), pytest.raises(MlflowException):
        site.tracking.get_mcp_server("io.x/server")
    assert site.move("experiments").exit_code == 0
    with ServerWorkspaceContext("team-b"):
        assert site.tracking.get_dataset_experiment_ids(dataset.dataset_id) == [experiment]


def test_experiments_may_keep_new_artifacts_elsewhere(site: Site) -> None:
    first, run = site.experiment("team-a", "kept")
    second, _ = site.experiment("team-a", "sent")
    options = ("--artifact-policy", "retarget", "--default-artifact-root", "s3://new")
    assert site.move("experiments", "--name", "kept").exit_code == 0
    done = site.move("experiments", "--name", "sent", *options)
    assert done.exit_code == 0, done.output
    with ServerWorkspaceContext("team-b"):
        places = [site.tracking.get_experiment(each).artifact_location for each in (first, second)]
        uri = site.tracking.get_run(run).info.artifact_uri
    assert places == [f"{ROOT}/workspaces/team-a/{first}", f"s3://new/workspaces/team-b/{second}"]
    assert uri.startswith(places[0])


class Killed(BaseException):
    """Nobody catches it, as nobody catches the end of a process."""


STEPS = ("announce", "runs before", "experiments", "traces behind", "ties")


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_move_is_finished_by_the_same_command(
    site: Site, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.experiment("team-a", "e")
    whole = site.seen("team-a")

    async def kill(*_arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        if step == "announce":
            dying.setattr("genesis_flow.cli.workspace_moves.announce", kill)
        elif step == "experiments":
            dying.setattr(Moves, "_move_roots", kill)
        elif step == "ties":
            dying.setattr(Moves, "_move_ties", kill)
        else:
            name, when = step.split()
            real = Moves._move_followers

            async def half(self: Moves, now: str, followers: Any, origin: str, destination: str) -> None:
                if now == when:
                    only = {each: followers[each] for each in followers if each < name}
                    await real(self, now, only, origin, destination)
                    raise Killed
                await real(self, now, followers, origin, destination)

            dying.setattr(Moves, "_move_followers", half)
        with pytest.raises(Killed):
            site.move("experiments")
    with site.database() as database:  # somebody logs on in between
        run = database["runs"].find_one({}, {"_id": 1})
        left = {"$set": {"workspace": "team-a"}}
        assert database["latest_metrics"].update_many({"run_uuid": run["_id"]}, left).matched_count
    done = site.move("experiments", "--name", "e")
    assert done.exit_code == 0, done.output
    assert site.seen("team-a") == NOTHING
    assert site.seen("team-b") == whole
    with site.database() as database:
        for name in (*contents.in_experiments(), "experiments"):
            assert database[name].count_documents({"workspace": "team-a"}) == 0, name


def test_a_killed_move_of_a_copy_is_finished_too(site: Site) -> None:
    with ServerWorkspaceContext("team-a"):
        site.tracking.create_mcp_server("io.x/server")
        server = {"name": "io.x/server", "version": "1.0.0", "description": "d"}
        site.tracking.create_mcp_server_version(server_json=server)
    with site.database() as database:
        (old,) = database["mcp_servers"].find().to_list()
        content = database["mcp_contents"].find_one()
        for name, each in (("mcp_servers", old), ("mcp_contents", content)):
            database[name].insert_one(contents.moved(each, "team-a", "team-b"))
        done = site.move("mcp_servers")
        assert done.exit_code == 0, done.output
        assert [each["workspace"] for each in database["mcp_servers"].find()] == ["team-b"]
        assert [each["workspace"] for each in database["mcp_contents"].find()] == ["team-b"]
        # What is not the same is another one of the same name.
        changed = {**old, "description": "another"}
        database["mcp_servers"].insert_one(changed)
    refused = site.move("mcp_servers")
    assert refused.exit_code == 1
    assert "mcp_servers: 'io.x/server' is in team-b" in refused.output


def test_the_default_workspace_becomes_a_teams_and_all_become_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "a passphrase")
    site.experiment("default", "e")
    site.model("default", "m")
    with ServerWorkspaceContext("default"):
        stays = site.tracking.create_run("0", "me", 1, [], "stays").info.run_id
        site.tracking.create_gateway_secret("key", {"api_key": "sk-1"})
    before = site.seen("default")
    listed = json.loads(site.command("list", "--json").output)["workspaces"]
    assert [each["name"] for each in listed] == ["default", "team-a", "team-b"]
    assert listed[0]["things"] == {"experiments": 2, "registered_models": 1, "gateway_secrets": 1}
    assert "team-a: nothing" in site.command("list").output

    asked = json.loads(site.command("migrate-default", "--to", "team-a", "--dry-run", "--json").output)
    assert asked["moved"] is False
    assert (asked["things"]["experiments"], asked["things"]["runs"]) == (1, 1)
    done = site.command("migrate-default", "--to", "team-a", "--yes")
    assert done.exit_code == 0, done.output
    assert site.seen("default") == NOTHING
    assert site.seen("team-a") == before
    with ServerWorkspaceContext("default"):
        assert site.tracking.get_run(stays).info.experiment_id == "0"
        assert site.tracking.list_secret_infos() == []
    with ServerWorkspaceContext("team-a"):
        assert len(site.tracking.list_secret_infos()) == 1
    assert "Nothing has to be moved" in site.command("migrate-default", "--to", "team-a").output

    site.experiment("team-b", "e")
    refused = site.command("migrate-to-default", "--yes")
    assert refused.exit_code == 1
    assert "experiments: 'e' is in team-a, team-b" in refused.output
    assert site.seen("team-a") == before
    assert site.command("migrate-to-default", "--from", "team-a", "--yes").exit_code == 0
    assert site.seen("default") == before
    with ServerWorkspaceContext("team-b"):
        site.tracking.rename_experiment(site.tracking.get_experiment_by_name("e").experiment_id, "f")
    done = site.command("migrate-to-default", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["from"] == ["team-b"]
    monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES")
    with closing(MongoDBStore(site.uri, ROOT)) as single:
        assert {each.name for each in single.search_experiments()} == {"Default", "e", "f"}
