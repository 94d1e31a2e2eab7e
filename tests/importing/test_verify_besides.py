"""What `--verify` names besides differences: what is left out, added, or contradicts itself in the source."""

import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow import MongoDBStore
from tests.importing.trees import unpack
from tests.importing.verifying import bring, check, unpack_sql
from tests.mongod import Mongod, unique


@pytest.fixture(scope="module")
def imported(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database into which the newest SQL fixture was imported."""
    uri = mongod.database_uri(name := unique("besides"))
    bring(uri, unpack_sql("3.17.2", tmp_path_factory.mktemp("besides")))
    yield uri
    with pymongo.MongoClient[dict[str, object]](mongod.uri) as client:
        client.drop_database(name)


def _executed(source: str, *statements: str) -> None:
    with sqlite3.connect(source.removeprefix("sqlite:///")) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_the_latest_point_counts_where_its_history_was_pruned(store_uri: str, tmp_path: Path) -> None:
    source = unpack_sql("3.17.2", tmp_path)
    bring(store_uri, source)
    run = "run_uuid = (SELECT run_uuid FROM runs WHERE name = 'child') AND key = 'loss'"
    # The row that latest_metrics keeps is all that tells of the point: it is one of the source's still.
    _executed(source, f"DELETE FROM metrics WHERE {run} AND step = 19")
    assert check(store_uri, source).outcome.differences == []
    # A later one, which no row of the table of points tells of, is what MLflow answers.
    _executed(source, f"UPDATE latest_metrics SET value = 0.25, step = 500 WHERE {run}")
    found = check(store_uri, source)
    assert found.exit_code == 1
    named = {each.field: (each.source, each.target) for each in found.outcome.differences}
    assert named["latest.value"] == ("0.25", "0.05")
    assert named["latest.step"] == ("500", "19")


def test_points_that_wait_to_become_part_of_their_metric_are_compared(store_uri: str, tmp_path: Path) -> None:
    source = unpack_sql("3.17.2", tmp_path)
    bring(store_uri, source)
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        heads = client.get_default_database()["latest_metrics"]
        head = next(each for each in heads.find() if len(each["tail"]) > 2)
        *kept, (time, step, value) = sorted(head["tail"], key=lambda point: (point[1], point[0]))
        latest = {"step": kept[-1][1], "timestamp": kept[-1][0], "value": kept[-1][2]}
        heads.update_one({"_id": head["_id"]}, {"$set": {"tail": kept, "latest": latest}})
        assert check(store_uri, source).exit_code == 1, "a point is missing"
        row = {"n": 1, "timestamps": time, "steps": step, "values": struct.pack("<d", value)}
        copied = {name: head[name] for name in ("workspace", "run_uuid", "experiment_id", "active")}
        place = {"_id": f"{head['run_uuid']}|\t|one", "key": "\t", **copied}
        heads.insert_one({**place, "keys": [head["key"]], "rows": [row], "folded": 0})
    assert check(store_uri, source).outcome.differences == []


@pytest.mark.parametrize(
    ("contradiction", "reason"),
    [
        (
            "UPDATE latest_metrics SET value = 0.5, step = 1, timestamp = 1600000000001 WHERE {}",
            "ends in 0.05",
        ),
        ("DELETE FROM latest_metrics WHERE {}", "MLflow shows none"),
    ],
)
def test_a_latest_point_that_contradicts_its_history_is_named(
    store_uri: str, tmp_path: Path, contradiction: str, reason: str
) -> None:
    source = unpack_sql("3.17.2", tmp_path)
    bring(store_uri, source)
    metric = "run_uuid = (SELECT run_uuid FROM runs WHERE name = 'child') AND key = 'loss'"
    _executed(source, contradiction.format(metric))
    found = check(store_uri, source)
    assert found.outcome.differences == []
    (named,) = found.outcome.unreadable
    assert named.where.endswith(" loss")
    assert reason in named.reason
    assert found.exit_code == 3


def test_exit_code_0_means_everything(store_uri: str, tmp_path: Path) -> None:
    source = unpack_sql("3.17.2", tmp_path)
    _executed(source, "CREATE TABLE of_somebody (x INTEGER)", "INSERT INTO of_somebody VALUES (1)")
    bring(store_uri, source)
    found = check(store_uri, source)
    assert found.equal
    assert sorted(each.kind for each in found.outcome.left_out) == ["of_somebody"]
    assert found.exit_code == 3
    assert "LEFT OUT of_somebody table of_somebody: 1 rows: the target has no place for them" in found.lines()
    assert "has no place for (1)" in found.lines()[-1]
    assert found.plain()["left_out_in_all"] == 1
    _executed(source, "DELETE FROM of_somebody")
    found = check(store_uri, source)
    assert found.exit_code == 0
    assert found.lines()[-1] == "The target has all that the source has, and it is the same."


ORPHANS = {
    "experiment_tags": "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('k', 'v', 77)",
    "runs": "UPDATE runs SET experiment_id = 77 WHERE name = 'child'",
    "metrics": (
        "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES ('k', 1, 1, 1, 0, 'gone')"
    ),
    "latest_metrics": (
        "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
        "VALUES ('k', 1, 1, 1, 0, 'gone')"
    ),
    "params": "INSERT INTO params (key, value, run_uuid) VALUES ('k', 'v', 'gone')",
    "tags": "INSERT INTO tags (key, value, run_uuid) VALUES ('k', 'v', 'gone')",
    "inputs": (
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) "
        "VALUES ('i', 'DATASET', 'd', 'RUN', 'gone')"
    ),
    "logged_models": "UPDATE logged_models SET experiment_id = 77 WHERE name = 'model-1'",
    "trace_info": "UPDATE trace_info SET experiment_id = 77 WHERE request_preview IS NOT NULL",
    "trace_tags": "INSERT INTO trace_tags (key, value, request_id) VALUES ('k', 'v', 'gone')",
    "spans": "UPDATE spans SET trace_id = 'gone' WHERE span_id = '0000000000000004'",
    "assessments": "UPDATE assessments SET trace_id = 'gone' WHERE name = 'score'",
    "entity_associations": (
        "UPDATE entity_associations SET source_id = 'gone' WHERE destination_type = 'prompt_version'"
    ),
    "evaluation_dataset_records": (
        "UPDATE evaluation_dataset_records SET dataset_id = 'gone' WHERE inputs = '{}'"
    ),
    "model_versions": "UPDATE model_versions SET name = 'gone' WHERE version = 4",
    "registered_model_aliases": (
        "INSERT INTO registered_model_aliases (alias, version, name, workspace) "
        "VALUES ('a', 1, 'gone', 'default')"
    ),
    "webhook_events": "UPDATE webhook_events SET webhook_id = 'gone' WHERE entity = 'model_version'",
}


@pytest.mark.parametrize("table", ORPHANS)
def test_rows_that_belong_to_nothing_are_left_out(imported: str, tmp_path: Path, table: str) -> None:
    source = unpack_sql("3.17.2", tmp_path)
    _executed(source, ORPHANS[table])
    found = check(imported, source)
    assert found.exit_code in (1, 3)
    named = {each.kind: each.reason for each in found.outcome.left_out}
    assert "rows belong to nothing" in named[table]


def test_what_the_target_got_since_is_named(store_uri: str, tmp_path: Path) -> None:
    source = str(unpack("2.22.0", tmp_path))
    bring(store_uri, source)
    assert check(store_uri, source).exit_code == 0
    store = MongoDBStore(store_uri, str(tmp_path / "artifacts"))
    experiment = store.get_experiment_by_name("kept").experiment_id
    run = store.create_run(experiment, "someone", 1, [], "later").info.run_id
    # An experiment that the source does not have is nobody's business.
    store.create_run(store.create_experiment("mine"), "someone", 1, [], "elsewhere")
    found = check(store_uri, source)
    assert found.outcome.differences == []
    assert [(each.kind, each.where) for each in found.outcome.added] == [("run", f'"{run}"')]
    assert found.exit_code == 3
    assert found.lines()[-1] == (
        "The target has all that the source has, and it is the same. "
        "Named above: what only the target has (1)."
    )


def test_links_in_a_tree_are_named_and_not_followed(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    bring(store_uri, str(source))
    (tmp_path / "secret").write_text("of the system")
    run = next(path.parent for path in source.glob("[0-9]*/*/meta.yaml"))
    (run / "params").mkdir(exist_ok=True)
    (run / "params" / "linked").symlink_to(tmp_path / "secret")
    os.mkfifo(run / "params" / "pipe")
    found = check(store_uri, str(source))
    assert found.outcome.differences == []
    assert {Path(each.where).name for each in found.outcome.unreadable} == {"linked", "pipe"}
    assert found.exit_code == 3
