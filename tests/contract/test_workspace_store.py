"""The store of workspaces, beside MLflow's; and what becomes of all that is in one that is deleted."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Workspace
from mlflow.entities.workspace import WorkspaceDeletionMode
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.workspace.sqlalchemy_store import SqlAlchemyStore as SqlWorkspaces
from mlflow.utils.workspace_context import ServerWorkspaceContext
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.traces.sums.documents import COSTS_OF_ALL
from genesis_flow.areas.workspaces import contents
from genesis_flow.cli.workspace_moves import AT_ONCE, MOVABLE, Moves
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.stores.areas import DECLARED
from genesis_flow.sync.registry import MongoDBModelRegistryStore as BlockingRegistry
from genesis_flow.sync.tracking import MongoDBStore as BlockingStore
from genesis_flow.sync.workspaces import MongoDBWorkspaceStore
from tests.contract import policy
from tests.contract.conftest import ARTIFACT_ROOT
from tests.contract.pair import Pair
from tests.contract.policy import Wording
from tests.contract.trace_scenes import span, trace_id
from tests.emptied import empty
from tests.mongod import Mongod
from tests.scenes import Stage, play

RESTRICT, CASCADE, SET_DEFAULT = (
    WorkspaceDeletionMode[name] for name in ("RESTRICT", "CASCADE", "SET_DEFAULT")
)
policy.WORDINGS = (
    *policy.WORDINGS,
    Wording(
        r"Workspace '(?P<name>.*?)' already exists\. Error: .*",
        r"Workspace '(?P<name>.*)' already exists\.",
        "the SQL statement and its parameters are of no use to the user",
    ),
)


@pytest.fixture
def workspaces(
    mongod: Mongod, contract_database: Database[dict[str, Any]], oracle: SqlAlchemyStore
) -> Iterator[Pair]:
    empty(contract_database)
    theirs = SqlWorkspaces(oracle.db_uri)
    yield Pair(MongoDBWorkspaceStore(mongod.database_uri(contract_database.name)), theirs)
    theirs._engine.dispose()


def test_the_default_one_is_always_there(workspaces: Pair) -> None:
    assert [each.name for each in workspaces.list_workspaces()] == ["default"]
    assert workspaces.get_default_workspace() == workspaces.get_workspace("default")
    workspaces.refused("create_workspace", Workspace("default"))
    for mode in WorkspaceDeletionMode:
        workspaces.refused("delete_workspace", "default", mode)
    workspaces.update_workspace(Workspace("default", default_artifact_root="s3://all"))
    workspaces.update_workspace(Workspace("default", trace_archival_retention="3d"))
    assert workspaces.get_workspace("default").default_artifact_root == "s3://all"
    workspaces.update_workspace(Workspace("default", default_artifact_root=""))
    assert [each.name for each in workspaces.list_workspaces()] == ["default"]


def test_workspaces_are_made_changed_and_deleted(workspaces: Pair, tmp_path: Path) -> None:
    archive = tmp_path.as_uri()
    for made in (
        Workspace("team-b"),
        Workspace("team-a", "said", "s3://a", archive, "30d"),
        Workspace("team-c", "", ""),
    ):
        workspaces.create_workspace(made)
        workspaces.refused("create_workspace", made)
        workspaces.get_workspace(made.name)
    assert len(workspaces.list_workspaces()) == 4
    for changed in (
        Workspace("team-b"),
        Workspace("team-b", "new", "s3://b", archive, "1h"),
        Workspace("team-b", "", "", "", ""),
        Workspace("team-a", trace_archival_retention="2m"),
    ):
        workspaces.update_workspace(changed)
        workspaces.get_workspace(changed.name)
    for name in ("team-a", "team-b", "nobody"):
        workspaces.resolve_artifact_root("s3://all", name)
        workspaces.resolve_artifact_root(None, name)
        workspaces.resolve_trace_archival_config("s3://all", "9d", name)
    for name, mode in (("team-a", RESTRICT), ("team-b", CASCADE), ("team-c", SET_DEFAULT)):
        workspaces.delete_workspace(name, mode)
        workspaces.refused("get_workspace", name)
        workspaces.refused("delete_workspace", name, mode)
        workspaces.refused("update_workspace", Workspace(name, "new"))


@pytest.mark.parametrize("name", ["", "a", "A-b", "-ab", "ab-", "a_b", "a" * 64, "api", "workspaces"])
def test_names_that_cannot_be(workspaces: Pair, name: str) -> None:
    workspaces.refused("create_workspace", Workspace(name))


def test_settings_that_cannot_be(workspaces: Pair) -> None:
    workspaces.create_workspace(Workspace("team-a"))
    for field, value in (("location", "nowhere://x"), ("retention", "soon"), ("retention", "0d")):
        changed = Workspace("team-a", **{f"trace_archival_{field}": value})
        workspaces.refused("update_workspace", changed)
        workspaces.refused("create_workspace", changed)


def test_what_has_no_workspace_belongs_to_something_that_has() -> None:
    """Or it is of the whole database."""
    owned = contents.owned().keys()
    others = {each.Settings.name for each in DECLARED} - owned - set(contents.STAYS)
    assert others == {
        *contents.CHILDREN,
        contents.SUMS,
        *("counters", "scheduler_leases", "workspaces"),
        *("import_units", "import_items", "import_problems", "import_artifacts"),
    }
    assert {parent for parent, _ in contents.CHILDREN.values()} <= owned
    assert set(contents.ROOTS) <= owned


@pytest.fixture
def database(mongod: Mongod, store_uri: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        yield client.get_default_database()


def dump(database: Database[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names = database.list_collection_names(filter={"name": {"$not": re.compile("^(system|schema)")}})
    found = {name: list(database[name].find()) for name in names}
    return {name: documents for name, documents in found.items() if documents}


async def test_everything_is_given_away_and_everything_is_deleted(
    database: Database[dict[str, Any]], store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the scenes of all areas leave behind; they need experiment 0, which is let into the team."""
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("GENESIS_FLOW_AUDIT", "true")
    async with (
        MongoDBStore(store_uri, ARTIFACT_ROOT) as tracking,
        MongoDBModelRegistryStore(store_uri) as registry,
    ):

        async def track(name: str, /, *args: Any, **kwargs: Any) -> Any:
            return await getattr(tracking, name)(*args, **kwargs)

        async def register(name: str, /, *args: Any, **kwargs: Any) -> Any:
            return await getattr(registry, name)(*args, **kwargs)

        await tracking.create_workspace(Workspace("team-a"))
        database["experiments"].update_one({"_id": 0}, {"$set": {"workspace": "team-a"}})
        with ServerWorkspaceContext("team-a"):
            await play(Stage(track, register, tmp_path))
            run = (await tracking.create_run("0", "me", 1, [], "a run")).info.run_id
            await tracking.log_batch(run, [Metric("m", 1.0, step, step) for step in range(200)], [], [])
            await tracking.log_spans("0", [span(trace_id(99), 1, attributes={"long": "y" * 100_000})])
            with pytest.raises(MlflowException, match="still contains") as refused:
                await tracking.delete_workspace("team-a")
            assert refused.value.error_code == "INVALID_STATE"
        left = dump(database)
        assert left.keys() >= {*contents.CHILDREN, *contents.NAMED_BY_WORKSPACE} - {"skills"}
        before = await read(tracking, registry, run, "team-a")

        await tracking.create_workspace(Workspace("team-b"))
        await move_to_team_b(tracking, database)
        assert await read(tracking, registry, run, "team-b") == before
        await tracking.delete_workspace("team-a", RESTRICT)
        await tracking.delete_workspace("team-b", SET_DEFAULT)
        given = dump(database)
        counts = {name: len(some) for name, some in left.items()}
        for changed in (contents.SUMS, "workspaces", "audit"):
            counts.pop(changed, None)
            given.pop(changed, None)
        assert {name: len(some) for name, some in given.items()} == counts
        # Artifacts stay where they are.
        told = {name: repr(some).replace("/workspaces/team-a/", "") for name, some in given.items()}
        teams = re.compile("team-[ab]")
        named = [name for name, text in told.items() if teams.search(text) and name not in contents.STAYS]
        assert named == []
        assert await read(tracking, registry, run, "default") == before

        await contents.erase(tracking.database, "default")
    rest = dump(database)
    # Who sums up what calls have cost shall know of it.
    assert [each["_id"] for each in rest.pop(contents.SUMS)] == [COSTS_OF_ALL]
    assert rest.keys() <= {*contents.STAYS, "counters", "scheduler_leases"}, rest.keys()


