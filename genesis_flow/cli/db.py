"""``genesis-flow db``: the embedded MongoDB of a directory."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from genesis_flow import embedded
from genesis_flow.cli.directory import DataDirectory
from genesis_flow.embedded import Status

NOT_RUNNING = 3

_directory = click.argument("directory", type=DataDirectory(), default="genesis-data")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def db() -> None:
    """Start, stop and look at the embedded MongoDB of a directory.

    It starts by itself when a program uses genesis:///DIRECTORY, and stops some seconds after the last one
    has ended. DIRECTORY is a folder or its genesis:// URI, ./genesis-data unless given.
    """


@db.command()
@_directory
@_as_json
def start(directory: Path, as_json: bool) -> None:
    """Start the MongoDB in DIRECTORY and keep it running until `genesis-flow db stop`.

    \b
    Examples:
      genesis-flow db start
      genesis-flow db start /srv/tracking
    """
    _report(embedded.start(directory), as_json)


@db.command()
@_directory
@_as_json
@click.option(
    "--force", is_flag=True, help="Stop it even if programs use it; their next call starts it again."
)
def stop(directory: Path, as_json: bool, force: bool) -> None:
    """Stop the MongoDB in DIRECTORY. Nothing that was acknowledged is lost.

    \b
    Examples:
      genesis-flow db stop
      genesis-flow db stop --force /srv/tracking
    """
    _report(embedded.stop(directory, force=force), as_json)


@db.command()
@_directory
@_as_json
@click.pass_context
def status(context: click.Context, directory: Path, as_json: bool) -> None:
    """Say whether the MongoDB in DIRECTORY runs. Exit code 0 if it does, 3 if not.

    \b
    Examples:
      genesis-flow db status
      genesis-flow db status --json /srv/tracking
    """
    found = embedded.status(directory)
    _report(found, as_json)
    context.exit(0 if found.running else NOT_RUNNING)


def _report(status: Status, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(status), default=str))
        return
    if not status.directory.is_dir():
        click.echo(f"MongoDB in {status.directory}: no such folder")
        return
    state = "stopped"
    if status.running:
        use = "in use" if status.in_use else "not in use"
        stays = "stays until `genesis-flow db stop`" if status.pinned else "stops when nobody uses it"
        state = f"running (process {status.pid}), {use}, {stays}"
    click.echo(f"MongoDB in {status.directory}: {state}")
    click.echo(f"data: {status.data_bytes / 1e6:.1f} MB, log: {status.log}")
    if status.uri:
        click.echo(f"for other tools: {status.uri}")
