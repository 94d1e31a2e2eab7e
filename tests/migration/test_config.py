"""alembic_like.ini: which target wins, and what is refused."""

import configparser
from pathlib import Path

import pytest

from genesis_flow.migrate import config as config_module
from genesis_flow.migrate.config import KEYS, SECTION, load_config
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.imports import KEYS as IMPORT_KEYS

SHIPPED = Path(__file__).parents[2] / "alembic_like.ini"
CANARY = "hunter2-canary"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "alembic_like.ini"
    path.write_text(text)
    return path


def test_the_argument_then_the_environment_then_the_ini(elsewhere: Path) -> None:
    write(elsewhere, "[genesis-migrate]\nuri = mongodb://ini/db\n")
    environ = {"GENESIS_FLOW_MONGODB_URI": "mongodb://environment/db"}
    assert "argument" in load_config("mongodb://argument/db", environ=environ).where
    assert "environment" in load_config(environ=environ).where
    assert "ini" in load_config(environ={}).where
    tracking = {"MLFLOW_TRACKING_URI": "http://server"}
    assert "ini" in load_config(environ=tracking).where, "a server's address is no database"


def test_without_any_target_nothing_is_guessed(elsewhere: Path) -> None:
    with pytest.raises(MigrationError, match="--uri"):
        load_config(environ={})
    assert list(elsewhere.iterdir()) == []
    assert load_config(environ={}, needs_database=False).script_location.is_dir()


def test_the_ini_is_found_as_argument_then_in_the_environment(elsewhere: Path) -> None:
    path = elsewhere / "other.ini"
    path.write_text("[genesis-migrate]\nuri = mongodb://other/db\nscript_location = steps\nlock_wait = 7\n")
    for found in (
        load_config(ini=path, environ={}),
        load_config(environ={"GENESIS_MIGRATE_CONFIG": str(path)}),
    ):
        assert "other" in found.where
        assert found.script_location == elsewhere / "steps"
        assert found.lock_wait == 7
    with pytest.raises(MigrationError, match="does not exist"):
        load_config(ini=elsewhere / "none.ini", environ={})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[genesis_migrate]\n", "unknown section"),
        ("[genesis-migrate]\nurl = x\n", "unknown key 'url'"),
        ("[genesis-migrate]\nlock_lease = soon\n", "lock_lease must be a number"),
        ("[genesis-migrate]\nlock_lease = 0.1\n", "at least 0.5"),
        ("[genesis-migrate]\nbatch_size = 0\n", "batch_size"),
        ("[genesis-migrate]\nuri = http://x\n", "must begin with mongodb://"),
        (f"uri = mongodb://u:{CANARY}@h/db\n", "not a valid ini file"),
        ("[imports]\nmlruns = /x\n", "unknown key 'mlruns'"),
        ("[imports]\nfile_store = /no/such/folder\n", "not a folder"),
        (f"[imports]\nsql_database = oracle://u:{CANARY}@h/db\n", "SQLAlchemy URI"),
    ],
)
def test_a_bad_file_is_named_and_its_secrets_are_not(elsewhere: Path, text: str, said: str) -> None:
    write(elsewhere, text)
    with pytest.raises(MigrationError, match=said) as caught:
        load_config(None if "uri" in text else "mongodb://h/db", environ={})
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(CANARY in str(error) for error in chain)


def test_imports_are_read_and_their_password_hidden(elsewhere: Path) -> None:
    (elsewhere / "mlruns").mkdir()
    write(
        elsewhere,
        f"[imports]\nfile_store = {elsewhere}/mlruns\nsql_database = postgresql+psycopg://u:{CANARY}@h/mlflow\n",
    )
    imports = load_config("mongodb://h/db", environ={}).imports
    assert imports.file_store == elsewhere / "mlruns"
    assert imports.sql_database is not None
    assert imports.sql_database.reveal().endswith("/mlflow")
    assert CANARY not in repr(imports)


def test_the_shipped_file_explains_every_key_and_sets_none() -> None:
    text = SHIPPED.read_text()
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert {section: dict(parser[section]) for section in parser.sections()} == {SECTION: {}, "imports": {}}
    commented = [
        line[2:].partition(" = ")[0] for line in text.splitlines() if line.startswith("# ") and " = " in line
    ]
    assert commented == [*KEYS, *IMPORT_KEYS]


def test_the_defaults_in_the_shipped_file_are_the_defaults() -> None:
    text = SHIPPED.read_text()
    for line in (
        f"# lock_lease = {config_module.LOCK_LEASE:g}",
        f"# lock_wait = {config_module.LOCK_WAIT:g}",
        f"# batch_size = {config_module.BATCH_SIZE}",
    ):
        assert line in text