async def move_to_team_b(tracking: Any, database: Database[dict[str, Any]]) -> None:
    """What can be moved singly goes so, kind by kind, and the rest with everything."""
    moves = Moves(tracking.settings)
    try:
        for kind in MOVABLE:
            ids = [each["_id"] for each in database[kind].find({"workspace": "team-a"}, {"_id": 1})]
            for begin in range(0, len(ids), AT_ONCE):
                await moves.move_things(kind, ids[begin : begin + AT_ONCE], "team-a", "team-b")
        left = {name for name in contents.owned() if database[name].count_documents({"workspace": "team-a"})}
        assert {name for name in left if not name.startswith("gateway_")} <= {contents.TIES}, left
        await moves.give_all("team-a", "team-b")
    finally:
        await moves.close()


async def read(tracking: Any, registry: Any, run: str, workspace: str) -> Any:
    """What calls of several areas answer in a workspace, but for its name."""
    with ServerWorkspaceContext(workspace):
        found = (
            await tracking.search_runs(["0"], "", 3),
            await tracking.get_metric_history(run, "m"),
            await tracking.search_traces(["0"]),
            await tracking.search_mcp_servers(),
            await tracking.list_gateway_endpoints(),
            await registry.search_registered_models(),
            await registry.search_model_versions(),
        )
    assert all(found), found
    return str(policy_fields(found)).replace(f"{workspace}{SEPARATOR}", "")


