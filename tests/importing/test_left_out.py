"""Exit code 0 means everything: what the target has no place for is counted, named, and changes the code."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.store.db.base_sql_model import Base

from genesis_flow.cli.migrate import cli
from genesis_flow.importers.engine import Options, analyze
from genesis_flow.importers.kinds import DERIVED
from genesis_flow.importers.sql.snapshot import Snapshot
from genesis_flow.importers.sql.tables import READ
from tests.importing.jobs import Job, config_for
from tests.importing.people import fill
from tests.importing.registries import fill_gateway, fill_registries
from tests.importing.small_trees import EXPERIMENT, Tree, run_id
from tests.importing.sql_databases import connected, everything, opened, oracle

TABLES = Base.metadata.tables
# What the target has no place for; of workspaces but for the one that every database has.
NOT_YET = frozenset({"jobs", "workspaces"})
# Columns of tables that are read, and why they are not.
NOT_READ = {
    # MLflow tells them to nobody; what they said is in the tags mlflow.source.* of the run.
    "runs": {"source_type", "source_name", "entry_point_name", "source_version"},
    # Copies of what the trace says, and the difference of two times.
    "spans": {"experiment_id", "duration_ns"},
    "assessments": {"experiment_id", "trace_timestamp_ms", "aggregate_value", "is_numeric_value"},
    # How often the row was rewritten, which readers of that database compare.
    "trace_info": {"db_payload_generation"},
    # Copies of what the model says; the dataset is named by its name and digest.
    "logged_model_metrics": {"experiment_id", "dataset_uuid"},
    "logged_model_params": {"experiment_id"},
    "logged_model_tags": {"experiment_id"},
    # A hash of the inputs, which the target makes for itself.
    "evaluation_dataset_records": {"input_hash"},
    # By these the rows are chosen.
    "model_version_tags": {"name"},
    "registered_model_tags": {"name"},
    "registered_model_aliases": {"name"},
    "webhooks": {"deleted_timestamp"},
    # A copy of what the scorer says.
    "online_scoring_configs": {"experiment_id"},
    # By this the rows are chosen.
    "endpoint_bindings": {"display_name"},
    # MLflow sets it nowhere, and tells it to nobody.
    "secrets": {"description"},
    # The target makes it for itself.
    "skills": {"search_text"},
}


JOB = (
    "INSERT INTO jobs (id, creation_time, job_name, params, status, retry_count, last_update_time, "
    "workspace) VALUES ('j', 1, 'n', '{}', 0, 0, 1, 'default')"
)


def execute(path: Path, *statements: str) -> None:
    with connected(path) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, statement


def test_every_table_of_mlflow_is_judged() -> None:
    """A table that the installed MLflow has and this list has not: read it, or name it."""
    judged = [*READ, *DERIVED, *NOT_YET]
    assert len(judged) == len(set(judged))
    assert set(TABLES) - set(judged) == set()


def test_every_column_of_a_table_that_is_read_is_judged(
    newest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[str, str]] = set()
    selected = Snapshot._selected

    def noted(snapshot: Snapshot, table: str, name: str) -> Any:
        asked.add((table, name))
        return selected(snapshot, table, name)

    with oracle(newest) as (store, _):
        fill(store)
        fill_gateway(store)
        fill_registries(store)
    monkeypatch.setattr(Snapshot, "_selected", noted)
    with opened(newest) as source:
        everything(source)
    for table in sorted(READ & set(TABLES)):
        columns = {column.name for column in TABLES[table].columns} - {"workspace"}
        assert columns - {name for of, name in asked if of == table} == NOT_READ.get(table, set()), table


def test_rows_that_have_no_place_are_counted(job: Job, newest: Path) -> None:
    with connected(newest) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for name in sorted(NOT_YET - {"workspaces"}):
            needed = [each.name for each in TABLES[name].columns if not each.nullable or each.primary_key]
            connection.execute(f"DELETE FROM {name}")
            values = ", ".join("1" for _ in needed)
            connection.execute(f"INSERT INTO {name} ({', '.join(needed)}) VALUES ({values})")
        connection.execute("INSERT INTO workspaces (name) VALUES ('team-a')")
    assert job.run(f"sqlite:///{newest}").unsupported == dict.fromkeys(sorted(NOT_YET), 1)


def imported(job: Job, source: str, *options: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, ["--quiet", "--uri", job.uri, "import", source, "--json", *options])
    return done.exit_code, json.loads(done.stdout)


def test_the_exit_code_says_that_rows_were_left_out(job: Job, newest: Path) -> None:
    source = f"sqlite:///{newest}"
    execute(newest, JOB)
    for options in (["--analyze"], []):
        code, answer = imported(job, source, *options)
        assert code == 3
        assert answer["unsupported"] == {"jobs": 1}
    told = CliRunner().invoke(cli, ["--quiet", "--uri", job.uri, "import", source]).stdout
    assert "left out: table jobs, 1 row (the target has no place for them yet)" in told
    assert "Everything is imported" not in told
    listed = CliRunner().invoke(cli, ["--quiet", "--uri", job.uri, "import", "--list"]).stdout
    assert "some things left out" in listed
    execute(newest, "DELETE FROM jobs")
    code, answer = imported(job, source)
    assert (code, answer["unsupported"]) == (0, {})
    # MLflow itself never shows it again.
    assert answer["notes"] == [
        "Webhooks that were deleted (1), which MLflow keeps but never shows, stay behind."
    ]
    assert "Everything is imported" in CliRunner().invoke(cli, ["--uri", job.uri, "import", source]).stdout


def test_of_one_experiment_only_its_own_rows_count(job: Job, newest: Path) -> None:
    """A table that no MLflow has, whose rows say their experiment."""
    execute(newest, "CREATE TABLE of_others (experiment_id INTEGER)", "INSERT INTO of_others VALUES (1)")
    assert imported(job, f"sqlite:///{newest}", "--experiment", "2")[0] == 0
    code, answer = imported(job, f"sqlite:///{newest}", "--experiment", "1")
    assert (code, answer["unsupported"]) == (3, {"of_others": 1})


@pytest.mark.parametrize(
    ("statement", "where", "size"),
    [
        (
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
            "VALUES ('i1', 'DATASET', 'd', 'RUN', 'gone', 0), ('i2', 'DATASET', 'e', 'RUN', 'gone', 0)",
            "table inputs, destination_id=gone",
            2,
        ),
        (
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
            "VALUES ('i1', 'RUN_OUTPUT', 'gone', 'MODEL_OUTPUT', 'm-1', 0)",
            "table inputs, source_id=gone",
            1,
        ),
        (
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
            "VALUES ('i1', 'PROMPT', 'p', 'TRACE', 't', 0)",
            "table inputs, source_type=PROMPT, destination_type=TRACE",
            1,
        ),
        (
            "INSERT INTO entity_associations VALUES ('a1', 'trace', 'gone', 'run', 'r', 1)",
            "table entity_associations, source_id=gone",
            1,
        ),
        (
            "INSERT INTO entity_associations "
            "VALUES ('a1', 'evaluation_dataset', 'gone', 'experiment', '1', 1)",
            "table entity_associations, source_id=gone",
            1,
        ),
    ],
)
def test_links_of_what_is_gone_are_named(
    job: Job, newest: Path, statement: str, where: str, size: int
) -> None:
    execute(newest, statement)
    outcome = job.run(f"sqlite:///{newest}")
    (problem,) = outcome.first_problems
    assert (problem.where, problem.size) == (where, size)


def test_runs_without_their_experiment_are_named_with_all_they_hold(job: Job, newest: Path) -> None:
    execute(newest, "UPDATE runs SET experiment_id = 4711 WHERE name = 'run finished'")
    code, answer = imported(job, f"sqlite:///{newest}")
    assert code == 3
    (reason,) = (each["reason"] for each in answer["problems"] if each["kind"] == "run")
    assert reason == "experiment 4711 is not imported: the source has no such experiment"
    assert answer["skipped"]["metric_point"] > 20


def test_workspaces_are_named_since_the_target_gets_them_as_one(job: Job, newest: Path) -> None:
    execute(
        newest,
        "UPDATE experiments SET workspace = 'team-a' WHERE experiment_id = 2",
        "INSERT INTO registered_models (workspace, name, creation_time) VALUES ('team-b', 'Classifier ü', 7)",
    )
    found = {(each.kind, each.where): each.reason for each in job.run(f"sqlite:///{newest}").first_problems}
    assert found.keys() == {
        ("workspace", "team-a"),
        ("workspace", "team-b"),
        ("registered_model", "Classifier ü of workspace team-b"),
    }
    assert "beside that of other workspaces" in found["workspace", "team-a"]


def test_problems_go_with_what_had_them(job: Job, tree: Tree) -> None:
    """Who deletes what is damaged has mended the source."""
    (tree.root / EXPERIMENT / run_id(1) / "params" / "bad").write_bytes(b"\xff")
    (tree.root / "backup").mkdir()
    assert job.run(tree.uri).problems == 2
    assert job.run(tree.uri).problems == 2
    (tree.root / EXPERIMENT / run_id(1)).rename(tree.root.parent / "away")
    (tree.root / "backup").rmdir()
    assert job.run(tree.uri, experiments=[EXPERIMENT]).problems == 2
    assert job.run(tree.uri).problems == 0


def test_an_analysis_names_the_same(newest: Path, job: Job) -> None:
    execute(newest, JOB)
    outcome = analyze(config_for(job.uri), f"sqlite:///{newest}", Options())
    assert outcome.unsupported == {"jobs": 1}
