"""What an operator does, on small steps: plan, apply, undo, and everything that must stop a run."""

import dataclasses
import logging
from pathlib import Path

import pytest

from genesis_flow.migrate import batches, command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.errors import (
    ChangedFile,
    DataLossRefused,
    HistoryMismatch,
    Locked,
    MigrationError,
    StepFailed,
)
from genesis_flow.migrate.files import INSTALLED
from genesis_flow.migrate.imports import read_imports
from tests.migration.dumping import dump
from tests.migration.helpers import add_step, database, make_config, real_steps, simple_step
from tests.mongod import Mongod

ONE, TWO, THREE = "20270101000001", "20270101000002", "20270101000003"


def states(config: MigrateConfig) -> list[str]:
    return [step.state for step in command.status(config).steps]


def collections(config: MigrateConfig, uri: str) -> set[str]:
    with database(uri) as db:
        return set(db.list_collection_names())


def test_up_applies_in_order_and_then_has_nothing_to_do(config: MigrateConfig) -> None:
    assert command.plan(config) == [f"{ONE}_one", f"{TWO}_two", f"{THREE}_three"]
    assert [done.version for done in command.up(config).steps] == [ONE, TWO, THREE]
    assert command.up(config).steps == []
    assert command.plan(config) == []
    assert command.current(config) == (THREE, THREE)


def test_dry_runs_and_looking_write_nothing(config: MigrateConfig, store_uri: str) -> None:
    command.up(config, dry_run=True)
    command.plan(config)
    command.status(config)
    command.history(config)
    command.current(config)
    command.validate(config)
    assert collections(config, store_uri) == set()


@pytest.mark.parametrize(
    ("revision", "expected"), [("+1", [ONE]), ("+2", [ONE, TWO]), (TWO, [ONE, TWO]), ("two", [ONE, TWO])]
)
def test_up_to_a_revision(config: MigrateConfig, revision: str, expected: list[str]) -> None:
    assert [done.version for done in command.up(config, revision).steps] == expected


@pytest.mark.parametrize(
    ("revision", "expected"), [("-1", [THREE]), (ONE, [THREE, TWO]), ("base", [THREE, TWO, ONE])]
)
def test_down_to_a_revision(config: MigrateConfig, revision: str, expected: list[str]) -> None:
    command.up(config)
    assert [done.version for done in command.down(config, revision).steps] == expected
    assert states(config) == ["applied"] * (3 - len(expected)) + ["pending"] * len(expected)


@pytest.mark.parametrize("revision", ["nothing", "2027", "+0", "+x"])
def test_an_unclear_revision_is_refused(config: MigrateConfig, revision: str) -> None:
    with pytest.raises(MigrationError):
        command.up(config, revision)


def test_up_down_up_equals_up(config: MigrateConfig, store_uri: str) -> None:
    command.up(config)
    with database(store_uri) as db:
        first = dump(db)
        command.down(config, "base")
        assert dump(db)["schema_migrations"]["documents"] == []
        command.up(config)
        assert dump(db) == first
    actions = [event["action"] for event in command.history(config)]
    assert actions == ["up"] * 3 + ["down"] * 3 + ["up"] * 3