def policy_fields(value: Any) -> Any:
    if policy.is_entity(value) and not isinstance(value, list):
        told = policy.fields_of(value)
        return {name: policy_fields(each) for name, each in told.items() if name != "workspace"}
    return [policy_fields(each) for each in value] if isinstance(value, list | tuple) else value


async def test_names_that_the_default_one_has_are_told(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    async with MongoDBStore(store_uri, ARTIFACT_ROOT) as store:
        await store.create_workspace(Workspace("team-a"))
        for workspace in ("default", "team-a"):
            with ServerWorkspaceContext(workspace):
                made = await store.create_experiment("taken")
        with pytest.raises(MlflowException, match=r"experiments: 'taken'\n") as refused:
            await store.delete_workspace("team-a", SET_DEFAULT)
        assert refused.value.error_code == "INVALID_STATE"
        with ServerWorkspaceContext("team-a"):
            assert (await store.get_experiment(made)).name == "taken"
        await store.delete_workspace("team-a", CASCADE)
        with ServerWorkspaceContext("default"):
            assert [each.name for each in await store.search_experiments()] == ["taken", "Default"]
        with ServerWorkspaceContext("team-a"):
            assert await store.search_experiments() == []


async def test_experiments_lie_where_their_workspace_says(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    async with MongoDBStore(store_uri, ARTIFACT_ROOT) as store:
        await store.create_workspace(Workspace("team-a"))
        await store.create_workspace(Workspace("team-b", default_artifact_root="s3://theirs"))
        places = []
        for workspace in ("default", "team-a", "team-b"):
            with ServerWorkspaceContext(workspace):
                made = await store.create_experiment("e")
                places.append((await store.get_experiment(made)).artifact_location)
                with pytest.raises(MlflowException, match="cannot be specified when workspaces") as refused:
                    await store.create_experiment("elsewhere", "s3://elsewhere")
                assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    assert places == [
        f"{ARTIFACT_ROOT}/workspaces/default/1",
        f"{ARTIFACT_ROOT}/workspaces/team-a/2",
        "s3://theirs/3",
    ]


@pytest.mark.parametrize("root", ["s3://bucket/workspaces", "s3://bucket/base/workspaces/team-a/"])
def test_a_root_that_workspaces_need_is_refused(
    store_uri: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    BlockingStore(store_uri, root)
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    with pytest.raises(MlflowException, match="reserved") as refused:
        BlockingStore(store_uri, root)
    assert refused.value.error_code == "INVALID_STATE"


def test_a_database_with_several_needs_them_enabled(
    database: Database[dict[str, Any]], store_uri: str
) -> None:
    """Whatever is outside the default workspace, both stores say what it is; and both are open without."""
    tracking, registry = BlockingStore(store_uri, ARTIFACT_ROOT), BlockingRegistry(store_uri)
    calls = (lambda: tracking.get_experiment("0"), registry.search_registered_models)
    with closing(BlockingStore(store_uri, ARTIFACT_ROOT)) as first:  # who brings it to the newest schema
        first.get_experiment("0")
    for kind in contents.ROOTS:
        number: Any = 9 if kind == "experiments" else "x"
        database[kind].insert_one({"_id": number, "workspace": "team-a", "name": "n"})
        for call in calls * 2:  # they are not open after the first refusal
            with pytest.raises(MlflowException, match=f"because {kind.replace('_', ' ')} exist") as refused:
                call()
            assert refused.value.error_code == "INVALID_STATE"
        database[kind].delete_many({"workspace": "team-a"})
    for call in calls:
        call()
    tracking.close()
    registry.close()
