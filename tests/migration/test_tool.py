"""mongodb-migrations' own program runs our steps, and what it recorded is recognised."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.errors import StepFailed
from genesis_flow.stores.areas import DECLARED
from tests.migration.dumping import dump, schema_of
from tests.migration.helpers import add_step, database, make_config, real_steps, replacing_steps, sample_steps

PROGRAM = Path(sys.executable).with_name("mongodb-migrate")


def tool(uri: str, location: Path, *arguments: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program beside this Python. It is never imported, since its licence is the GPL."""
    assert PROGRAM.exists(), "install the dev extra"
    # The program reads config.ini of its working directory unless told of another file.
    environment = {
        **os.environ,
        "MONGODB_MIGRATIONS_CONFIG": os.devnull + "-none",
        "MONGODB_COLLECTION_PREFIX": prefix,
    }
    return subprocess.run(
        [str(PROGRAM), "--url", uri, "--migrations", str(location), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        env=environment,
        check=False,
    )


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return sample_steps(tmp_path / "steps")


@pytest.fixture
def config(store_uri: str, location: Path) -> MigrateConfig:
    return make_config(store_uri, location)


@pytest.mark.parametrize("metastore", ["database_migrations", "schema_migrations"])
def test_what_the_tool_applied_is_taken_over(store_uri: str, tmp_path: Path, metastore: str) -> None:
    location = real_steps(tmp_path / "real")
    config = make_config(store_uri, location)
    ran = tool(store_uri, location, "--metastore", metastore)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [step.state for step in command.status(config).steps] == ["applied"] * len(command.steps(config))
    assert command.plan(config) == []
    adopted = command.up(config).adopted
    assert adopted == [file.version for file in command.steps(config)]
    assert command.up(config).adopted == []
    assert command.check(config, DECLARED) == []
    with database(store_uri) as db:
        first = schema_of(dump(db))
        db.client.drop_database(db)
        command.up(config)
        assert schema_of(dump(db)) == first


def test_a_part_that_the_tool_applied_is_not_applied_again(
    config: MigrateConfig, store_uri: str, location: Path
) -> None:
    first = command.steps(config)[0]
    assert tool(store_uri, location, "--to_datetime", first.version).returncode == 0
    outcome = command.up(config)
    assert outcome.adopted == [first.version]
    assert first.version not in [done.version for done in outcome.steps]


def test_the_tool_goes_on_and_back_from_our_ledger(
    config: MigrateConfig, store_uri: str, location: Path
) -> None:
    first = command.steps(config)[0]
    command.up(config, first.version)
    ran = tool(store_uri, location, "--metastore", "schema_migrations")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert first.name not in ran.stdout
    assert command.plan(config) == []
    command.up(config)
    back = tool(store_uri, location, "--metastore", "schema_migrations", "--downgrade")
    assert back.returncode == 0, back.stdout + back.stderr
    assert [step.state for step in command.status(config).steps] == ["pending"] * len(command.steps(config))


@pytest.mark.parametrize("upto", ["20260101000100", "20260101000200", "20260101000400"])
@pytest.mark.parametrize("metastore", ["database_migrations", "schema_migrations"])
def test_what_the_tool_applied_and_one_step_replaces_is_taken_over(
    store_uri: str, location: Path, tmp_path: Path, metastore: str, upto: str
) -> None:
    """Of the three that are replaced: two, all, and all with those behind them."""
    ran = tool(store_uri, location, "--metastore", metastore, "--to_datetime", upto)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    replacing = make_config(store_uri, replacing_steps(tmp_path / "replacing"))
    command.up(replacing)
    assert [step.state for step in command.status(replacing).steps] == ["applied"] * 3
    assert command.up(replacing) == command.Outcome()
    with database(store_uri) as db:
        assert db["schema_migrations"].distinct("_id") == [file.version for file in command.steps(replacing)]
        found = schema_of(dump(db))
        db.client.drop_database(db)
        command.up(replacing)
        assert schema_of(dump(db)) == found
    back = tool(store_uri, replacing.script_location, "--metastore", "schema_migrations", "--downgrade")
    assert back.returncode == 0, back.stdout + back.stderr


def test_the_tool_refuses_while_a_step_is_unfinished(
    config: MigrateConfig, store_uri: str, location: Path
) -> None:
    """It would take the entry for an applied step, and skip the step for ever."""
    path = add_step(location, "20290101000000", "broken", "def upgrade(self):\n    raise RuntimeError('no')")
    with pytest.raises(StepFailed):
        command.up(config)
    ran = tool(store_uri, location, "--metastore", "schema_migrations")
    assert ran.returncode == 1
    assert "doesn't match" in ran.stdout
    assert path.exists()


def test_a_prefix_is_the_same_for_both(store_uri: str, tmp_path: Path) -> None:
    location = real_steps(tmp_path / "real")
    ran = tool(store_uri, location, "--metastore", "team_schema_migrations", prefix="team")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    team = make_config(f"{store_uri}#team", location)
    assert command.plan(team) == []
    assert command.check(team, DECLARED) == []


def test_the_record_of_another_application_is_not_ours(config: MigrateConfig, store_uri: str) -> None:
    with database(store_uri) as db:
        versions = [{"migration_datetime": file.version} for file in command.steps(config)]
        db["database_migrations"].insert_many([*versions, {"migration_datetime": "20200101000000"}])
        assert len(command.up(config).steps) == len(versions), "none of our collections was there"
        assert db["database_migrations"].count_documents({}) == len(versions) + 1
