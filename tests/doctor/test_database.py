"""The checks of a database, each on a server that has the fault."""

import re
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner
from mlflow.entities import Metric

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics.documents import SETTLE_EVERY
from genesis_flow.cli.doctor import network, server
from genesis_flow.cli.main import cli
from tests.doctor.helpers import CANARY, examine
from tests.mongod import COMPRESSORS, Mongod, free_port, guarded_mongod, running_mongod

Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "artifacts")


@pytest.fixture
def database(store_uri: str) -> str:
    """The URI of a database that a store has opened."""
    MongoDBStore(store_uri).client.admin.command("ping")
    return store_uri


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    with guarded_mongod("root", CANARY) as running:
        yield running


@pytest.fixture
def user(guarded: Mongod) -> Callable[[str], str]:
    """The URI of a new user with one role on a database that is at head."""
    name = f"doctor_{uuid.uuid4().hex[:8]}"
    root_uri = (
        f"mongodb://root:{CANARY}@127.0.0.1:{guarded.port}/{name}?directConnection=true&authSource=admin"
    )
    MongoDBStore(root_uri).client.admin.command("ping")

    def make(role: str) -> str:
        with Client(root_uri) as client:
            client[name].command("createUser", role, pwd=CANARY, roles=[{"role": role, "db": name}])
        return f"mongodb://{role}:{CANARY}@127.0.0.1:{guarded.port}/{name}?directConnection=true"

    return make


def test_a_sound_database(database: str, root: str) -> None:
    report = examine("--artifact-root", root, "--deep", uri=database)
    assert report.code == 0
    found = {name: report.verdict(name) for name in report.checks}
    assert found.pop("topology") == "warn", "one member has no failover"
    assert set(found.values()) == {"ok"}, report.output
    assert list(found) == [
        *("MLflow", "credentials", "connection", "TLS", "rights", "server", "durability", "clock", "pool"),
        *("schema", "indexes", "secrets", "half-done", "orphans", "agreement", "artifacts"),
    ]
    assert report.checks["topology"]["details"] == {"kind": "replica set", "members": 1}


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        *((text, True) for text in ("6.0.5", "6.0.26", "7.0.0", "8.0.16", "8.2.2", "5.0.31", "4.4.29")),
        *((text, True) for text in ("4.2.25", "3.6.23", "7.3.4", "8.0.16-rc0")),
        *((text, False) for text in ("6.0.27", "7.0.28", "8.0.17", "8.2.3", "5.0.32", "4.4.30")),
        *((text, False) for text in ("8.3.0", "9.0.0", "8.2.10-rc1")),
    ],
)
def test_versions_that_leak_memory_by_zlib(text: str, leaks: bool) -> None:
    assert server._leaks_memory(text) is leaks


@pytest.mark.parametrize("compressors", ["zlib", "snappy,zlib", "zstd", "disabled"])
def test_a_server_that_leaks_memory_by_zlib(root: str, compressors: str) -> None:
    """The mongod of the tests is 6.0.5, which has the flaw; zlib is on unless it is turned off."""
    with running_mongod(replica_set=False, options=(COMPRESSORS, compressors)) as running:
        report = examine("--artifact-root", root, uri=running.database_uri("doctor"))
    version = report.checks["server"]["details"]["version"]
    expected = "zlib" in compressors and server._leaks_memory(version)
    assert report.verdict("server") == ("warn" if expected else "ok")
    assert ("CVE-2025-14847" in report.told("server")) is expected


def test_documents_that_contradict_each_other_are_named(database: str, root: str) -> None:
    store = MongoDBStore(database)
    run = store.create_run("0", "me", 1, [], "a run").info.run_id
    store.log_metric(run, Metric("loss", 1.0, 1, 1))
    with Client(database) as client:
        heads = client.get_default_database()["latest_metrics"]
        heads.update_one({"_id": f"{run}|loss"}, {"$set": {"latest.step": -1}})
    report = examine("--artifact-root", root, "--deep", uri=database)
    assert report.code == 1
    assert report.verdict("agreement") == "fail"
    assert "latest_metrics" in report.told("agreement")
    assert report.checks["agreement"]["advice"]


