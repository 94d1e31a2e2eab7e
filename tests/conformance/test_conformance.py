"""``genesis-flow conformance`` on servers of several kinds, and on some that lack something."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner
from pymongo.collection import Collection

from genesis_flow import MongoDBStore
from genesis_flow.cli.conformance import server, stores
from genesis_flow.cli.conformance.outcome import Check
from genesis_flow.cli.conformance.trial import PREFIX
from genesis_flow.cli.main import cli
from tests.faults import failing
from tests.mongod import Mongod, free_port, guarded_mongod

CANARY = "p4ssw0rd-canary"
ALL = [check.name for check in (*server.CHECKS, *stores.CHECKS)] + ["clean-up"]

Client = pymongo.MongoClient[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    code: int
    checks: dict[str, dict[str, str]]
    whole: dict[str, Any]
    output: str

    def of(self, verdict: str) -> dict[str, str]:
        return {name: check["why"] for name, check in self.checks.items() if check["verdict"] == verdict}


def run(*options: str, uri: str) -> Report:
    done = CliRunner().invoke(cli, ["conformance", "--uri", uri, "--json", *options])
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["conforms"] is (done.exit_code == 0)
    return Report(done.exit_code, {each["check"]: each for each in report["checks"]}, report, done.output)


def refusal(uri: str) -> str:
    done = CliRunner().invoke(cli, ["conformance", "--uri", uri, "--json"])
    assert (done.exit_code, done.stdout) == (3, "")
    assert CANARY not in done.output
    return done.stderr


def databases(server_uri: str, **login: str) -> set[str]:
    with Client(server_uri, **login) as client:
        return {name for name in client.list_database_names() if name != "local"}


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The checks of these names, for tests of what surrounds them."""
    for module in (server, stores):
        kept = tuple(check for check in module.CHECKS if check.name in names)
        monkeypatch.setattr(module, "CHECKS", kept)


def test_a_replica_set_conforms_and_nothing_else_is_touched(mongod: Mongod, store_uri: str) -> None:
    experiment = MongoDBStore(store_uri).create_experiment("mine")
    before = databases(mongod.uri)
    report = run(uri=store_uri)
    assert list(report.checks) == ALL
    assert (report.of("fail"), report.of("absent"), report.of("skip"), report.code) == ({}, {}, {}, 0)
    assert databases(mongod.uri) == before
    assert [each.name for each in MongoDBStore(store_uri).search_experiments()] == ["mine", "Default"]
    assert MongoDBStore(store_uri).get_experiment(experiment).name == "mine"
    with Client(mongod.uri) as client:
        version = client.server_info()["version"]
    told = {name: report.whole[name] for name in ("service", "version", "topology", "profile")}
    assert told == {
        "service": "MongoDB",
        "version": version,
        "topology": "replica set of 1",
        "profile": "full",
    }


def test_a_standalone_server(standalone: Mongod, database_name: str) -> None:
    before = databases(standalone.uri)
    report = run(uri=standalone.database_uri(database_name))
    assert list(report.checks) == ALL
    assert (report.of("fail"), report.code, report.whole["topology"]) == ({}, 0, "standalone")
    assert set(report.of("skip")) == {"transactions", "conflicts", "retryable writes", "change streams"}
    assert databases(standalone.uri) == before


def test_the_portable_profile(mongod: Mongod, store_uri: str) -> None:
    report = run("--portable", uri=store_uri)
    assert (report.of("fail"), report.code, report.whole["profile"]) == ({}, 0, "portable")
    assert set(report.of("skip")) == {"transactions", "conflicts", "hints", "views"}
    assert "$lookup" not in report.checks["stages"]["why"]


def test_the_embedded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "transactions", "schema", "runs")
    uri = f"genesis://{tmp_path}/data"
    assert "There is no embedded database" in refusal(uri)
    assert not (tmp_path / "data").exists()
    MongoDBStore(uri).create_experiment("mine")
    report = run(uri=uri)
    assert (set(report.of("pass")), report.code) == ({"transactions", "schema", "runs", "clean-up"}, 0)
    assert report.whole["service"] == "MongoDB, embedded"
    assert str(tmp_path) not in report.output


def test_the_page_lists_every_check() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "compatibility.md").read_text()
    rows = page.partition("| checks | look at |")[2].partition("Exit codes")[0].splitlines()
    listed = [name for row in rows[2:] if row for name in row.split(" | ")[0].strip("| ").split(", ")]
    assert sorted(listed) == sorted(ALL)


def test_people_get_a_table(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "numbers", "runs")
    done = CliRunner().invoke(cli, ["conformance", "--uri", store_uri])
    assert done.exit_code == 0
    assert "topology: replica set of 1" in done.output
    assert done.output.rstrip().endswith("3 pass")


