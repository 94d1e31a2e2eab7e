"""The operator's page names every command, exit code and collection, and its example works."""

import re
from pathlib import Path

from genesis_flow.cli.migrate import cli
from genesis_flow.migrate import command, errors
from genesis_flow.migrate.ledger import BOOKKEEPING, State
from tests.migration.helpers import database, make_config, real_steps

PAGE = (Path(__file__).parents[2] / "docs" / "operations-migrations.md").read_text()


def test_every_command_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z-]+)", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(cli.commands)
    # Imports and shards have modules of their own.
    apart = ("import", "import-users", "repack", "shard")
    assert all(callable(getattr(command, name)) for name in rows if name not in apart)


def test_every_exit_code_is_in_the_table() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes


def test_collections_and_states_are_named() -> None:
    assert all(f"`{name}`" in PAGE for name in BOOKKEEPING)
    listed = re.search(r"`state` \((.*?)\)", PAGE, re.DOTALL)
    assert listed
    assert " ".join(listed[1].split()).split(", ") == [
        state.value
        for state in (State.APPLYING, State.APPLIED, State.FAILED, State.REVERTING, State.REVERT_FAILED)
    ]


def test_the_example_step_works(store_uri: str, tmp_path: Path) -> None:
    example = re.search(r'```python\n("""Index runs by user.*?)```', PAGE, re.DOTALL)
    assert example
    location = real_steps(tmp_path / "steps")
    (location / "20290101000000_index_runs_by_user.py").write_text(example[1])
    config = make_config(store_uri, location)
    command.up(config)
    with database(store_uri) as db:
        assert "by_user" in db["runs"].index_information()
        step = command.steps(config)[-1].load()(db=db, prefix="")
        step.downgrade()
        command.down(config, "-1")
        assert "by_user" not in db["runs"].index_information()
