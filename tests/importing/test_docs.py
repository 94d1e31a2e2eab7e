"""The user's page: its commands work as they stand there, its options and exit codes are true."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from genesis_flow.cli.migrate import cli
from genesis_flow.cli.migrate_shared import USAGE
from genesis_flow.importers.artifacts import MODES
from genesis_flow.importers.errors import INCOMPLETE
from genesis_flow.migrate.errors import ERROR, OK
from tests.importing.trees import unpack

PAGE = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()


def _commands() -> list[str]:
    """Of the blocks whose note names this file; others have tests of their own."""
    ours = r"<!-- run by: tests/importing/test_docs.py -->\n```bash\n(.*?)```"
    blocks = "\n".join(re.findall(ours, PAGE, re.DOTALL))
    return [line for line in blocks.splitlines() if line.startswith("genesis-migrate")]


def test_the_commands_work_in_this_order(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unpack("2.22.0", tmp_path)
    monkeypatch.setenv("GENESIS_FLOW_MONGODB_URI", store_uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    commands = _commands()
    assert len(commands) == 5
    journal = ""
    for command in commands:
        command = command.partition("  #")[0].replace("file:///old/mlruns", source.as_uri())
        _, *arguments = shlex.split(command.replace("mlruns-1a2b3c4d", journal))
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == OK, f"{command}\n{done.output}"
        if found := re.search(r"mlruns-[0-9a-f]{8}", done.output):
            journal = found[0]
    assert journal


def test_options_exist_and_choices_are_explained() -> None:
    command = cli.commands["import"]
    known = {name for option in command.params for name in option.opts}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--help"} <= known
    assert re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE) == list(MODES)


def test_exit_codes_are_those_of_the_command() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == {OK, ERROR, INCOMPLETE, USAGE}
