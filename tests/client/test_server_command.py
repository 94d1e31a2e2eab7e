"""``genesis-flow server``: starts, answers, tells whether its database does, and stops without a trace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import pymongo
import pytest
import requests
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from genesis_flow import MongoDBStore, embedded
from genesis_flow.cli import server as command
from genesis_flow.cli.main import cli
from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.mongod import Mongod, free_port, guarded_mongod

CANARY = "p4ssw0rd-canary"


class Server:
    """The command in a process of its own, and what it said."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "genesis_flow.cli", "server", "--port", str(port), *options],
                cwd=folder,
                env=user_environment(**environment),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_until(self, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def wait_for_address(self, path: str = "", seconds: float = PATIENCE_SECONDS) -> None:
        self.wait_until(lambda: f"MLflow is at {self.address}{path} (" in self.said, seconds)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.address + path, timeout=PATIENCE_SECONDS)

    def group(self) -> list[str]:
        """The command lines of MLflow's processes, from the one that the command started to the workers."""
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [line for line in (_command_line(pid) for pid in _members(int(child))) if line]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE_SECONDS)


def _members(group: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _group_of(pid) == group]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def make(*options: str, **environment: str) -> Server:
        started.append(Server(tmp_path, *options, **environment))
        return started[-1]

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()
    for directory in tmp_path.glob("*/db"):
        embedded.stop(directory.parent, force=True)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    with guarded_mongod("ada", CANARY) as running:
        yield running


linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked at in /proc")


