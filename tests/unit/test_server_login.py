"""What ``genesis-flow server`` tells MLflow's login, and what it says of a file that MLflow cannot read."""

import configparser
import stat
from pathlib import Path

import click
import pytest

from genesis_flow.cli.server_login import CONFIG_VARIABLE, SECRET_VARIABLE, login_told
from genesis_flow.cli.server_plan import Wishes, make_plan
from genesis_flow.core.settings import Settings

CANARY = "p%40ss-canary"
URI = f"mongodb://me:{CANARY}@db/x?appName=a%20b"


def told(tmp_path: Path, config: str | None, **environ: str) -> tuple[dict[str, str], str, int]:
    """The environment, the configuration that MLflow reads, and the mode of its file."""
    if config is not None:
        (tmp_path / "given.ini").write_text(config)
        environ[CONFIG_VARIABLE] = str(tmp_path / "given.ini")
    settings = Settings.resolve(URI, environ=environ)
    plan = make_plan(Wishes(backend=URI, others=("--app-name", "basic-auth")), settings, environ)
    with login_told(plan, settings) as whole:
        path = Path(whole.environment[CONFIG_VARIABLE])
        text, mode = path.read_text(), stat.S_IMODE(path.stat().st_mode)
    assert path.exists() == (path.name == "given.ini")
    return dict(whole.environment), text, mode


@pytest.mark.parametrize("config", [None, "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"])
def test_users_are_beside_the_experiments_unless_told_otherwise(tmp_path: Path, config: str | None) -> None:
    environment, text, mode = told(tmp_path, config)
    read = configparser.ConfigParser()
    read.read_string(text)
    assert read["mlflow"]["database_uri"] == "mongodb://db/x?appName=a%20b"
    assert read["mlflow"]["default_permission"] == ("READ" if config is None else "NO_PERMISSIONS")
    assert mode == 0o600
    assert CANARY not in text
    assert len(environment[SECRET_VARIABLE]) == 64


def test_a_database_of_its_own_and_a_key_stay(tmp_path: Path) -> None:
    given = "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///users.db\n"
    environment, text, _ = told(tmp_path, given, **{SECRET_VARIABLE: "mine"})
    assert (text, environment[SECRET_VARIABLE]) == (given, "mine")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (f"[mlflow]\ndatabase_uri = {URI}\n", "write %% for each"),
        ("[other]\na = 1\n", "has no section"),
        (f"{CANARY}\n", "is not what"),
    ],
)
def test_what_mlflow_cannot_read_is_said_without_its_secrets(tmp_path: Path, config: str, said: str) -> None:
    with pytest.raises(click.ClickException, match=said) as caught:
        told(tmp_path, config)
    assert "canary" not in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="cannot be read"):
        told(tmp_path, None, **{CONFIG_VARIABLE: str(tmp_path / "gone.ini")})
