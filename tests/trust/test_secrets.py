"""TLS, passwords and certificates for real; and a password that must appear nowhere."""

import base64
import json
import os
import pprint
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
import requests
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBModelRegistryStore as AsyncRegistry
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.client.serving import mlflow_server
from tests.trust.secure import PASSWORD, SecureServer

CHATTY = Path(__file__).with_name("chatty.py")
ROOT = Path(__file__).parents[2]
FORMS = {
    "plain": PASSWORD,
    "percent-encoded": quote(PASSWORD, safe=""),
    "percent-encoded, but for the slash": quote(PASSWORD),
    "base64": base64.b64encode(PASSWORD.encode()).decode(),
    "its first half": PASSWORD[:9],
}


def leaks(text: str | bytes) -> list[str]:
    """The forms in which the password appears."""
    seen = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [form for form, secret in FORMS.items() if secret in seen]


@pytest.fixture
def name() -> str:
    return f"secret_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def scram(secure: SecureServer, name: str) -> str:
    """The URI of a user with a password."""
    secure.add_user(name, "ann", "readWrite")
    return secure.uri(name, user="ann")


async def works(uri: str) -> None:
    blocking = MongoDBStore(uri)
    made = blocking.create_experiment("e")
    async with AsyncStore(uri) as store:
        assert (await store.get_experiment(made)).name == "e"
    blocking.close()


async def test_scram_over_tls(scram: str) -> None:
    await works(scram)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_both_kinds_of_scram(secure: SecureServer, name: str, mechanism: str) -> None:
    secure.add_user(name, "ann", "readWrite")
    await works(secure.uri(name, user="ann", authMechanism=mechanism))


async def test_x509(secure: SecureServer, name: str) -> None:
    with secure.root() as client:
        client["$external"].command(
            "createUser", secure.certificates.subject, roles=[{"role": "readWrite", "db": name}]
        )
    try:
        await works(secure.x509_uri(name))
    finally:
        with secure.root() as client:
            client["$external"].command("dropUser", secure.certificates.subject)


