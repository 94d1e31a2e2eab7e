"""Imports from SQL as people run them: again, later, from damaged databases."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import ViewType

from genesis_flow.importers.engine import Options, Outcome, analyze, run_import
from genesis_flow.importers.errors import ImportFailed, Stopped
from genesis_flow.importers.sql import open_sql
from genesis_flow.migrate.config import load_config
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.sql_databases import ARTIFACT_ROOT, connected, unpacked
from tests.mongod import Mongod, unique


class Job:
    """A source and a target."""

    def __init__(self, path: Path, uri: str) -> None:
        self.path, self.uri = path, uri
        self.store = MongoDBStore(uri, ARTIFACT_ROOT)

    def run(self, how: Any = run_import, **options: Any) -> Outcome:
        outcome: Outcome = how(
            load_config(self.uri, environ={}), f"sqlite:///{self.path}", Options(**options)
        )
        return outcome

    def execute(self, *statements: str) -> None:
        with connected(self.path) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount, statement

    def one(self, query: str) -> Any:
        with connected(self.path) as connection:
            return connection.execute(query).fetchone()[0]


@pytest.fixture
def job(mongod: Mongod, tmp_path: Path) -> Iterator[Job]:
    name = unique("import_sql_jobs")
    yield Job(unpacked("3.17.2", tmp_path), mongod.database_uri(name))
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def written(outcome: Outcome) -> dict[str, int]:
    return {name: count for name, count in outcome.stats.written.items() if count}


def test_a_later_import_brings_what_is_new(job: Job) -> None:
    assert job.run().problems == 0
    assert written(job.run()) == {}
    running = job.one("SELECT run_uuid FROM runs WHERE name = 'run running'")
    job.execute(
        f"""INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
            VALUES ('loss', 0.01, 1700000000000, 20, 0, '{running}'),
                   ('fresh', 0.5, 1700000000000, 0, 0, '{running}')""",
        "UPDATE latest_metrics SET value = 0.01, step = 20, timestamp = 1700000000000 "
        f"WHERE key = 'loss' AND run_uuid = '{running}'",
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
        f"VALUES ('fresh', 0.5, 1700000000000, 0, 0, '{running}')",
        f"UPDATE runs SET status = 'FINISHED', end_time = 1700000000001 WHERE run_uuid = '{running}'",
        "INSERT INTO runs (run_uuid, name, user_id, start_time, status, lifecycle_stage, experiment_id) "
        f"VALUES ('{'e' * 32}', 'late', 'ada', 1, 'FINISHED', 'active', 1)",
        "UPDATE trace_info SET status = 'OK' WHERE client_request_id = 'client-2'",
        "INSERT INTO registered_models (workspace, name, creation_time) VALUES ('default', 'late model', 7)",
    )
    outcome = job.run()
    assert outcome.problems == 0
    assert written(outcome) == {"latest_metrics": 2, "registered_models": 1, "runs": 2, "traces": 1}
    run = job.store.get_run(running)
    assert run.data.metrics["loss"] == 0.01
    assert run.data.metrics["fresh"] == 0.5
    assert run.info.status == "FINISHED"
    assert len(job.store.get_metric_history(running, "loss")) == 21
    assert job.store.get_run("e" * 32).info.run_name == "late"
    assert written(job.run()) == {}


def test_damage_is_told_and_the_rest_arrives(job: Job) -> None:
    job.execute(
        "UPDATE params SET value = CAST(x'FF' AS TEXT) WHERE key = 'lr'",
        "INSERT INTO params (key, value, run_uuid) VALUES ('a', 'b', 'gone')",
        "UPDATE metrics SET value = 'many' WHERE key = 'same step' AND step = 1 AND value = 5.0",
        "UPDATE spans SET content = '[1' WHERE name = 'tool'",
        "UPDATE runs SET experiment_id = 4711 WHERE name = 'elsewhere'",
        "UPDATE assessments SET value = '{' WHERE name = 'score'",
    )
    outcome = job.run()
    told = {(problem.kind, problem.reason.partition(":")[0]) for problem in outcome.first_problems}
    assert told >= {
        ("run", "value is not UTF-8 text"),
        ("run", "1 rows belong to nothing"),
        ("metric", "value is not a number"),
        ("span", "its content is no JSON object"),
        ("run", "experiment 4711 is not imported"),
        ("assessment", "its value or metadata is no JSON"),
    }
    runs = job.store.search_runs(["1", "2", "3"], "", ViewType.ALL, 100)
    assert len(runs) == 8
    assert len(job.store.get_metric_history(_finished(job), "same step")) == 2
    with pytest.raises(Stopped):
        job.run(stop_on_error=True)


def _finished(job: Job) -> str:
    return str(job.one("SELECT run_uuid FROM runs WHERE name = 'run finished'"))


def test_an_analysis_reads_all_and_writes_nothing(job: Job) -> None:
    job.store.search_experiments()
    outcome = job.run(analyze)
    assert outcome.stats.read["metric_point"] == 2800
    assert outcome.stats.read["span"] == 7
    assert outcome.unsupported == {}
    assert len(job.store.search_experiments(ViewType.ALL)) == 1


def test_without_sqlalchemy_a_sentence_says_what_to_install(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ImportFailed, match=r"pip install -e '\.\[import\]'"):
        open_sql(f"sqlite:///{job.path}")