def test_a_missing_piece_of_a_history_is_named(database: str, root: str) -> None:
    store = MongoDBStore(database)
    run = store.create_run("0", "me", 1, [], "a run").info.run_id
    # So many batches that it is this metric's turn to settle.
    for start in range(0, 2 * SETTLE_EVERY * 1000, 1000):
        points = [Metric("loss", 1.0, step, step) for step in range(start, start + 1000)]
        store.log_batch(run, points, [], [])
    with Client(database) as client:
        blocks = client.get_default_database()["metrics"]
        assert examine("--artifact-root", root, "--deep", uri=database).verdict("agreement") == "ok"
        assert blocks.delete_one({"_id": f"{run}|loss|s00000003"}).deleted_count == 1
    report = examine("--artifact-root", root, "--deep", uri=database)
    assert report.verdict("agreement") == "fail"
    assert f"{run}|loss|s00000004" in report.told("agreement")
    assert "the block before it is missing" in report.told("agreement")


def test_people_get_a_table_and_programs_can_be_strict(database: str, root: str) -> None:
    arguments = ["doctor", "--uri", database, "--artifact-root", root]
    loose = CliRunner().invoke(cli, arguments)
    assert loose.exit_code == 0, loose.output
    assert "ok    connection" in loose.output
    assert "warn  topology" in loose.output
    assert loose.output.splitlines()[-1] == "15 ok, 1 warn"
    assert CliRunner().invoke(cli, [*arguments, "--strict"]).exit_code == 1
    assert CliRunner().invoke(cli, [*arguments, "--tiemout"]).exit_code == 2


def test_an_empty_database_is_not_made(mongod: Mongod, store_uri: str, database_name: str, root: str) -> None:
    report = examine("--artifact-root", root, uri=store_uri)
    assert (report.code, report.verdict("schema")) == (0, "ok")
    assert "empty" in report.told("schema")
    with Client(mongod.uri) as client:
        assert database_name not in client.list_database_names()


def test_an_embedded_database_that_is_not_there_is_not_made(tmp_path: Path, root: str) -> None:
    report = examine("--artifact-root", root, uri=f"genesis://{tmp_path}/nowhere")
    assert (report.code, report.verdict("connection")) == (1, "fail")
    assert "no embedded database" in report.told("connection")
    assert not (tmp_path / "nowhere").exists()


def test_a_server_that_is_away(root: str) -> None:
    # What did not heed the option would be said when the test has failed.
    uri = f"mongodb://ada:{CANARY}@127.0.0.1:{free_port()}/mlflow?serverSelectionTimeoutMS=600000"
    report = examine("--artifact-root", root, "--timeout", "0.5", uri=uri)
    assert (report.code, report.verdict("connection")) == (1, "fail")
    assert "Check that the server runs" in report.told("connection")
    assert report.verdict("artifacts") == "ok", "the other checks go on"
    assert report.verdict("credentials") == "warn", "the password is in the URI"


def test_a_server_that_hangs(guarded: Mongod, root: str) -> None:
    assert guarded.process is not None
    uri = f"mongodb://root:{CANARY}@127.0.0.1:{guarded.port}/mlflow?directConnection=true&authSource=admin"
    uri += "&serverSelectionTimeoutMS=600000&connectTimeoutMS=600000&timeoutMS=600000"
    guarded.process.send_signal(signal.SIGSTOP)
    try:
        report = examine("--artifact-root", root, "--timeout", "1", uri=uri)
    finally:
        guarded.process.send_signal(signal.SIGCONT)
    assert (report.code, report.verdict("connection")) == (1, "fail")


def test_wrong_and_missing_logins(guarded: Mongod, root: str) -> None:
    address = f"127.0.0.1:{guarded.port}/mlflow?directConnection=true&authSource=admin"
    report = examine("--artifact-root", root, uri=f"mongodb://root:not-{CANARY}@{address}")
    assert report.code == 1
    assert "refused the user name or password" in report.told("connection")
    report = examine("--artifact-root", root, uri=f"mongodb://{address}")
    assert (report.code, report.verdict("rights")) == (1, "fail")
    assert "GENESIS_FLOW_MONGODB_USERNAME" in report.told("rights")


