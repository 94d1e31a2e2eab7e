"""Commands on a directory: how it may be named, and that looking at it creates nothing."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genesis_flow import MongoDBStore, embedded
from genesis_flow.cli.db import NOT_RUNNING
from genesis_flow.cli.main import cli
from genesis_flow.cli.migrate import cli as migrate
from tests.embedded.helpers import uri_of

DIRECTORY_COMMANDS = [("quickstart",), ("db", "start"), ("db", "stop"), ("db", "status")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and an environment that names no database."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in (
        *("MLFLOW_TRACKING_URI", "GENESIS_FLOW_MONGODB_URI", "GENESIS_FLOW_COSMOS_DB_URI"),
        *("GENESIS_FLOW_CONF", "GENESIS_MIGRATE_CONFIG"),
    ):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def ran(*words: str) -> Result:
    """Run ``genesis-migrate``."""
    return CliRunner().invoke(migrate, words)


@pytest.mark.parametrize("command", DIRECTORY_COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("mongodb://me:canary@localhost/x", "'mongodb://me:***@localhost/x' is the URI of something else"),
        ("mongodb:/localhost/x", "'mongodb:/localhost/x' is the URI of something else"),
        ("sqlite:///mlflow.db", "is the URI of something else"),
        ("genesis://./foo", "/elsewhere/foo; genesis:// alone means"),
        ("genesis:/data/x", "'genesis:/data/x' (argument) needs three slashes"),
        ("genesis:///data#team", "leave out '#'"),
    ],
)
def test_a_uri_where_a_directory_belongs(
    command: tuple[str, ...], given: str, says: str, elsewhere: Path
) -> None:
    done = run(*command, given)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())
    assert "canary" not in done.output
    assert list(elsewhere.iterdir()) == []


def test_the_uri_of_a_directory_names_it(directory: Path) -> None:
    uri = uri_of(directory)
    assert run("db", "start", uri).exit_code == 0
    assert embedded.status(directory).pinned
    assert f"MongoDB in {directory}: running" in run("db", "status", uri).output
    assert run("db", "stop", uri).exit_code == 0
    assert not embedded.status(directory).running


def test_a_folder_that_is_not_there(elsewhere: Path) -> None:
    done = run("db", "status", "nowhere")
    assert (done.exit_code, done.output) == (NOT_RUNNING, f"MongoDB in {elsewhere}/nowhere: no such folder\n")
    assert "no such folder" in run("db", "stop", "nowhere").output
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        *(("status",), ("current",), ("plan",), ("up", "--dry-run"), ("history",), ("check",), ("validate",)),
        *(("unlock",), ("repair",), ("down", "base"), ("import", "--list")),
    ],
    ids=" ".join,
)
def test_looking_at_a_database_that_is_not_there_makes_none(
    command: tuple[str, ...], directory: Path
) -> None:
    done = ran("--uri", uri_of(directory), *command)
    assert done.exit_code == 1
    assert f"There is no embedded database in {directory}" in done.output
    assert not directory.exists()


@pytest.mark.parametrize("command", ["status", "up"])
def test_without_a_name_the_message_names_all_sources(command: str, elsewhere: Path) -> None:
    done = ran(command)
    assert done.exit_code == 1
    for source in (
        *("--uri mongodb://", "--uri genesis:///", "MLFLOW_TRACKING_URI", "GENESIS_FLOW_MONGODB_URI"),
        *("alembic_like.ini", "mlflow.conf", f"{elsewhere}/genesis-data"),
    ):
        assert source in done.output
    assert list(elsewhere.iterdir()) == []


def test_without_a_name_the_default_is_that_of_all_commands(elsewhere: Path) -> None:
    store = MongoDBStore("genesis://")
    store.create_run("0", "me", 1, [], None)
    store.close()
    try:
        done = ran("current")
        assert done.exit_code == 0
        assert "(head)" in done.output
    finally:
        embedded.stop(elsewhere / "genesis-data", force=True)
