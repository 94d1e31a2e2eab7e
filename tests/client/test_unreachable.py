"""A server that is not there: what cannot change is said soon, what can is waited for."""

import logging
import socket
import threading
from collections.abc import Iterator

import pymongo
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.cli.main import cli
from genesis_flow.core import reaching
from tests.mongod import free_port, guarded_mongod, running_mongod

NOBODY = "nobody.invalid"


class Waits:
    """How long searches were ready to go on when they gave up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hopeless: list[bool] = []
        original = reaching.Search._is_hopeless

        def noted(search: reaching.Search, servers: object) -> bool:
            self.hopeless.append(original(search, servers))  # type: ignore[arg-type]
            return self.hopeless[-1]

        monkeypatch.setattr(reaching.Search, "_is_hopeless", noted)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that nobody else gets: bound, and not listened at."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def test_refused_by_all_is_said_soon_and_once_before(
    closed_port: int, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MlflowException) as caught, caplog.at_level(logging.WARNING, "genesis_flow"):
        MongoDBStore(f"mongodb://127.0.0.1:{closed_port},localhost:{closed_port}/mlflow").search_experiments()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert caught.value.__cause__ is not None
    assert "configured timeouts" not in caught.value.message
    assert waits.hopeless
    assert all(waits.hopeless)
    told = [record.getMessage() for record in caplog.records if "does not answer" in record.getMessage()]
    assert len(told) == 1
    assert "Trying again until" in told[0]


def test_a_name_that_nobody_knows_is_said_soon(waits: Waits) -> None:
    with pytest.raises(MlflowException) as caught:
        MongoDBStore(f"mongodb://{NOBODY}/mlflow").search_experiments()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert all(waits.hopeless)


def test_who_says_how_long_is_obeyed(closed_port: int, waits: Waits) -> None:
    uri = f"mongodb://127.0.0.1:{closed_port}/mlflow?serverSelectionTimeoutMS=2500"
    with pytest.raises(MlflowException):
        MongoDBStore(uri).search_experiments()
    assert waits.hopeless
    assert not any(waits.hopeless)


def test_a_server_that_comes_within_seconds_is_waited_for() -> None:
    with running_mongod() as server:
        server.stop()
        back = threading.Timer(2.5, server.launch)
        back.start()
        # Its user says to wait: a busy machine may take longer than the few seconds there are otherwise.
        uri = f"{server.database_uri('later')}&serverSelectionTimeoutMS=60000"
        assert len(MongoDBStore(uri).search_experiments()) == 1
        back.join()


@pytest.mark.parametrize("command", ["server", "doctor"])
def test_commands_say_it_in_words(command: str, closed_port: int) -> None:
    uri = f"mongodb://127.0.0.1:{closed_port}/mlflow"
    options = ["--port", str(free_port())] if command == "server" else []
    result = CliRunner().invoke(cli, [command, "--uri", uri, *options])
    assert result.exit_code == 1
    assert "Cannot reach" in result.output
    for noise in ("configured timeouts", "Topology", "Traceback", ".."):
        assert noise not in result.output.replace("...", "")


def test_the_server_command_asks_for_a_user() -> None:
    with guarded_mongod("root", "secret-word") as server:
        uri = f"mongodb://127.0.0.1:{server.port}/mlflow?directConnection=true"
        result = CliRunner().invoke(cli, ["server", "--uri", uri, "--port", str(free_port())])
        assert result.exit_code == 1
        assert "No user was given" in result.output
        assert "lsid" not in result.output
        wrong = uri.replace("//", "//root:wrong-word@") + "&authSource=admin"
        result = CliRunner().invoke(cli, ["server", "--uri", wrong, "--port", str(free_port())])
        assert "refused the user name or password" in result.output
        assert "wrong-word" not in result.output


@pytest.mark.parametrize("command", [["server", "--port", "1"], ["runs"]], ids=["server", "runs"])
def test_a_reader_on_an_empty_database_is_told_what_is_missing(command: list[str]) -> None:
    with guarded_mongod("root", "secret-word") as server:
        with pymongo.MongoClient(server.uri, username="root", password="secret-word") as client:
            client["mlflow"].command("createUser", "reader", pwd="reader-word", roles=["read"])
        uri = f"mongodb://reader:reader-word@127.0.0.1:{server.port}/mlflow?directConnection=true"
        result = CliRunner().invoke(cli, [*command, "--uri", uri])
    assert result.exit_code == 1
    *_, told = result.output.splitlines()
    assert told.startswith("Error: ")
    assert "readWrite" in told
    for noise in ("lsid", "full error", "reader-word", "$db", "Traceback"):
        assert noise not in result.output
