"""``genesis-flow db``: the embedded MongoDB of a directory."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genesis_flow import embedded
from genesis_flow.cli.directory import DataDirectory
from genesis_flow.embedded import Status

if TYPE_CHECKING:
    from genesis_flow.cli.backup_file import Contents

NOT_RUNNING = 3

_directory = click.argument("directory", type=DataDirectory(), default="genesis-data")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def db() -> None:
    """Start, stop, look at, back up, restore an embedded MongoDB.

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
    status = embedded.status(directory)
    _report(status, as_json)
    context.exit(0 if status.running else NOT_RUNNING)


@db.command()
@click.argument("places", nargs=-1, required=True, metavar="[DIRECTORY] FILE")
@click.option("--with-artifacts", is_flag=True, help="Also the files in DIRECTORY/artifacts.")
@click.option("--verify", is_flag=True, help="Make nothing: read FILE and compare it with its checksums.")
@_as_json
@click.pass_context
def backup(
    context: click.Context, places: tuple[str, ...], with_artifacts: bool, verify: bool, as_json: bool
) -> None:
    """Write all that the MongoDB in DIRECTORY holds to FILE, as it is at one moment.

    Programs may go on using it. FILE gets its name when it is whole. Artifacts are files in
    DIRECTORY/artifacts, which --with-artifacts takes along, or wherever else they were sent, and then not
    in it.

    \b
    Examples:
      genesis-flow db backup mlflow.backup
      genesis-flow db backup --with-artifacts /srv/tracking /mnt/backups/tracking.backup
      genesis-flow db backup --verify /mnt/backups/tracking.backup
    """
    from genesis_flow.cli import backup as backups  # imports the driver: --help need not wait

    if len(places) > 2 or (verify and len(places) > 1):
        raise click.UsageError("Name a directory and a file, or with --verify the file alone.")
    file = Path(places[-1])
    if verify and with_artifacts:
        raise click.UsageError("--verify compares all that FILE holds: leave out --with-artifacts.")
    if verify:
        _report_backup("Verified", file, None, backups.verify(file), as_json)
        return
    source = DataDirectory().convert(places[0] if len(places) > 1 else "genesis-data", None, context)
    contents = backups.back_up(source.absolute(), file, _say, artifacts=with_artifacts)
    _report_backup("Wrote", file, None, contents, as_json)
    if not with_artifacts:
        _say(f"Not in it: artifacts. --with-artifacts takes along those in {source / 'artifacts'}.")


@db.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=DataDirectory())
@_as_json
def restore(file: Path, directory: Path, as_json: bool) -> None:
    """Make a MongoDB in DIRECTORY, which is empty or not there yet, of the backup in FILE.

    The restored data is read back and compared before DIRECTORY gets its name. Artifacts that FILE holds are
    restored to DIRECTORY/artifacts; their addresses stay as they were.

    \b
    Examples:
      genesis-flow db restore mlflow.backup /srv/tracking
    """
    from genesis_flow.cli import backup as backups  # imports the driver: --help need not wait

    contents = backups.restore(file, directory, _say)
    _report_backup("Restored", file, directory, contents, as_json)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _report_backup(
    done: str, file: Path, directory: Path | None, contents: "Contents", as_json: bool
) -> None:
    if as_json:
        about = {"file": str(file), "file_bytes": file.stat().st_size}
        if directory is not None:
            about["directory"] = str(directory)
        click.echo(json.dumps({**about, **asdict(contents)}, indent=2))
        return
    collections, artifacts = contents.collections.values(), contents.artifacts
    documents = sum(content.documents for content in collections)
    of_bytes = sum(content.bytes for content in collections) / 1e6
    to = f" to {directory}" if directory is not None else ""
    files = f", {artifacts.files:,} artifacts, {artifacts.bytes / 1e6:,.1f} MB" if artifacts else ""
    click.echo(
        f"{done} {file}{to}: {len(collections)} collections, {documents:,} documents, {of_bytes:,.1f} MB"
        f"{files} ({file.stat().st_size / 1e6:,.1f} MB compressed)"
    )


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