def test_rights(user: Callable[[str], str], root: str) -> None:
    report = examine("--artifact-root", root, uri=user("readWrite"))
    assert (report.code, report.verdict("rights")) == (0, "ok")
    assert report.checks["rights"]["details"] == {"read": True, "write": True, "schema": True}
    report = examine("--artifact-root", root, uri=user("read"))
    assert (report.code, report.verdict("rights")) == (0, "warn")
    assert report.checks["rights"]["details"] == {"read": True, "write": False, "schema": False}


def test_a_password_of_the_environment_is_named_by_its_source(
    user: Callable[[str], str], root: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(CANARY)
    report = examine(
        *("--artifact-root", root),
        uri=user("readWrite").replace(f"readWrite:{CANARY}@", ""),
        GENESIS_FLOW_MONGODB_USERNAME="readWrite",
        GENESIS_FLOW_MONGODB_PASSWORD_FILE=str(tmp_path / "password"),
    )
    assert (report.code, report.verdict("credentials")) == (0, "ok")
    assert "GENESIS_FLOW_MONGODB_PASSWORD_FILE" in report.told("credentials")


def test_a_standalone_has_no_transactions(standalone: Mongod, database_name: str, root: str) -> None:
    uri = standalone.database_uri(database_name)
    MongoDBStore(uri).client.admin.command("ping")
    report = examine("--artifact-root", root, uri=uri)
    assert report.checks["topology"]["details"] == {"kind": "standalone"}
    assert report.verdict("topology") == "warn"
    assert report.verdict("half-done") == "ok", "looked for without being asked"


def test_indexes_that_are_missing_or_extra(
    mongod: Mongod, database: str, database_name: str, root: str
) -> None:
    with Client(mongod.uri) as client:
        client[database_name].runs.create_index("artifact_uri", name="by_hand")
        report = examine("--artifact-root", root, uri=database)
        assert (report.code, report.verdict("indexes")) == (0, "warn")
        assert "runs.by_hand" in report.told("indexes")
        client[database_name].experiments.drop_index("name_unique")
        report = examine("--artifact-root", root, uri=database)
    assert (report.code, report.verdict("indexes")) == (1, "fail")
    assert "missing experiments.name_unique" in report.told("indexes")


def test_an_old_schema(mongod: Mongod, database: str, database_name: str, root: str) -> None:
    with Client(mongod.uri) as client:
        ledger = client[database_name].schema_migrations
        (newest,) = ledger.find(sort=[("_id", -1)], limit=1)
        ledger.delete_one({"_id": newest["_id"]})
    report = examine("--artifact-root", root, uri=database)
    assert (report.code, report.verdict("schema")) == (1, "fail")
    assert "genesis-migrate up" in report.told("schema")


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("w=1&journal=false", "w=majority"),
        ("w=1", "w=majority"),
        ("readPreference=secondary", "readPreference"),
    ],
)
def test_weak_guarantees(database: str, root: str, option: str, advice: str) -> None:
    report = examine("--artifact-root", root, uri=f"{database}&{option}")
    assert report.verdict("durability") == "warn"
    assert advice in report.told("durability")


def test_more_connections_than_files(database: str, root: str) -> None:
    report = examine("--artifact-root", root, uri=f"{database}&maxPoolSize=10000000")
    assert report.verdict("pool") == "warn"


@pytest.mark.parametrize(("seconds", "verdict"), [(0.2, "ok"), (-5, "warn"), (4000, "fail")])
def test_clocks_that_disagree(seconds: float, verdict: str) -> None:
    """The one thing that no server here can be brought to do: its answer is made up."""
    from datetime import UTC, datetime, timedelta

    answer = {"localTime": (datetime.now(UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)}
    patient: Any = SimpleNamespace(command=lambda name: answer)
    finding = network.clock(patient)
    assert finding.verdict == verdict
    assert finding.details["seconds"] == pytest.approx(seconds, abs=0.1)


def test_an_old_server() -> None:
    patient: Any = SimpleNamespace(command=lambda name: {"version": "4.4.29"})
    finding = server.version(patient)
    assert (finding.verdict, "6.0" in finding.advice) == ("warn", True)


def test_the_page_lists_every_check(database: str, root: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \|", page.partition("| check |")[2], re.MULTILINE)
    listed = [name for row in rows for name in row.split(", ") if not name.startswith("-")]
    assert sorted(listed) == sorted(examine("--artifact-root", root, "--deep", uri=database).checks)
