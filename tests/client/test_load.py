"""``genesis-flow load`` on a real server: clients are processes, and nothing of the test stays."""

import json
import multiprocessing
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner

from genesis_flow import MongoDBStore
from genesis_flow.cli.load import trial
from genesis_flow.cli.load.client import serve
from genesis_flow.cli.load.figures import Figures
from genesis_flow.cli.main import cli
from genesis_flow.core.settings import Settings
from tests.mongod import Mongod

OLD = "genesis_flow_load_1700000000_0123abcd_runs"
Database = pymongo.database.Database[dict[str, Any]]


@pytest.fixture(scope="module")
def uri(mongod: Mongod) -> Iterator[str]:
    name = f"load_{uuid.uuid4().hex[:12]}"
    yield mongod.database_uri(name)
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


@pytest.fixture
def database(uri: str) -> Iterator[Database]:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        yield client.get_default_database()


def collections(database: Database) -> set[str]:
    """But for MongoDB's own: where there was a view once, it keeps an empty list of views."""
    return {name for name in database.list_collection_names() if not name.startswith("system.")}


def run(uri: str, *words: str) -> Any:
    return CliRunner().invoke(cli, ["load", "--clients", "2", "--seconds", "1", *words, uri])


def test_clients_work_and_leave_nothing_behind(uri: str, database: Database, tmp_path: Path) -> None:
    recent = f"genesis_flow_load_{int(time.time())}_0123abcd_runs"
    for name in ("mine", OLD, recent):
        database.create_collection(name)
    done = run(uri, "--json", "--html", str(tmp_path / "report.html"))
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    calls = {each["call"]: each["calls"] for each in report["calls"]}
    # However slow the machine is: each client begins with a run.
    assert calls["create_run"] >= 2
    assert calls["all"] == sum(calls.values()) - calls["all"]
    assert (report["clients"], report["seconds"], report["errors"]) == (2, 1, [])
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # What is an hour old was left by a test that was killed; another one may still go on.
    assert collections(database) == {"mine", recent}
    database.drop_collection(recent)


def test_a_test_that_ends_early_leaves_nothing_behind_either(
    uri: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = collections(database)
    seen: list[str] = []

    def measure(settings: Settings, *_: Any) -> Figures:
        store = MongoDBStore.from_settings(settings)
        store.create_experiment("load")
        store.close()
        seen.extend(collections(database))
        raise trial.LoadError("A client ended before its time: what it printed says why.")

    monkeypatch.setattr(trial, "measure", measure)
    done = run(uri)
    assert done.exit_code == 1
    assert done.stderr.endswith("Error: A client ended before its time: what it printed says why.\n")
    assert len({*seen} - before) > 10
    assert collections(database) == before


def test_a_client_that_cannot_begin_says_why(store_uri: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        serve(Settings.resolve(store_uri, environ={}), "404", 1.0, theirs)
        assert "No Experiment with id=404" in ours.recv()
