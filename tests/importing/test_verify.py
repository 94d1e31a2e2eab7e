"""``--verify`` compares everything: a single changed digit, on either side, is found and named."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.cli.migrate import cli
from genesis_flow.importers.records import Filters
from genesis_flow.importers.verify.compare import Comparer, Outcome
from genesis_flow.importers.verify.opening import open_source
from genesis_flow.importers.verify.target import Names, Target
from genesis_flow.importers.verify.wanted import Wanted
from tests.importing.trees import VERSIONS, unpack
from tests.importing.verifying import SQL_VERSIONS, bring, changed, check, leaves, unpack_sql, with_change
from tests.mongod import Mongod

# What a comparison of these kinds reads; test_hostile_targets.py has what only databases hold.
COLLECTIONS = {
    "experiments": ("experiment",),
    "runs": ("run",),
    "latest_metrics": ("run",),
    "metrics": ("run",),
    "datasets": ("run", "dataset"),
    "logged_models": ("logged_model",),
    "logged_model_metrics": ("logged_model",),
    "traces": ("trace",),
    "assessments": ("assessment",),
    "registered_models": ("registered_model", "model_version"),
    "model_versions": ("registered_model", "model_version"),
}
# Counts changes of a store, which may have been taken back.
NOT_DATA = {"registered_models.revision"}
MAPS = ("params", "tags", "texts", "metadata", "expectations", "stages", "aliases")


def _compare(uri: str, source: str, *kinds: str) -> Outcome:
    with pymongo.MongoClient(uri) as client:
        target = Target(client.get_default_database(), "", "default", Names())
        reader = open_source(source, Wanted())
        try:
            return Comparer(reader, target).run(*((kinds,) if kinds else ()))
        finally:
            reader.close()


def _is_data(collection: str, path: tuple[Any, ...]) -> bool:
    return path != ("_id",) and f"{collection}.{path[0]}" not in NOT_DATA


def _kind_of(collection: str, path: tuple[Any, ...]) -> str:
    """Keys of maps and places in lists are many of a kind."""
    field = f"{collection}.{path[0]}"
    return field if path[0] in MAPS or len(path) == 1 else f"{field}.{path[-1]}"


def _places(database: Any, collections: tuple[str, ...]) -> Iterator[tuple[str, Any, tuple[Any, ...], Any]]:
    """One of each kind of field: collection, id, the way to the value, the value."""
    seen = set()
    for name in collections:
        for document in database[name].find():
            for path, value in leaves(document):
                if _is_data(name, path) and (kind := _kind_of(name, path)) not in seen:
                    seen.add(kind)
                    yield name, document["_id"], path, value


def _missed(uri: str, source: str, collections: tuple[str, ...]) -> tuple[list[str], int]:
    """The changes in the target that nobody noticed, and how many were made."""
    missed, made = [], 0
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for name, key, path, value in list(_places(database, collections)):
            before = database[name].find_one({"_id": key})
            database[name].replace_one({"_id": key}, with_change(before, path, changed(value)))
            if _compare(uri, source, *COLLECTIONS[name]).equal:
                missed.append(f"{name} {key} {path} {value!r}")
            database[name].replace_one({"_id": key}, before)
            made += 1
    return missed, made


@pytest.fixture(scope="module")
def imported(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, str]]:
    """The newest tree or database, imported once: the target's and the source's URI."""
    done: dict[str, tuple[str, str]] = {}

    def get(form: str) -> tuple[str, str]:
        if form not in done:
            folder = tmp_path_factory.mktemp(form)
            tree = form == "tree"
            source = str(unpack(VERSIONS[-1], folder)) if tree else unpack_sql(SQL_VERSIONS[-2], folder)
            uri = mongod.database_uri(f"test_verify_{folder.name}_{folder.parent.name}"[-60:])
            bring(uri, source)
            done[form] = uri, source
        return done[form]

    return get


Imported = Callable[[str], tuple[str, str]]


@pytest.mark.parametrize("version", VERSIONS)
def test_trees_of_each_version_are_equal(store_uri: str, tmp_path: Path, version: str) -> None:
    source = str(unpack(version, tmp_path))
    bring(store_uri, source)
    found = check(store_uri, source)
    assert found.outcome.differences == []
    assert found.equal
    assert found.outcome.source_checksum == found.outcome.target_checksum
    assert found.outcome.counts["run"].source == found.outcome.counts["run"].target == 10
    assert not found.outcome.unreadable


@pytest.mark.parametrize("version", SQL_VERSIONS)
def test_databases_of_each_version_are_equal(store_uri: str, tmp_path: Path, version: str) -> None:
    source = unpack_sql(version, tmp_path)
    bring(store_uri, source)
    found = check(store_uri, source)
    assert found.outcome.differences == []
    assert found.equal
    assert found.outcome.source_checksum == found.outcome.target_checksum


@pytest.mark.parametrize("part", range(3))
def test_a_change_of_any_field_in_the_target_is_found(imported: Imported, part: int) -> None:
    uri, source = imported("tree")
    missed, made = _missed(uri, source, tuple(COLLECTIONS)[part::3])
    assert missed == []
    assert made > 20
    assert _compare(uri, source).equal


def test_the_difference_is_named_with_both_values(imported: Imported) -> None:
    uri, source = imported("tree")
    with pymongo.MongoClient(uri) as client:
        runs = client.get_default_database()["runs"]
        run = runs.find_one({"params.batched": "yes"})
        runs.update_one({"_id": run["_id"]}, {"$set": {"params.batched": "yet"}})
        found = check(uri, source)
        runs.update_one({"_id": run["_id"]}, {"$set": {"params.batched": "yes"}})
    assert [each._asdict() for each in found.outcome.differences] == [
        {
            "kind": "run",
            "id": run["_id"],
            "field": "params.batched",
            "source": '"yes"',
            "target": '"yet"',
        }
    ]
    assert f'run {run["_id"]}, params.batched: source "yes", target "yet"' in "\n".join(found.lines())
    assert found.outcome.source_checksum != found.outcome.target_checksum


def test_missing_and_surplus_points_are_named(imported: Imported) -> None:
    uri, source = imported("tree")
    with pymongo.MongoClient(uri) as client:
        heads = client.get_default_database()["latest_metrics"]
        head = heads.find_one({"key": "disorder"})
        heads.update_one({"_id": head["_id"]}, {"$pop": {"tail": -1}, "$inc": {"latest.step": 0}})
        short = _compare(uri, source, "run")
        heads.replace_one({"_id": head["_id"]}, head)
        heads.update_one({"_id": head["_id"]}, {"$push": {"tail": [1_700_000_000_000, 2, 5.0]}})
        long = _compare(uri, source, "run")
        heads.replace_one({"_id": head["_id"]}, head)
    assert any(each.target == "is missing" and each.kind == "metric point" for each in short.differences)
    assert any(
        (each.field, each.source, each.target) == ("timestamp 1700000000000 step 2", "is not there", "5.0")
        for each in long.differences
    )


def test_what_is_missing_in_the_target_is_named(store_uri: str, tmp_path: Path) -> None:
    source = str(unpack("2.22.0", tmp_path))
    assert not check(store_uri, source).equal
    bring(store_uri, source)
    with pymongo.MongoClient(store_uri) as client:
        database = client.get_default_database()
        gone = [
            database[name].find_one_and_delete({})["_id"]
            for name in ("runs", "traces", "datasets", "registered_models")
        ]
    found = check(store_uri, source).outcome
    assert {each.kind for each in found.differences if each.target == "is missing"} >= {
        "run",
        "trace",
        "dataset",
        "registered_model",
    }
    assert found.counts["run"].source - found.counts["run"].target == 1
    assert any(each.id == gone[0] for each in found.differences)


def _texts_in(folder: Path) -> Iterator[Path]:
    """One of each kind of file in a tree, as far as its content is data."""
    seen = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or "artifacts" in path.parts:
            continue
        parent = "metrics" if "metrics" in path.parts else path.parent.name
        kind = (path.name if path.suffix == ".yaml" else parent, "models" in path.parts, path.parts[-3][:5])
        kind = kind if path.suffix == ".yaml" else (parent, "models" in path.parts, "")
        if kind not in seen and b"7" in path.read_bytes():
            seen.add(kind)
            yield path


def test_a_changed_digit_in_the_source_is_found(store_uri: str, tmp_path: Path) -> None:
    source = unpack(VERSIONS[-1], tmp_path)
    bring(store_uri, str(source))
    places = list(_texts_in(source))
    missed = []
    for path in places:
        before = path.read_bytes()
        # Inputs name themselves a second time, where nobody looks.
        path.write_bytes(before.replace(b"7", b"8", -1 if "inputs" in path.parts else 1))
        found = check(store_uri, str(source))
        if found.equal and not found.outcome.unreadable:
            missed.append(str(path))
        path.write_bytes(before)
    assert missed == []
    assert len(places) >= 8
    assert check(store_uri, str(source)).equal


def test_a_changed_value_in_a_database_is_found(imported: Imported) -> None:
    uri, source = imported("sql")
    path = source.removeprefix("sqlite:///")
    changes = [
        ("metrics", "value", "value + 1"),
        ("metrics", "timestamp", "timestamp + 1"),
        ("metrics", "step", "step + 1000"),
        ("params", "value", "value || '7'"),
        ("tags", "value", "value || '7'"),
        ("runs", "start_time", "start_time + 1"),
        ("experiments", "name", "name || '7'"),
        ("registered_model_tags", "value", "value || '7'"),
        ("model_versions", "creation_time", "creation_time + 1"),
        ("spans", "content", "replace(content, '1', '2')"),
        ("assessments", "value", "'7'"),
        ("trace_tags", "value", "value || '7'"),
        ("evaluation_dataset_records", "inputs", "json_object('changed', 7)"),
        ("webhooks", "url", "url || '7'"),
        ("input_tags", "value", "value || '7'"),
        ("logged_model_params", "param_value", "param_value || '7'"),
    ]
    only = {"webhooks": "WHERE deleted_timestamp IS NULL"}
    assert check(uri, source).equal
    missed = []
    with sqlite3.connect(path, isolation_level=None) as connection:
        for table, column, new in changes:
            key, before = connection.execute(
                f"SELECT rowid, {column} FROM {table} {only.get(table, '')} ORDER BY rowid DESC LIMIT 1"
            ).fetchone()
            connection.execute(f"UPDATE {table} SET {column} = {new} WHERE rowid = ?", (key,))
            if check(uri, source).equal:
                missed.append((table, column))
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (before, key))
    connection.close()
    assert missed == []
    assert check(uri, source).equal


def test_what_cannot_be_read_is_named_and_the_rest_compared(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    run = next(path.parent for path in source.glob("[0-9]*/*/meta.yaml"))
    (run / "meta.yaml").write_text("}{")
    param = next(path for path in source.rglob("params/empty") if run not in path.parents)
    param.write_bytes(b"\xff\xfe")
    metric = next(path for path in source.rglob("metrics/odd") if run not in path.parents)
    metric.write_bytes(metric.read_bytes() + b"17000 not-a-number 3\n")
    assert bring(store_uri, str(source)).problems == 3
    found = check(store_uri, str(source))
    assert found.equal
    assert sorted(each.where for each in found.outcome.unreadable) == sorted(
        map(str, (run / "meta.yaml", param, metric))
    )
    assert found.outcome.counts["run"].source == 9
    assert "what cannot be read of the source (3)" in found.lines()[-1]
    assert found.exit_code == 3


def test_damage_in_a_database_is_named_and_the_rest_compared(store_uri: str, tmp_path: Path) -> None:
    source = unpack_sql(SQL_VERSIONS[-2], tmp_path)
    with sqlite3.connect(source.removeprefix("sqlite:///")) as connection:
        for damage in (
            "UPDATE params SET value = CAST(x'ff00fe' AS TEXT) WHERE key = 'lr'",
            "UPDATE metrics SET timestamp = 'abc' WHERE rowid = (SELECT max(rowid) FROM metrics)",
            # Else the point would be told there still.
            "DELETE FROM latest_metrics WHERE (run_uuid, key) IN "
            "(SELECT run_uuid, key FROM metrics WHERE timestamp = 'abc')",
            "UPDATE runs SET start_time = 'x' WHERE rowid = (SELECT max(rowid) FROM runs)",
        ):
            connection.execute(damage)
    connection.close()
    assert bring(store_uri, source).problems >= 3
    found = check(store_uri, source)
    assert [each for each in found.outcome.differences if each.kind != "dataset"] == []
    assert {each.kind for each in found.outcome.unreadable} == {"params", "metrics", "runs"}
    assert found.outcome.counts["run"].source == found.outcome.counts["run"].target == 8


def test_only_the_wanted_experiment_is_compared(store_uri: str, tmp_path: Path) -> None:
    source = str(unpack("2.22.0", tmp_path))
    wanted = Filters(experiments=("kept",))
    bring(store_uri, source, filters=wanted)
    assert check(store_uri, source, wanted).equal
    assert check(store_uri, source, wanted).outcome.counts["run"].source == 6
    assert not check(store_uri, source).equal


def test_what_was_renamed_is_found_under_its_new_name(store_uri: str, tmp_path: Path) -> None:
    source = str(unpack("2.22.0", tmp_path))
    store = MongoDBStore(store_uri, str(tmp_path / "artifacts"))
    store.create_experiment("kept")
    store.create_run("0", "someone", 1, [], "here before")
    MongoDBModelRegistryStore(store_uri).create_registered_model("model one")
    assert bring(store_uri, source, on_conflict="rename").problems == 0
    found = check(store_uri, source)
    assert found.outcome.differences == []
    assert found.equal
    with pymongo.MongoClient(store_uri) as client:
        models = client.get_default_database()["registered_models"]
        assert models.count_documents({"name": {"$regex": "^model one"}}) == 2
        models.update_one({"name": {"$regex": "^model one .+"}}, {"$set": {"description": "Does things"}})
    assert not check(store_uri, source).equal


def test_the_command_says_it_to_people_and_programs(imported: Imported) -> None:
    uri, source = imported("tree")
    arguments = ["--uri", uri, "import", source, "--verify"]
    plain = CliRunner().invoke(cli, arguments)
    assert plain.exit_code == 0, plain.output
    assert "The target has all that the source has, and it is the same." in plain.output
    told = json.loads(CliRunner().invoke(cli, [*arguments, "--json", "-q"]).stdout)
    assert told["equal"] is True
    assert told["source_checksum"] == told["target_checksum"]
    assert told["counts"]["run"] == {"source": 10, "target": 10, "different": 0}
    with pymongo.MongoClient(uri) as client:
        experiments = client.get_default_database()["experiments"]
        experiments.update_one({"name": "kept"}, {"$set": {"name": "left"}})
        failed = CliRunner().invoke(cli, arguments)
        experiments.update_one({"name": "left"}, {"$set": {"name": "kept"}})
    assert failed.exit_code == 1
    assert 'name: source "kept", target "left"' in failed.output


def test_a_password_of_a_source_is_not_shown(store_uri: str) -> None:
    source = "postgresql://me:S3CRET@127.0.0.1:1/mlflow"
    result = CliRunner().invoke(cli, ["--uri", store_uri, "import", source, "--verify"])
    assert result.exit_code == 1
    assert "S3CRET" not in result.output
