"""``python -m genesis_flow.cli``, where the script is not on the path."""

from genesis_flow.cli.main import cli

cli(prog_name="genesis-flow")