def test_up_down_up_of_the_real_steps_equals_up(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with database(store_uri) as db:
        first = dump(db)
        command.down(real, "base", accept_data_loss=True)
        assert set(dump(db)) == {"schema_migrations"}
        command.up(real)
        assert dump(db) == first


def test_a_lossy_step_is_reverted_only_with_consent(real: MigrateConfig, store_uri: str) -> None:
    command.up(real)
    with pytest.raises(DataLossRefused, match="loses all experiments"):
        command.down(real, "base")
    assert "runs" in collections(real, store_uri)
    command.down(real, "base", dry_run=True)
    assert "runs" in collections(real, store_uri)
    command.down(real, "base", accept_data_loss=True)
    assert "runs" not in collections(real, store_uri)


def test_a_step_that_does_not_say_what_it_loses_counts_as_lossy(config: MigrateConfig) -> None:
    body = "def upgrade(self):\n    self.create_collection('x')\n\ndef downgrade(self):\n    pass"
    add_step(config.script_location, "20270101000004", "four", body)
    command.up(config)
    with pytest.raises(DataLossRefused):
        command.down(config, "-1")


def test_a_step_without_downgrade_cannot_be_reverted(config: MigrateConfig) -> None:
    add_step(config.script_location, "20270101000004", "four", "def upgrade(self):\n    pass")
    command.up(config)
    with pytest.raises(MigrationError, match="no downgrade"):
        command.down(config, "-1", accept_data_loss=True)
    assert states(config) == ["applied"] * 4


def test_a_changed_file_is_named_and_stops_until_repaired(config: MigrateConfig) -> None:
    command.up(config, "+2")
    path = simple_step(config.script_location, ONE, "one", rights=("find",))
    for attempt in (command.up, command.plan):
        with pytest.raises(ChangedFile, match=path.name):
            attempt(config)
    assert states(config) == ["changed", "applied", "pending"]
    assert [problem.exit_code for problem in command.validate(config)] == [4]
    assert command.repair(config) == [f"{ONE}_one"]
    assert command.repair(config) == []
    assert [done.version for done in command.up(config).steps] == [THREE]


def test_comments_and_blank_lines_are_no_change(config: MigrateConfig) -> None:
    command.up(config)
    path = config.script_location / f"{ONE}_one.py"
    text = path.read_text().replace("class Migration", "# A remark.\n\n\nclass Migration")
    path.write_bytes((text.replace('loses = ""', 'loses = ""  # nothing') + "\n\n# The end.\n").encode())
    assert command.validate(config) == []
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert command.validate(config) == []
    path.write_text(text.replace("drop()", "drop(comment='#')"))
    assert [problem.exit_code for problem in command.validate(config)] == [4]


def test_an_older_step_never_applied_is_reported_not_skipped(config: MigrateConfig) -> None:
    command.up(config)
    simple_step(config.script_location, "20260601000000", "late")
    with pytest.raises(HistoryMismatch, match="20260601000000_late was never applied"):
        command.up(config)
    assert "late" in command.status(config).problems[0]
    assert [done.name for done in command.up(config, out_of_order=True).steps] == ["late"]
    assert command.validate(config) == []


@pytest.mark.parametrize("victim", [ONE, TWO])
def test_a_missing_file_is_found_before_any_write(config: MigrateConfig, store_uri: str, victim: str) -> None:
    command.up(config, "+2")
    next(config.script_location.glob(f"{victim}_*")).unlink()
    with database(store_uri) as db:
        before = dump(db, bookkeeping=True)
        with pytest.raises(HistoryMismatch, match=f"{victim}.*file is missing"):
            command.up(config)
        with pytest.raises(HistoryMismatch):
            command.down(config, "base")
        assert dump(db, bookkeeping=True) == before


def test_an_unknown_newer_version_is_found_before_any_write(config: MigrateConfig, store_uri: str) -> None:
    command.up(config)
    (config.script_location / f"{THREE}_three.py").unlink()
    simple_step(config.script_location, "20270101000002", "two")
    with database(store_uri) as db:
        before = dump(db, bookkeeping=True)
        with pytest.raises(HistoryMismatch, match=f"{THREE}_three, newer than {TWO}"):
            command.up(config)
        assert dump(db, bookkeeping=True) == before


def test_a_file_with_a_name_that_would_be_ignored_stops(config: MigrateConfig, store_uri: str) -> None:
    (config.script_location / "20270101000009_Third2.py").write_text("")
    with pytest.raises(MigrationError, match="Third2"):
        command.up(config)
    assert collections(config, store_uri) == set()


def test_two_files_of_one_version_stop(config: MigrateConfig) -> None:
    simple_step(config.script_location, ONE, "another")
    with pytest.raises(MigrationError, match="same version"):
        command.up(config)


def test_a_file_that_cannot_be_imported_stops_before_the_first_step(
    config: MigrateConfig, store_uri: str
) -> None:
    (config.script_location / "20270101000009_broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(MigrationError, match="nothing_of_that_name"):
        command.up(config)
    assert collections(config, store_uri) == set()


def test_a_failed_step_is_recorded_and_goes_on_where_it_stopped(
    config: MigrateConfig, store_uri: str
) -> None:
    with database(store_uri) as db:
        db["numbers"].insert_many([{"_id": number} for number in range(50)])
        body = """
            def upgrade(self):
                for batch in self.batches("numbers"):
                    if batch[0]["_id"] == 30 and not self.db["go"].find_one():
                        raise RuntimeError("mongodb://user:hunter2@host/ is full")
                    ids = [document["_id"] for document in batch]
                    self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$inc": {"times": 1}})
        """
        add_step(config.script_location, "20270101000004", "four", body)
        config = dataclasses.replace(config, batch_size=10)
        with pytest.raises(StepFailed, match=r"four failed.*full") as caught:
            command.up(config)
        assert "hunter2" not in str(caught.value)
        assert states(config) == ["applied", "applied", "applied", "failed"]
        assert "hunter2" not in str(list(db["schema_migrations"].find()) + list(db["schema_history"].find()))
        db["go"].insert_one({})
        command.up(config)
        assert db["numbers"].distinct("times") == [1], "the batches before the failure were not repeated"
        assert "positions" not in (db["schema_migrations"].find_one({"name": "four"}) or {})


def test_a_step_corrected_after_its_failure_starts_from_the_beginning(
    config: MigrateConfig, store_uri: str
) -> None:
    body = """
        def upgrade(self):
            for batch in self.batches("numbers"):
                ids = [document["_id"] for document in batch]
                self.collection("numbers").update_many({"_id": {"$in": ids}}, {"$set": {"by": VALUE}})
                if STOP:
                    raise RuntimeError("stop")
    """
    config = dataclasses.replace(config, batch_size=10)
    with database(store_uri) as db:
        db["numbers"].insert_many([{"_id": number} for number in range(30)])
        wrong = body.replace("VALUE", "1").replace("STOP", "batch[0]['_id'] == 10")
        add_step(config.script_location, "20270101000004", "four", wrong)
        with pytest.raises(StepFailed):
            command.up(config)
        right = body.replace("VALUE", "2").replace("STOP", "False")
        add_step(config.script_location, "20270101000004", "four", right)
        command.up(config)
        assert db["numbers"].distinct("by") == [2]


def test_batches_refuse_ids_of_several_types(config: MigrateConfig, store_uri: str) -> None:
    with database(store_uri) as db:
        db["numbers"].insert_many([{"_id": 1}, {"_id": "one"}])
        body = "def upgrade(self):\n    for batch in self.batches('numbers'):\n        pass"
        add_step(config.script_location, "20270101000004", "four", body)
        with pytest.raises(StepFailed, match="several types"):
            command.up(config)


def test_progress_says_rate_and_time_left(
    config: MigrateConfig, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "REPORT_SECONDS", 0)
    said: list[str] = []
    body = """
        def upgrade(self):
            for batch in self.batches("numbers"):
                pass
    """
    add_step(config.script_location, "20270101000004", "four", body)
    with database(store_uri) as db:
        db["numbers"].insert_many([{"_id": number} for number in range(50)])
    command.up(dataclasses.replace(config, batch_size=10, report=said.append))
    assert any("numbers: 30 of 50 (60%)" in line and "/s, about" in line for line in said), said


def test_stamp_records_without_running(config: MigrateConfig, store_uri: str) -> None:
    assert [done.name for done in command.stamp(config, "two").steps] == ["one", "two"]
    assert states(config) == ["applied", "applied", "pending"]
    assert not {"one", "two"} & collections(config, store_uri)
    command.stamp(config, "one")
    assert states(config) == ["applied", "pending", "pending"]
    command.stamp(config, "base")
    assert states(config) == ["pending"] * 3


def test_show_and_new_need_no_database(config: MigrateConfig, tmp_path: Path) -> None:
    nowhere = make_config("mongodb://127.0.0.1:9/none", config.script_location)
    shown = command.show(nowhere, "two")
    assert shown["description"] == "A step for a test."
    assert shown["reversible"]
    made = command.new(nowhere, "Index runs by user!")
    assert made.path.name == f"{made.version}_index_runs_by_user.py"
    assert made.version > THREE, "a new step is newer than every other"
    assert command.validate(nowhere, files_only=True) == []
    with pytest.raises(MigrationError, match="letters"):
        command.new(nowhere, "2027")


def test_a_new_step_does_nothing_by_mistake(config: MigrateConfig) -> None:
    command.new(config, "Something")
    with pytest.raises(StepFailed, match="NotImplementedError"):
        command.up(config)


def test_unlock_takes_a_living_lock_only_by_force(config: MigrateConfig, store_uri: str) -> None:
    assert command.unlock(config) is None
    with database(store_uri) as db:
        update = {"$currentDate": {"acquired_at": True, "renewed_at": True}}
        fields = {"holder": "t", "who": "someone@else", "pid": 7, "lease_seconds": 60.0}
        db["schema_lock"].update_one({"_id": "migrations"}, {"$set": fields, **update}, upsert=True)
        lock = command.status(config).lock
        assert lock is not None
        assert not lock.expired
        with pytest.raises(Locked, match="someone@else"):
            command.unlock(config)
        with pytest.raises(Locked, match="someone@else"):
            command.up(dataclasses.replace(config, lock_wait=0.3))
        assert command.unlock(config, force=True) is not None
        assert db["schema_lock"].count_documents({}) == 0
    command.up(config)


def test_a_prefix_keeps_two_schemas_in_one_database_apart(
    config: MigrateConfig, store_uri: str, tmp_path: Path
) -> None:
    location = real_steps(tmp_path / "copies")
    team = make_config(f"{store_uri}#team", location)
    command.up(config)
    command.up(team)
    with database(store_uri) as db:
        assert "team_runs" in db.list_collection_names()
        assert len(dump(db, "team_")["schema_migrations"]["documents"]) == len(command.steps(team))
    command.down(team, "base", accept_data_loss=True)
    assert states(config) == ["applied"] * 3


def test_it_works_on_a_standalone_server(standalone: Mongod, database_name: str) -> None:
    config = make_config(standalone.database_uri(database_name))
    command.up(config)
    command.down(config, "base", accept_data_loss=True)
    command.up(config)
    assert command.plan(config) == []


def test_nothing_runs_in_a_transaction(real: MigrateConfig, caplog: pytest.LogCaptureFixture) -> None:
    """So that no limit of transactions, 60 s or 16 MB, can stop a step."""
    with caplog.at_level(logging.DEBUG, logger="pymongo.command"):
        command.up(real)
    commands = [record.getMessage() for record in caplog.records]
    assert any("createIndexes" in line for line in commands)
    assert not any("startTransaction" in line for line in commands)


def test_a_step_finds_the_configured_imports(config: MigrateConfig, store_uri: str, tmp_path: Path) -> None:
    """The seam for bringing data in as part of ``up``; such a step is recorded like any other."""
    body = """
        def upgrade(self):
            self.collection("imported").insert_one({"_id": str(self.imports.file_store)})
    """
    add_step(config.script_location, "20270101000004", "bring_in", body)
    imports = read_imports({"file_store": str(tmp_path)}, "test.ini")
    command.up(dataclasses.replace(config, imports=imports))
    with database(store_uri) as db:
        assert db["imported"].distinct("_id") == [str(tmp_path)]
    assert states(config) == ["applied"] * 4


@pytest.mark.parametrize("then", ["down", "up"])
def test_a_revert_that_failed_is_finished_or_taken_back(
    config: MigrateConfig, store_uri: str, then: str
) -> None:
    body = """
        loses = ""

        def upgrade(self):
            self.create_collection("four")

        def downgrade(self):
            self.collection("four").drop()
            if not self.db["go"].find_one():
                raise RuntimeError("not yet")
    """
    add_step(config.script_location, "20270101000004", "four", body)
    command.up(config)
    with pytest.raises(StepFailed, match="reverting"):
        command.down(config, "three")
    assert states(config) == ["applied"] * 3 + ["revert failed"]
    with database(store_uri) as db:
        db["go"].insert_one({})
        if then == "down":
            command.down(config, "three")
        else:
            command.up(config)
        assert ("four" in db.list_collection_names()) == (then == "up")
    assert states(config)[3] == ("pending" if then == "down" else "applied")


def test_a_new_step_is_not_written_into_the_installed_package(config: MigrateConfig) -> None:
    with pytest.raises(MigrationError, match="checkout"):
        command.new(dataclasses.replace(config, script_location=INSTALLED), "something")
