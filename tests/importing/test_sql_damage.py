"""Damaged SQL databases: every loss is told with its place and reason, and nothing else is lost."""

from pathlib import Path

import pytest

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Item, Problem, Record, Series
from tests.importing.sql_databases import (
    body,
    connected,
    counted,
    everything,
    opened,
    problems_of,
)


def read(path: Path) -> list[Item]:
    with opened(path) as source:
        return everything(source)


def damage(path: Path, *statements: str) -> None:
    with connected(path) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, statement


def run_id_of(items: list[Item], name: str) -> str:
    (found,) = (
        item.id
        for item in items
        if isinstance(item, Record) and item.kind == "run" and item.body["name"] == name
    )
    return found


@pytest.mark.parametrize(
    ("child", "insert", "kind", "rows"),
    [
        ("params", "(key, value, run_uuid) VALUES ('a', 'b', 'gone'), ('c', 'd', 'gone')", "run", 2),
        ("tags", "(key, value, run_uuid) VALUES ('a', 'b', 'gone')", "run", 1),
        (
            "metrics",
            "(key, value, timestamp, step, is_nan, run_uuid) VALUES ('a', 1, 1, 1, 0, 'gone')",
            "metric",
            1,
        ),
        ("experiment_tags", "(key, value, experiment_id) VALUES ('a', 'b', 4711)", "experiment", 1),
        ("trace_tags", "(key, value, request_id) VALUES ('a', 'b', 'gone')", "trace", 1),
        ("trace_request_metadata", "(key, value, request_id) VALUES ('a', 'b', 'gone')", "trace", 1),
        (
            "spans",
            "(trace_id, span_id, experiment_id, status, start_time_unix_nano, content) "
            "VALUES ('gone', '1', 1, 'OK', 1, '{}')",
            "span",
            1,
        ),
        ("input_tags", "(input_uuid, name, value) VALUES ('gone', 'a', 'b')", "run", 1),
        (
            "logged_model_tags",
            "(model_id, experiment_id, tag_key, tag_value) VALUES ('gone', 1, 'a', 'b')",
            "logged_model",
            1,
        ),
        (
            "model_versions",
            "(workspace, name, version, current_stage) VALUES ('default', 'gone', 1, 'None')",
            "model_version",
            1,
        ),
        (
            "model_version_tags",
            "(workspace, name, version, key, value) VALUES ('default', 'Classifier ü', 99, 'a', 'b')",
            "model_version",
            1,
        ),
        ("webhook_events", "(webhook_id, entity, action) VALUES ('gone', 'a', 'b')", "webhook", 1),
        (
            "evaluation_dataset_tags",
            "(dataset_id, key, value) VALUES ('gone', 'a', 'b')",
            "evaluation_dataset",
            1,
        ),
    ],
)
def test_rows_without_their_owner_are_told(
    newest: Path, child: str, insert: str, kind: str, rows: int
) -> None:
    before = counted(read(newest))
    damage(newest, f"INSERT INTO {child} {insert}")
    items = read(newest)
    (problem,) = problems_of(items)
    assert (problem.kind, problem.size) == (kind, rows)
    assert problem.where.startswith(f"table {child}, ")
    assert f"{rows} rows belong to nothing" in problem.reason
    assert counted(items) == before


def test_text_that_is_no_utf8(newest: Path) -> None:
    before = counted(read(newest))
    damage(
        newest,
        "UPDATE params SET value = CAST(x'FF41' AS TEXT) WHERE key = 'lr'",
        "UPDATE tags SET value = CAST(x'C328' AS TEXT) WHERE key = 'quote'",
        "UPDATE registered_model_tags SET value = CAST(x'C328' AS TEXT) WHERE key = 'multi'",
        "UPDATE metrics SET key = CAST(x'C328' AS TEXT) WHERE key = 'same step'",
        "UPDATE runs SET user_id = CAST(x'C328' AS TEXT) WHERE name = 'elsewhere'",
    )
    items = read(newest)
    told = {problem.where.partition(",")[0] for problem in problems_of(items)}
    assert told == {
        "table params",
        "table tags",
        "table registered_model_tags",
        "table metrics",
        "table runs",
    }
    assert all("UTF-8" in problem.reason for problem in problems_of(items))
    run = body(items, "run", run_id_of(items, "run finished"))
    assert "lr" not in run["params"]
    assert run["params"]["größe"] == "ÿ\u4e2d\U0001f600"
    assert run["tags"]["kind"] == "all"
    counts = counted(items)
    assert counts["run"] == before["run"] - 1
    # Three points with the key; 20 of the run that is lost, which is told once.
    assert counts["point"] == before["point"] - 3 - 20 + 1


