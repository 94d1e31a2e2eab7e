"""The program: exit codes, JSON, help with examples, no password anywhere."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genesis_flow.cli.migrate import cli
from genesis_flow.cli.migrate_shared import EXIT_CODES
from genesis_flow.migrate import errors
from tests.migration.helpers import add_step, database, simple_step

COMMANDS = {
    *("up", "down", "current", "status", "plan", "history", "repack", "shard", "show", "new", "stamp"),
    *("check", "repair", "unlock", "validate", "import", "import-users"),
}
# A store does what `repack` does, and opens no database that has other steps: test_repack.py asks it.
REPORTING = COMMANDS - {"down", "show", "new", "stamp", "import", "import-users", "repack"}
CANARY = "hunter2-canary"


@pytest.fixture
def ini(tmp_path: Path, location: Path) -> Path:
    path = tmp_path / "test.ini"
    path.write_text(f"[genesis-migrate]\nscript_location = {location}\nlock_wait = 0.2\n")
    return path


@pytest.fixture
def run(store_uri: str, ini: Path) -> Any:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--uri", store_uri, "-c", str(ini), *arguments])

    return invoke


def test_every_command_has_help_with_an_example() -> None:
    assert set(cli.commands) == COMMANDS
    for name in COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0
        assert f"genesis-migrate {name}" in result.output
        assert "Example" in result.output
        assert "--uri" in result.output


def test_the_help_lists_every_exit_code() -> None:
    codes = [value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f"\n  {code}  " in EXIT_CODES
    assert "Exit codes" in CliRunner().invoke(cli, ["--help"]).output


def test_a_whole_life(run: Any, location: Path) -> None:
    assert run("plan").exit_code == errors.PENDING
    assert run("current", "--check").exit_code == errors.PENDING
    assert run("up", "+2").exit_code == 0
    assert "20270101000002_two" in run("down", "-1", "--dry-run").output
    assert run("up").exit_code == 0
    assert run("plan").exit_code == 0
    assert run("current", "--check").exit_code == 0
    assert "(head)" in run("current").output
    simple_step(location, "20270101000001", "one", rights=("find",))
    for command in ("up", "plan", "validate", "current --check"):
        assert run(*command.split()).exit_code == errors.CHANGED, command
    assert "changed" in run("status").output
    assert run("repair").exit_code == 0
    assert run("down", "-1").exit_code == 0
    simple_step(location, "20260101000001", "late")
    for command in ("up", "plan", "validate"):
        assert run(*command.split()).exit_code == errors.MISMATCH, command
    assert run("stamp", "base").exit_code == 0
    assert "stamp" not in run("history").output
    assert "forget" in run("history").output


def test_codes_of_refusals(run: Any, location: Path, store_uri: str) -> None:
    assert run("up", "--bogus").exit_code == errors.USAGE
    assert run("bogus").exit_code == errors.USAGE
    assert run("up", "nothing").exit_code == errors.ERROR
    simple_step(location, "20270101000004", "four", loses="the fourth")
    run("up")
    refused = run("down", "-1")
    assert refused.exit_code == errors.REFUSED
    assert "the fourth" in refused.output
    assert run("check").exit_code == errors.DRIFT
    simple_step(location, "20270101000005", "five")
    with database(store_uri) as db:
        fields = {"holder": "t", "who": "a@b", "pid": 7, "lease_seconds": 600.0}
        now = {"$currentDate": {"acquired_at": True, "renewed_at": True}}
        db["schema_lock"].update_one({"_id": "migrations"}, {"$set": fields, **now}, upsert=True)
    assert run("up").exit_code == errors.LOCKED
    assert run("unlock").exit_code == errors.LOCKED
    assert "a@b" in run("status").output
    assert run("unlock", "--force").exit_code == 0
    assert run("up").exit_code == 0


@pytest.mark.parametrize("name", sorted(REPORTING))
def test_reports_are_one_json_document(run: Any, name: str) -> None:
    for _ in range(2):
        result = run(name, "--json")
        json.loads(result.stdout)
        run("up", "+1")


@pytest.mark.parametrize("arguments", [("show", "one"), ("new", "more"), ("stamp", "one"), ("down", "base")])
def test_so_are_those_of_commands_with_an_argument(run: Any, arguments: tuple[str, ...]) -> None:
    json.loads(run(*arguments, "--json").stdout)


def test_the_target_may_follow_the_command(store_uri: str, ini: Path) -> None:
    result = CliRunner().invoke(cli, ["status", "--uri", store_uri, "-c", str(ini)])
    assert result.exit_code == 0, result.output
    assert store_uri in result.output


def test_no_password_is_ever_printed(ini: Path) -> None:
    uri = f"mongodb://someone:{CANARY}@127.0.0.1:9/db?serverSelectionTimeoutMS=100"
    for name in COMMANDS - {"new"}:
        needs = {"show": "one", "down": "one", "stamp": "one", "import": "--list", "import-users": str(ini)}
        arguments = [name, needs[name]] if name in needs else [name]
        result = CliRunner().invoke(cli, [*arguments, "--uri", uri, "-c", str(ini)])
        assert CANARY not in result.output
        if name != "show":
            assert result.exit_code == errors.ERROR, name
        if name not in ("show", "import-users"):  # that looks at its source first
            assert "Cannot reach mongodb://someone:***@127.0.0.1:9/db" in result.output


@pytest.mark.timeout(400)
def test_sigterm_ends_a_run_cleanly(store_uri: str, ini: Path, location: Path) -> None:
    """The step is recorded as interrupted and the lock given up, so the next run need not wait."""
    body = """
        def upgrade(self):
            import time
            self.collection("started").insert_one({})
            time.sleep(300)
    """
    path = add_step(location, "20270101000004", "slow", body)
    program = [sys.executable, "-m", "genesis_flow.cli.migrate", "up", "--uri", store_uri, "-c", str(ini)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    with database(store_uri) as db:
        while not db["started"].find_one():
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=150)
        assert process.returncode == errors.ERROR
        assert "Interrupted" in said
        assert db["schema_lock"].count_documents({}) == 0
        entry = db["schema_migrations"].find_one({"name": "slow"})
        assert entry is not None
        assert (entry["state"], entry["error"]) == ("failed", "interrupted")
    path.write_text(path.read_text().replace("sleep(300)", "sleep(0)"))
    result = CliRunner().invoke(cli, ["up", "--uri", store_uri, "-c", str(ini)])
    assert result.exit_code == 0, result.output


def test_a_state_that_nobody_knows_is_said(run: Any, location: Path, store_uri: str) -> None:
    assert run("up").exit_code == errors.OK
    with database(store_uri) as db:
        db["schema_migrations"].update_one({}, {"$set": {"state": "frobnicated"}})
    for command in ("status", "up", "plan", "current"):
        result = run(command)
        assert result.exit_code == errors.MISMATCH, result.output
        assert "'frobnicated'" in result.output
        assert "install the genesis_flow that the others use" in result.output
