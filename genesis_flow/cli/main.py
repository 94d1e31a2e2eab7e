"""``genesis-flow``: the table of contents of the commands."""

import platform
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click

from genesis_flow.cli.errors import Commands
from genesis_flow.compat import packages

# The summaries stand here, and a command's module is imported when the command is used, so that help and
# shell completion do not wait for MLflow.
_COMMANDS = {
    "quickstart": ("genesis_flow.cli.quickstart:quickstart", "Log a small training to an embedded MongoDB."),
    "runs": ("genesis_flow.cli.look.command:runs", "List runs, newest first."),
    "show": (
        "genesis_flow.cli.look.command:show",
        "Show a run: params, metrics with their curves, tags, artifacts.",
    ),
    "compare": ("genesis_flow.cli.look.command:compare", "Compare runs: what differs in params and metrics."),
    "watch": (
        "genesis_flow.cli.look.watch:watch",
        "Watch a run, or all runs of an experiment, as they change.",
    ),
    "server": ("genesis_flow.cli.server:server", "Run MLflow's server and web interface on a MongoDB."),
    "doctor": (
        "genesis_flow.cli.doctor.command:doctor",
        "Check a database and everything around it, and say what to do.",
    ),
    "config": (
        "genesis_flow.cli.config:config",
        "Show every setting, its value, and where it came from.",
    ),
    "usage": (
        "genesis_flow.cli.usage.command:usage",
        "Count what there is: whose, of which day, and how large.",
    ),
    "conformance": (
        "genesis_flow.cli.conformance.command:conformance",
        "Try out on a server what genesis_flow asks of it.",
    ),
    "models": (
        "genesis_flow.cli.models:models",
        "Verify that models are what was logged; seal and sign them.",
    ),
    "load": (
        "genesis_flow.cli.load.command:load",
        "Measure what a server does for several clients at once.",
    ),
    "gateway": (
        "genesis_flow.cli.gateway:gateway",
        "Encrypt the AI gateway's secrets anew; export what it has.",
    ),
    "workspaces": (
        "genesis_flow.cli.workspaces:workspaces",
        "Say what is in which workspace, and move it to another one.",
    ),
    "plugins": (
        "genesis_flow.cli.plugins:plugins",
        "List the plugins for frameworks, and try one out.",
    ),
    "db": (
        "genesis_flow.cli.db:db",
        "Start, stop, look at, back up, restore an embedded MongoDB.",
    ),
    "completion": ("genesis_flow.cli.completion:completion", "Complete commands and options by the tab key."),
}


class LazyCommands(Commands):
    """The commands of the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


def _print_versions(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    mlflow = packages.installed()
    tested = "tested" if packages.is_tested(mlflow) else f"not tested; {packages.TESTED_IN_WORDS} are"
    others = ", ".join(f"{name} {version(name)}" for name in ("pymongo", "beanie"))
    parts = f"MLflow {mlflow or 'missing'}, {tested}; {others}"
    click.echo(f"genesis-flow {version('genesis-flow')} ({parts}, Python {platform.python_version()})")
    ctx.exit()


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of genesis-flow and what it stands on.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(**_options: Any) -> None:
    """MLflow 3 on MongoDB, without a tracking server in between.

    Begin with: genesis-flow quickstart
    """