def test_values_that_are_no_numbers(newest: Path) -> None:
    before = counted(read(newest))
    finished = run_id_of(read(newest), "run finished")
    damage(
        newest,
        f"UPDATE metrics SET value = 'many' WHERE key = 'loss' AND step = 3 AND run_uuid = '{finished}'",
        f"UPDATE metrics SET step = 1.5 WHERE key = 'loss' AND step = 4 AND run_uuid = '{finished}'",
        f"UPDATE metrics SET timestamp = 'now' WHERE key = 'loss' AND step = 5 AND run_uuid = '{finished}'",
        "UPDATE trace_info SET timestamp_ms = 'soon' WHERE client_request_id = 'client-2'",
        "UPDATE experiments SET creation_time = 'once' WHERE name = 'other'",
    )
    items = read(newest)
    problems = problems_of(items)
    reasons = sorted(problem.reason for problem in problems if problem.kind == "metric")
    assert reasons == [
        "step is not a whole number: 1.5",
        "timestamp is not a whole number: 'now'",
        "value is not a number: 'many'",
    ]
    assert sorted(problem.kind for problem in problems if problem.kind != "metric") == ["experiment", "trace"]
    counts = counted(items)
    assert counts["point"] == before["point"] - 3
    assert counts["trace"] == before["trace"] - 1
    (loss,) = (
        item for item in items if isinstance(item, Series) and (item.run_id, item.key) == (finished, "loss")
    )
    assert sorted(loss.steps) == [step for step in range(20) if step not in (3, 4, 5)]


def test_rows_without_an_id(newest: Path) -> None:
    before = counted(read(newest))
    damage(
        newest,
        "CREATE TABLE loose AS SELECT * FROM webhooks",
        "DROP TABLE webhooks",
        "ALTER TABLE loose RENAME TO webhooks",
        "UPDATE webhooks SET webhook_id = NULL WHERE name = 'off'",
    )
    items = read(newest)
    told = {(problem.where, problem.reason) for problem in problems_of(items)}
    assert ("table webhooks", "1 rows have no webhook_id") in told
    assert counted(items)["webhook"] == before["webhook"] - 1


def test_a_dataset_that_is_gone(newest: Path) -> None:
    damage(newest, "DELETE FROM datasets WHERE name = 'eval'")
    items = read(newest)
    problems = problems_of(items)
    assert [problem.kind for problem in problems] == ["run"]
    assert "which is not in the table datasets" in problems[0].reason
    run = body(items, "run", run_id_of(items, "run finished"))
    assert [used["name"] for used in run["inputs"]] == ["train ☃"]


def test_a_broken_page_of_the_file(newest: Path) -> None:
    """What SQLite cannot read at all ends the import with a sentence, not with fewer items."""
    size = newest.stat().st_size
    with newest.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xde\xad" * 20_000)
    with pytest.raises(ImportFailed, match="malformed"):
        read(newest)


def test_problems_name_their_rows(newest: Path) -> None:
    damage(newest, "UPDATE assessments SET created_timestamp = 'x' WHERE name = 'score'")
    problems = problems_of(read(newest))
    assert problems
    for problem in problems:
        assert isinstance(problem, Problem)
        assert problem.where.startswith("table assessments, assessment_id=a-")
        assert problem.reason == "created_timestamp is not a whole number: 'x'"