@linux
@pytest.mark.timeout(900)
def test_a_guarded_server_and_its_bad_day(start: Callable[..., Server], guarded: Mongod) -> None:
    uri = f"mongodb://ada:{CANARY}@127.0.0.1:{guarded.port}/mlflow?directConnection=true&authSource=admin"
    # A probe that waited for the database would do so for longer than the test waits for the probe.
    patient = f"{uri}&serverSelectionTimeoutMS=600000"
    server = start("--workers", "2", GENESIS_FLOW_MONGODB_URI=patient, GENESIS_FLOW_TIMEOUT="600")
    server.wait_for_address()
    server.wait_until(lambda: server.get("/genesis/ready").ok)
    ready = server.get("/genesis/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert (live := server.get("/genesis/live")).json() == {"status": "alive"}, live.text
    assert requests.post(f"{server.address}/genesis/ready", timeout=PATIENCE_SECONDS).status_code == 405
    # A probe names the pod by an address that MLflow knows nothing of.
    probe = {"Host": "203.0.113.9:5000"}
    address = f"{server.address}/genesis/ready"
    server.wait_until(lambda: requests.get(address, headers=probe, timeout=PATIENCE_SECONDS).ok)
    assert (
        requests.get(
            f"{server.address}/api/2.0/mlflow/experiments/get", headers=probe, timeout=PATIENCE_SECONDS
        ).status_code
        == 403
    )

    client = MlflowClient(server.address)
    run_id = client.create_run(client.create_experiment("over http")).info.run_id
    assert MongoDBStore(uri).get_run(run_id).info.run_id == run_id

    server.wait_until(lambda: sum("spawn_main" in line for line in server.group()) == 2)
    assert CANARY not in " ".join(server.group())

    assert guarded.process is not None
    guarded.process.send_signal(signal.SIGSTOP)  # takes connections and answers nothing
    assert server.get("/genesis/ready").status_code == 503
    assert server.get("/genesis/live").ok
    guarded.process.send_signal(signal.SIGCONT)
    server.wait_until(lambda: server.get("/genesis/ready").ok)

    guarded.kill()
    server.wait_until(lambda: server.get("/genesis/ready").status_code == 503)
    answer = server.get("/genesis/ready")
    assert answer.json()["status"] == "not ready"
    assert str(guarded.port) not in answer.text, "who may ask is not told where the database is"
    assert server.get("/genesis/live").ok
    guarded.start()
    server.wait_until(lambda: server.get("/genesis/ready").ok)

    (leader,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert server.stop() == 0
    assert _members(int(leader)) == []
    assert "Stopped." in server.said
    assert "not ready" in server.said.lower()
    assert CANARY not in server.said


@linux
@pytest.mark.timeout(600)
def test_an_embedded_database_without_any_option(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start("--static-prefix", "/ml")
    server.wait_for_address("/ml")
    server.wait_until(lambda: server.get("/ml/genesis/ready").ok)
    assert server.get("/ml/health").ok
    # What a client without the server logs, the server shows, and the reverse: one root for artifacts.
    client = MlflowClient(f"genesis://{tmp_path}/genesis-data")
    answer = requests.post(
        f"{server.address}/ml/api/2.0/mlflow/experiments/create",
        json={"name": "over http"},
        timeout=PATIENCE_SECONDS,
    )
    run = client.create_run(answer.json()["experiment_id"])
    client.log_text(run.info.run_id, "kept", "note.txt")
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/genesis-data/artifacts/")
    shown = server.get(f"/ml/get-artifact?run_id={run.info.run_id}&path=note.txt")
    assert shown.text == "kept"
    _offers_what_it_has(f"{server.address}/ml")
    assert server.stop(signal.SIGINT) == 0
    assert server.process.poll() is not None


def _offers_what_it_has(address: str) -> None:
    """The judges are shown, which MLflow hides where its gateway is off."""
    server_info = requests.get(f"{address}/api/3.0/mlflow/server-info", timeout=PATIENCE_SECONDS).json()
    assert server_info["features_enabled"]["gateway"]
    # Since MLflow 3.18 the page of issues is shown for this alone.
    assert server_info["store_type"] == "SqlStore"


def test_a_server_that_ends_by_itself(start: Callable[..., Server], tmp_path: Path) -> None:
    """MLflow's command then ends with 0, as if all were well."""
    server = start("--uri", f"genesis://{tmp_path}/data", "--uvicorn-opts", "--no-such-option")
    assert server.process.wait(timeout=PATIENCE_SECONDS) == 1
    assert server.said.splitlines()[-1].startswith("Error: The server ended by itself")


def run(*options: str) -> Result:
    return CliRunner().invoke(cli, ["server", *options])


def test_a_port_that_is_taken() -> None:
    with closing(socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = run("--port", str(other.getsockname()[1]), "--uri", "mongodb://127.0.0.1/never-asked")
    assert result.exit_code == 1
    assert "Cannot listen on 127.0.0.1" in result.stderr
    assert "--port" in result.stderr


def test_a_database_that_is_away() -> None:
    uri = f"mongodb://ada:{CANARY}@127.0.0.1:{free_port()}/mlflow?serverSelectionTimeoutMS=300"
    result = run("--port", str(free_port()), "--uri", uri)
    assert result.exit_code == 1
    assert CANARY not in result.output
    (line,) = result.stderr.splitlines()
    assert "127.0.0.1" in line


def test_an_old_schema(mongod: Mongod, store_uri: str, database_name: str) -> None:
    MongoDBStore(store_uri).create_experiment("kept")
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        ledger = client[database_name].schema_migrations
        newest = ledger.find_one(sort=[("_id", -1)])
        assert newest
        ledger.delete_one({"_id": newest["_id"]})
    # In a process of its own: in this one the database is open already.
    done = subprocess.run(
        [sys.executable, "-m", "genesis_flow.cli", "server", "--port", str(free_port()), "--uri", store_uri],
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "genesis-migrate up" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_whole_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment with mlflow-skinny alone, which is not worth installing for one sentence."""
    monkeypatch.setattr(command, "is_whole", lambda: False)
    result = run()
    assert result.exit_code == 1
    assert 'pip install "mlflow' in result.stderr


@pytest.mark.parametrize("options", [("--port", "many"), ("--workers", "0"), ("--artifacts-only",)])
def test_wrong_options(options: tuple[str, ...]) -> None:
    assert run(*options).exit_code == 2


def test_a_uri_of_another_kind() -> None:
    result = run("--backend-store-uri", "sqlite:///mlflow.db")
    assert result.exit_code == 1
    assert "must begin with mongodb://" in result.stderr
