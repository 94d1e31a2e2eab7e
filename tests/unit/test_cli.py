"""The frame of the commands: help, versions, errors. What single commands do is tested with their areas."""

import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.version import VERSION

from genesis_flow.cli.errors import Commands
from genesis_flow.cli.main import cli
from genesis_flow.cli.quickstart import SERVER_REQUIREMENTS, embedded_uri
from genesis_flow.compat import packages
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.settings import Embedded, Settings

ROOT = Path(__file__).parents[2]
CANARY = "p4ssw0rd-canary"
LOADED_AFTER_HELP = """
import sys
from genesis_flow.cli.main import cli
try:
    cli(["{argument}"])
except SystemExit as left:
    assert left.code == 0, left.code
print("loaded:", [name for name in ("mlflow", "beanie", "pymongo") if name in sys.modules])
"""


@pytest.mark.parametrize("argument", ["--help", "-h", "--version"])
def test_help_and_version_do_not_wait_for_mlflow(argument: str) -> None:
    program = LOADED_AFTER_HELP.format(argument=argument)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_version_names_what_bug_reports_need() -> None:
    output = CliRunner().invoke(cli, ["--version"]).output
    for name in ("genesis-flow 0.1.0", f"MLflow {VERSION}, tested", "pymongo 4.", "beanie 2.", "Python 3."):
        assert name in output


def test_version_says_whether_mlflow_was_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", lambda: "3.99.0")
    output = CliRunner().invoke(cli, ["--version"]).output
    assert f"MLflow 3.99.0, not tested; {packages.TESTED_IN_WORDS} are" in output


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    output = CliRunner().invoke(cli, ["--help"]).output
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert "quickstart" in names
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None
        (line,) = (line for line in output.splitlines() if line.split()[:1] == [name])
        assert line.split(maxsplit=1)[1] == command.get_short_help_str(limit=200)


def test_an_unknown_command_is_named() -> None:
    result = CliRunner().invoke(cli, ["quikstart"])
    assert result.exit_code == 2
    assert "quikstart" in result.stderr


def failing(error: Exception) -> click.Group:
    @click.group(cls=Commands)
    @click.option("--debug", is_flag=True)
    def group(debug: bool) -> None:
        pass

    @group.command()
    def fail() -> None:
        raise error

    return group


@pytest.mark.parametrize(
    "error",
    [
        MlflowException(f"cannot reach\n mongodb://me:{CANARY}@db/x"),
        GenesisFlowError(f"cannot reach mongodb://me:{CANARY}@db/x"),
        OSError(f"cannot reach mongodb://me:{CANARY}@db/x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_one_line_without_password(error: Exception) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: cannot reach mongodb://me:***@db/x\n"


def test_an_unforeseen_error_says_how_to_see_more() -> None:
    result = CliRunner().invoke(failing(ZeroDivisionError("by 0")), ["fail"])
    assert result.exit_code == 1
    assert result.stderr == "Error: ZeroDivisionError: by 0 (genesis-flow --debug ... shows where)\n"


def test_debug_shows_the_traceback_without_password() -> None:
    group = failing(MlflowException(f"cannot reach mongodb://me:{CANARY}@db/x"))
    result = CliRunner().invoke(group, ["--debug", "fail"])
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "raise error" in result.stderr
    assert CANARY not in result.stderr


@pytest.mark.parametrize("error", [click.UsageError("this way"), click.exceptions.Exit(3), click.Abort()])
def test_clicks_own_exceptions_keep_their_exit_codes(error: Exception) -> None:
    expected = {click.UsageError: 2, click.exceptions.Exit: 3, click.Abort: 1}[type(error)]
    assert CliRunner().invoke(failing(error), ["fail"]).exit_code == expected


def test_the_quickstart_advises_what_the_extra_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["server"] == list(SERVER_REQUIREMENTS)


@pytest.mark.parametrize("name", ["plain", "with space", "ümlaut", "per%cent", "hash#question?"])
def test_the_uri_that_the_quickstart_prints_leads_to_the_directory(tmp_path: Path, name: str) -> None:
    settings = Settings.resolve(embedded_uri(tmp_path / name), environ={})
    assert settings.target == Embedded(tmp_path / name)
