"""The reader of SQL databases: any schema, one snapshot, bounded units, nothing written."""

import math
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import SERIES_POINTS, Filters, Record, Series, Unit
from genesis_flow.importers.sql import open_sql
from genesis_flow.importers.sql import source as sql_source
from tests.importing.sql_databases import (
    VERSIONS,
    body,
    connected,
    counted,
    everything,
    opened,
    problems_of,
    unpacked,
)


def run_named(path: Path, name: str) -> str:
    with connected(path) as connection:
        (run_id,) = connection.execute("SELECT run_uuid FROM runs WHERE name = ?", (name,)).fetchone()
    return str(run_id)


@pytest.mark.parametrize("version", VERSIONS)
def test_bodies_have_the_fields_of_the_contract(version: str, tmp_path: Path) -> None:
    path = unpacked(version, tmp_path)
    before = path.read_bytes()
    with opened(path) as source:
        items = everything(source)
    assert problems_of(items) == []
    for item in items:
        if isinstance(item, Record):
            assert set(item.body) == set(KIND[item.kind].body), item.kind
    assert counted(items)["run"] == 9
    # Nothing is left behind, beside the file or in it.
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_infinities_and_nan_come_back(newest: Path) -> None:
    run_id = run_named(newest, "run finished")
    with opened(newest) as source:
        items = everything(source)
    (odd,) = (
        each for each in items if isinstance(each, Series) and (each.run_id, each.key) == (run_id, "odd")
    )
    assert [math.isnan(value) for value in odd.values] == [True, False, False, False, False]
    assert list(odd.values[1:4]) == [math.inf, -math.inf, 1e-310]
    assert list(odd.steps) == [0, 1, 2, 3, 4]


def test_a_long_history_comes_in_series_of_one_length(newest: Path) -> None:
    run_id, more = run_named(newest, "run failed"), SERIES_POINTS + 10
    with connected(newest) as connection:
        connection.executemany(
            "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, 0, ?)",
            ((key, step / 3, 5_000_000 - step, step, run_id) for key in ("a", "b") for step in range(more)),
        )
    with opened(newest) as source:
        series = [
            each
            for each in everything(source)
            if isinstance(each, Series) and each.run_id == run_id and each.key != "loss"
        ]
    assert [(each.key, len(each)) for each in series] == [
        ("a", SERIES_POINTS),
        ("a", 10),
        ("b", SERIES_POINTS),
        ("b", 10),
    ]
    times = [*series[0].timestamps, *series[1].timestamps]
    assert times == sorted(times)
    assert len(set(times)) == more


def test_a_pruned_history_keeps_its_latest_point(newest: Path) -> None:
    run_id = run_named(newest, "child")
    with connected(newest) as connection:
        connection.execute("DELETE FROM metrics WHERE key = 'long'")
    with opened(newest) as source:
        items = everything(source)
    (left,) = (each for each in items if isinstance(each, Series) and each.key == "long")
    assert (left.run_id, list(left.steps)) == (run_id, [2599])


def test_units_hold_each_run_once_and_few_of_them(newest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_source, "_MOST", 150)
    monkeypatch.setattr(sql_source, "_LISTED", 333)
    with connected(newest) as connection:
        names = [f"{number:032x}" for number in range(400)] + [f"{number * 7919:x}" for number in range(900)]
        connection.executemany(
            "INSERT INTO runs (run_uuid, name, status, lifecycle_stage, experiment_id) "
            "VALUES (?, '', 'FINISHED', 'active', 1)",
            ((name,) for name in set(names)),
        )
        expected = {each for (each,) in connection.execute("SELECT run_uuid FROM runs")}
    with opened(newest) as source:
        units = [each for each in source.units(Filters(), ("run",)) if isinstance(each, Unit)]
        assert source.size(Filters()) == sum(1 for _ in source.units(Filters()))
    ids = [each for unit in units for each in unit.payload]
    assert len(ids) == len(set(ids))
    assert set(ids) == expected
    assert len({unit.key for unit in units}) == len(units)
    assert max(len(unit.payload) for unit in units) <= 150


def test_a_fingerprint_changes_with_the_runs(newest: Path) -> None:
    run_id = run_named(newest, "run running")

    def fingerprint() -> str | None:
        with opened(newest) as source:
            (unit,) = source.units(Filters(), ("run",))
            return source.fingerprint(unit)  # type: ignore[arg-type]

    seen = [fingerprint()]
    for change in (
        "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES ('loss', 1, 1, 99, 0, ?)",
        "UPDATE tags SET value = 'other' WHERE run_uuid = ? AND key = 'kind'",
        "UPDATE runs SET status = 'FINISHED' WHERE run_uuid = ?",
        "INSERT INTO params (key, value, run_uuid) VALUES ('new', '1', ?)",
        "UPDATE inputs SET step = 5 WHERE destination_id <> ?",
    ):
        assert fingerprint() == seen[-1]
        with connected(newest) as connection:
            connection.execute(change, (run_id,))
        seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_only_what_belongs_to_an_experiment(newest: Path) -> None:
    with opened(newest) as source:
        items = everything(source, Filters(experiments=("other",)))
        same = everything(source, Filters(experiments=("2",)))
    assert problems_of(items) == []
    assert repr(items) == repr(same)
    assert counted(items) == Counter(
        experiment=1,
        dataset=1,
        run=1,
        point=20,
        logged_model=1,
        trace=1,
        evaluation_dataset=1,
        evaluation_record=3,
        entity_association=1,
    )