@pytest.mark.parametrize(
    ("command", "name"),
    [("createIndexes", "unique indexes"), ("aggregate", "stages"), ("findAndModify", "counters")],
)
def test_what_a_server_refuses_is_named(
    mongod: Mongod, store_uri: str, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    only(monkeypatch, "numbers", name)
    before = databases(mongod.uri)
    with failing(mongod.uri, command, errorCode=115):
        report = run(uri=store_uri)
    assert (set(report.of("fail")), report.code) == ({name}, 1)
    assert report.checks["numbers"]["verdict"] == "pass"
    assert "115" in report.checks[name]["why"] or "CommandNotSupported" in report.checks[name]["why"]
    assert databases(mongod.uri) == before


def test_what_is_not_needed_may_be_absent(
    mongod: Mongod, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "change streams")
    with failing(mongod.uri, "aggregate", errorCode=115):
        report = run(uri=store_uri)
    assert (set(report.of("absent")), report.code) == ({"change streams"}, 0)


def _ignoring(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A server that takes this operator of an update for nothing."""
    original = Collection.update_one

    def update_one(self: Any, query: Any, change: dict[str, Any], **options: Any) -> Any:
        kept = {key: value for key, value in change.items() if key != name}
        return original(self, query, kept or {"$set": {"touched": 1}}, **options)

    monkeypatch.setattr(Collection, "update_one", update_one)


@pytest.mark.parametrize(("operator", "name"), [("$addToSet", "tails"), ("$inc", "conflicts")])
def test_a_server_that_ignores_an_operator_does_not_conform(
    store_uri: str, monkeypatch: pytest.MonkeyPatch, operator: str, name: str
) -> None:
    only(monkeypatch, name)
    _ignoring(monkeypatch, operator)
    report = run(uri=store_uri)
    assert (set(report.of("fail")), report.code) == ({name}, 1)


def test_two_clients_that_both_win_are_found(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "racing params")
    monkeypatch.setattr(stores, "_is_refused", lambda store, run_id, param: False)
    report = run(uri=store_uri)
    assert set(report.of("fail")) == {"racing params"}


def test_an_interruption_leaves_nothing(
    mongod: Mongod, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_trial: object) -> str:
        raise KeyboardInterrupt

    before = databases(mongod.uri)
    monkeypatch.setattr(server, "CHECKS", (server.CHECKS[0], Check("stop", interrupted)))
    done = CliRunner().invoke(cli, ["conformance", "--uri", store_uri])
    assert done.exit_code == 1
    assert "Aborted" in done.output
    assert databases(mongod.uri) == before


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    with guarded_mongod("root", CANARY) as running:
        with Client(running.uri, username="root", password=CANARY) as client:
            any_database = ["readWriteAnyDatabase", "dbAdminAnyDatabase"]
            for name, roles in (("everywhere", any_database), ("writer", any_database[:1])):
                granted = [{"role": role, "db": "admin"} for role in roles]
                client.admin.command("createUser", name, pwd=CANARY, roles=granted)
            mine = [{"role": "dbOwner", "db": "mlflow"}]
            client["mlflow"].command("createUser", "owner", pwd=CANARY, roles=mine)
        yield running


def login(guarded: Mongod, user: str, source: str = "admin", password: str = CANARY) -> str:
    return f"mongodb://{user}:{password}@127.0.0.1:{guarded.port}/mlflow?directConnection=true&authSource={source}"


@pytest.mark.parametrize(
    ("user", "source", "lacks"),
    [("owner", "mlflow", "createCollection"), ("writer", "admin", "dropDatabase")],
)
def test_who_may_not_make_and_drop_databases_is_told(
    guarded: Mongod, user: str, source: str, lacks: str
) -> None:
    told = refusal(login(guarded, user, source))
    assert lacks in told
    assert "readWriteAnyDatabase" in told
    names = databases(guarded.uri, username="root", password=CANARY)
    assert not [name for name in names if name.startswith(PREFIX)]


def test_a_report_can_be_posted(guarded: Mongod, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "schema", "racing params")
    with failing(login(guarded, "root"), "find", app="conformance", errorCode=2):
        report = run(uri=login(guarded, "everywhere"))
    assert set(report.of("fail")) >= {"schema"}
    for secret in (CANARY, "everywhere", "127.0.0.1", str(guarded.port)):
        assert secret not in report.output


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT", "500")
    assert "Cannot reach" in refusal(f"mongodb://127.0.0.1:{free_port()}/mlflow")


def test_a_wrong_password(guarded: Mongod) -> None:
    assert "refused the user name or password" in refusal(login(guarded, "everywhere", password=f"{CANARY}x"))