@pytest.mark.parametrize("source", ["variable", "file", "command"])
async def test_credentials_beside_the_uri(
    secure: SecureServer, name: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.add_user(name, "ann", "readWrite")
    (tmp_path / "password").write_text(PASSWORD + "\n")
    monkeypatch.setenv("GENESIS_FLOW_MONGODB_USERNAME", "ann")
    variable, value = {
        "variable": ("GENESIS_FLOW_MONGODB_PASSWORD", PASSWORD),
        "file": ("GENESIS_FLOW_MONGODB_PASSWORD_FILE", str(tmp_path / "password")),
        "command": ("GENESIS_FLOW_MONGODB_PASSWORD_COMMAND", f"cat {tmp_path}/password"),
    }[source]
    monkeypatch.setenv(variable, value)
    await works(secure.uri(name))


def test_a_server_whose_certificate_is_not_trusted_gets_no_password(
    secure: SecureServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "600")  # what is said late is said when the test has failed
    other = secure.uri(name, user="ann", tlsCAFile=str(secure.certificates.other_ca))
    with pytest.raises(MlflowException, match="certificate") as caught:
        MongoDBStore(other + "&serverSelectionTimeoutMS=1000").search_experiments()
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert not leaks(str(caught.value))
    for missing in ("tlsCAFile", "tlsCertificateKeyFile"):
        with pytest.raises(MlflowException) as caught:
            MongoDBStore(
                secure.uri(name, user="ann", **{missing: str(tmp_path / "nothing.pem")})
            ).search_experiments()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE", caught.value
        assert not leaks(str(caught.value))


def test_a_wrong_password_is_one_sentence(secure: SecureServer, scram: str, name: str) -> None:
    with pytest.raises(MlflowException, match="refused the user name or password") as caught:
        MongoDBStore(secure.uri(name, user="ann", password=PASSWORD + "x")).search_experiments()
    assert caught.value.error_code == "UNAUTHENTICATED"
    assert not leaks(str(caught.value))


@pytest.mark.parametrize("place", ["in the URI", "in the environment"])
def test_a_password_appears_nowhere(
    secure: SecureServer, scram: str, name: str, place: str, tmp_path: Path
) -> None:
    """Everything logged at DEBUG, pymongo's loggers too; every error; every file; the database; its log."""
    in_environment = place == "in the environment"
    uri = (secure.uri(name) if in_environment else scram) + "&serverSelectionTimeoutMS=1500"
    away = uri.replace(f":{secure.mongod.port}/", ":9/")
    wrong = uri.replace(f"/{name}?", "/elsewhere?")
    environment = user_environment(URIS=json.dumps([uri, wrong, away]), PYTHONPATH=str(ROOT))
    if in_environment:
        environment |= {
            "GENESIS_FLOW_MONGODB_USERNAME": "ann",
            "GENESIS_FLOW_MONGODB_PASSWORD": PASSWORD,
            "TRACKING": uri,
        }
    done = subprocess.run(
        [sys.executable, str(CHATTY)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert b"saslStart" in done.stderr or b"Connection ready" in done.stderr, "pymongo logged nothing"
    assert done.stdout.count(b"MlflowException") >= 9
    for what, text in (("output", done.stdout), ("logs", done.stderr)):
        assert not leaks(text), f"the {what} show it: {context(text)}"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not leaks(path.read_bytes()), f"{path} holds it"
    with secure.root() as client:
        for collection in client[name].list_collection_names(filter={"type": "collection"}):
            if collection.startswith("system."):
                continue
            assert not leaks(str(list(client[name][collection].find()))), f"{collection} holds it"
    assert not leaks((secure.mongod.folder / "mongod.log").read_bytes())


def context(text: bytes) -> str:
    seen = text.decode("utf-8", "replace")
    place = min(seen.find(secret) for secret in FORMS.values() if secret in seen)
    return seen[max(0, place - 300) : place + 100]


def test_nothing_that_the_server_shows_holds_the_password(
    secure: SecureServer, scram: str, name: str, tmp_path: Path
) -> None:
    """MLflow's own server, with the credentials in its environment: responses, log, command lines, files."""
    environment = {
        "GENESIS_FLOW_MONGODB_USERNAME": "ann",
        "GENESIS_FLOW_MONGODB_PASSWORD": PASSWORD,
        "MLFLOW_LOGGING_LEVEL": "DEBUG",
        # Processes of jobs have command lines, too.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
        "MLFLOW_SERVER_JOB_EXECUTION_ENGINE": "executor",
        "PYTHONPATH": str(ROOT),
    }
    with mlflow_server(secure.uri(name), tmp_path, **environment) as (address, process):
        shown = [*responses(address), command_lines(process.pid)]
    assert any("created by the test" in each for each in shown)
    for text in [*shown, (tmp_path / "log").read_text()]:
        assert not leaks(text), text[:2000]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not leaks(path.read_bytes()), path


def test_no_dump_of_a_store_shows_the_password(scram: str) -> None:
    """Before its first call, after it, and closed; whatever its objects and those of others hold."""
    kinds = (MongoDBStore, MongoDBModelRegistryStore)
    stores = [kind(scram) for kind in kinds]
    for store in stores:
        assert shown(store) == []
    run_id = stores[0].create_run("0", "me", 1, [], "a run").info.run_id
    stores[0].get_run(run_id)
    stores[1].search_registered_models()
    for store in stores:
        assert shown(store) == []
        assert not leaks(f"{store.__dict__} {store} {store!r} {pprint.pformat(vars(store))}")
        store.close()
        assert shown(store) == []


@pytest.mark.parametrize("kind", [AsyncStore, AsyncRegistry])
async def test_no_dump_of_an_asynchronous_store_shows_it(
    scram: str, kind: type[AsyncStore | AsyncRegistry]
) -> None:
    async with kind(scram) as store:
        assert shown(store) == []
        assert not leaks(f"{store.__dict__} {store} {store!r} {pprint.pformat(vars(store))}")
    assert shown(store) == []


def test_a_dump_would_see_a_password() -> None:
    @dataclass(slots=True)
    class Holder:
        held: dict[str, list[str]]

    held = Holder({"uris": [f"mongodb://ann:{PASSWORD}@db/"]})
    assert shown(held) == [".held", ".held[uris]", ".held[uris][0]"]
    assert shown(Holder({"uris": ["mongodb://db/"]})) == []


def shown(thing: object) -> list[str]:
    """Where a walk through all attributes and items finds the password in a text.

    It ends at PyMongo's objects, whose texts are read: they keep it for connections to come.
    """
    found: list[str] = []
    seen: dict[int, object] = {}

    def walk(each: object, path: str) -> None:
        if id(each) in seen:
            return
        seen[id(each)] = each
        if leaks(each if isinstance(each, str | bytes) else f"{each!r} {each}"):
            found.append(path)
        if type(each).__module__.partition(".")[0] in ("pymongo", "bson", "beanie", "mlflow", "asyncio"):
            return
        for name, part in parts(each):
            walk(part, path + name)

    walk(thing, "")
    return [path for path in found if path]


def parts(thing: object) -> Iterator[tuple[str, object]]:
    if isinstance(thing, Mapping):
        for key, value in list(thing.items()):
            yield f"[{key}]", key
            yield f"[{key}]", value
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(list(thing)))
    elif not isinstance(thing, type | ModuleType):
        slots = (name for kind in type(thing).__mro__ for name in kind.__dict__.get("__slots__", ()))
        held = [(name, getattr(thing, name, None)) for name in slots]
        yield from ((f".{name}", part) for name, part in [*held, *getattr(thing, "__dict__", {}).items()])


# Commands one after the other in one process, which loads MLflow once; then how they ended.
COMMANDS = """
import json, sys
from genesis_flow.cli.main import cli as genesis_flow
from genesis_flow.cli.migrate import cli as migrate

ends = {}
for line, command, arguments in (
    ("doctor", genesis_flow, ["--debug", "doctor", "--timeout", "2"]),
    ("doctor --json", genesis_flow, ["--debug", "doctor", "--json"]),
    ("migrate up --json", migrate, ["up", "--json"]),
    ("migrate status", migrate, ["status"]),
):
    try:
        command.main(arguments)
    except SystemExit as end:
        ends[line] = end.code
print("\\n" + json.dumps(ends))
"""


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD + "x"], ids=["right", "wrong"])
def test_no_command_shows_the_password(
    secure: SecureServer, scram: str, name: str, password: str, tmp_path: Path
) -> None:
    uri = secure.uri(name, user="ann", password=password)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env=user_environment(GENESIS_FLOW_MONGODB_URI=uri, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    said, _, ends = done.stdout.rstrip().rpartition("\n")
    codes = json.loads(ends)
    assert len(codes) == 4
    assert {code == 0 for code in codes.values()} == {password == PASSWORD}, (codes, said, done.stderr)
    assert "No such option" not in done.stderr
    assert len((said + done.stderr).splitlines()) > len(codes)
    assert not leaks(said + done.stderr)


def responses(address: str) -> list[str]:
    found = []
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("post", "experiments/create", {"name": "created by the test"}),
        ("post", "experiments/create", {"name": "created by the test"}),
        ("post", "experiments/search", {"max_results": 10}),
        ("post", "experiments/search", {"max_results": 10, "filter": "nonsense ="}),
        ("post", "runs/create", {"experiment_id": "0", "start_time": 1, "user_id": "u"}),
        ("get", "runs/get?run_id=nothing", {}),
        ("get", "runs/get", {}),
        ("post", "registered-models/create", {"name": "m"}),
        ("get", "registered-models/get?name=nothing", {}),
        ("post", "traces/search", {"nonsense": True}),
    ]
    for method, path, body in asked:
        answer = requests.request(method, f"{address}/api/2.0/mlflow/{path}", json=body or None, timeout=30)
        found.append(f"{answer.status_code} {answer.headers} {answer.text}")
    for path in (
        "",
        "version",
        "health",
        "no/such/page",
        "api/3.0/mlflow/server-info",
        "ajax-api/3.0/mlflow/ui-telemetry",
    ):
        answer = requests.get(f"{address}/{path}", timeout=30)
        found.append(f"{answer.status_code} {answer.headers} {answer.text}")
    return found