def test_only_what_is_recent(newest: Path) -> None:
    late = 1_600_000_000_000 + 60
    with opened(newest) as source:
        items = everything(source, Filters(since=late))
    names = {each.body["name"] for each in items if isinstance(each, Record) and each.kind == "run"}
    # By their start, by their end, or since they may still go on: the others ended after that time.
    assert {"elsewhere", "run running", "run finished"} <= names
    with opened(newest) as source:
        items = everything(source, Filters(since=4_000_000_000_000))
    names = {each.body["name"] for each in items if isinstance(each, Record) and each.kind == "run"}
    assert "run running" in names
    assert "run finished" not in names
    assert counted(items)["trace"] == 0


def test_an_unknown_experiment_is_an_error(newest: Path) -> None:
    with (
        opened(newest) as source,
        pytest.raises(ImportFailed, match="no experiment with the id or name 'nope'"),
    ):
        list(source.units(Filters(experiments=("nope",))))


def test_what_has_no_place_is_counted(newest: Path) -> None:
    with connected(newest) as connection:
        connection.execute("CREATE TABLE of_somebody (x INTEGER)")
        connection.execute("INSERT INTO of_somebody VALUES (1)")
    with opened(newest) as source:
        unsupported = source.unsupported(Filters())  # type: ignore[attr-defined]
    assert unsupported == {"of_somebody": 1}


def test_workspaces_are_taken_over(newest: Path) -> None:
    with connected(newest) as connection:
        connection.execute("UPDATE experiments SET workspace = 'team-a' WHERE experiment_id = 2")
        connection.execute(
            "INSERT INTO registered_models (workspace, name, creation_time) "
            "VALUES ('team-a', 'Classifier ü', 7)"
        )
    with opened(newest) as source:
        items = everything(source)
    assert sorted((each.kind, each.where) for each in problems_of(items)) == [
        ("registered_model", "Classifier ü of workspace team-a"),
        ("workspace", "team-a"),
    ]
    found = Counter(
        (each.kind, each.workspace)
        for each in items
        if isinstance(each, Record) and each.kind in ("run", "registered_model", "model_version")
    )
    assert found == {
        ("run", "default"): 8,
        ("run", "team-a"): 1,
        ("registered_model", "default"): 3,
        ("model_version", "default"): 7,
    }


def test_columns_and_tables_may_be_missing(newest: Path) -> None:
    with connected(newest) as connection:
        for table in ("webhook_events", "webhooks", "input_tags", "assessments", "trace_metrics"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("ALTER TABLE runs DROP COLUMN deleted_time")
        connection.execute("ALTER TABLE runs ADD COLUMN of_tomorrow TEXT DEFAULT 'x'")
        connection.execute("ALTER TABLE trace_info DROP COLUMN response_preview")
    with opened(newest) as source:
        items = everything(source)
    assert problems_of(items) == []
    counts = counted(items)
    assert (counts["run"], counts["trace"], counts["assessment"], counts["webhook"]) == (9, 8, 0, 0)
    assert body(items, "run", run_named(newest, "deleted run"))["deleted_time"] is None


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_writers_do_not_change_what_is_read(newest: Path, mode: str) -> None:
    with connected(newest) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    with opened(newest) as source:
        units = source.units(Filters())
        first = next(units)
        error = _delete_runs(newest)
        # Without a write-ahead log a writer has to wait for the reader.
        assert error is None if mode == "wal" else "locked" in str(error)
        items = [*source.read(first), *(item for unit in units for item in source.read(unit))]  # type: ignore[arg-type]
    assert counted(items)["point"] == 2800
    assert problems_of(items) == []


def _delete_runs(path: Path) -> Exception | None:
    writer = sqlite3.connect(path, timeout=0.1)
    try:
        for table in ("tags", "metrics", "params"):
            writer.execute(f"DELETE FROM {table}")
        writer.commit()
    except sqlite3.OperationalError as error:
        return error
    finally:
        writer.close()
    return None


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(ImportFailed, match="There is no SQLite database at"):
        open_sql(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_mlflow_database(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database" * 100)
    with pytest.raises(ImportFailed, match="not a database"):
        open_sql(f"sqlite:///{text}")
    other = tmp_path / "other.db"
    with connected(other) as connection:
        connection.execute("CREATE TABLE runs (x)")
    with pytest.raises(ImportFailed, match="holds no MLflow data"):
        open_sql(f"sqlite:///{other}")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("oracle://u:S3CRET@127.0.0.1/x", "MLflow does not support oracle databases"),
        ("sqlite://", "Name the file"),
        ("sqlite:///:memory:", "Name the file"),
        ("no uri", "not an SQLAlchemy URI"),
        ("mysql+nodriver://u:S3CRET@127.0.0.1/x", "driver of mysql"),
    ],
)
def test_uris_that_cannot_be_opened(uri: str, message: str) -> None:
    with pytest.raises(ImportFailed, match=message) as caught:
        open_sql(uri)
    assert "S3CRET" not in str(caught.value)