def command_lines(session: int) -> str:
    """The command lines and titles of a session's processes; empty where there is no /proc."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == session:
                lines.append((entry / "cmdline").read_text() + (entry / "comm").read_text())
        except (OSError, ProcessLookupError):
            continue
    return "\n".join(lines)


SOCKETS = """
import sys
seen = set()
def audit(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        seen.add(f"{event} {arguments[1] if event in ('socket.connect', 'socket.sendto') else arguments[0]}")
sys.addaudithook(audit)
import mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
with mlflow.start_run() as run:
    mlflow.log_param("p", 1)
    mlflow.log_metric("m", 1.0)
    mlflow.log_text("text", "artifact.txt")
with mlflow.start_span("s"):
    pass
mlflow.flush_trace_async_logging()
client = MlflowClient()
client.create_registered_model("m")
client.create_model_version("m", run.info.artifact_uri, run.info.run_id)
client.search_model_versions()
mlflow.search_runs()
mlflow.search_traces(return_type="list", locations=["0"])
import json
print(json.dumps(sorted(seen)))
"""


def test_no_socket_is_opened_but_to_the_database(secure: SecureServer, scram: str, tmp_path: Path) -> None:
    """MLflow's own telemetry is off, as everywhere in the tests."""
    environment = user_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", SOCKETS, scram],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    host = f"('127.0.0.1', {secure.mongod.port})"
    assert f"socket.connect {host}" in seen
    assert [
        each for each in seen if each not in (f"socket.connect {host}", "socket.getaddrinfo 127.0.0.1")
    ] == []
