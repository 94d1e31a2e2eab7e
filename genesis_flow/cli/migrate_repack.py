"""``genesis-migrate repack``: histories of metrics in few bytes."""

import time
from typing import TYPE_CHECKING

import click

from genesis_flow.cli.migrate_shared import answer, config_of
from genesis_flow.migrate import command
from genesis_flow.migrate.batches import REPORT_SECONDS
from genesis_flow.migrate.errors import MigrationError

if TYPE_CHECKING:
    from genesis_flow.cli.repack import Repacked


@click.command("repack")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; reads all, writes nothing.")
@click.option(
    "--blocks-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Read no more blocks a second than this, to spare a server that is in use.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
def repack_command(
    context: click.Context, dry_run: bool, blocks_per_second: float | None, as_json: bool
) -> None:
    """Rewrite the histories of metrics so that they take fewer bytes and their curves are read faster.

    For histories that were logged by a genesis_flow before format 2, or imported. Programs may log and read
    meanwhile. What was interrupted is done by the next run. MongoDB uses the space that becomes free for new
    documents; `compact` gives it back to the system.

    \b
    Examples:
      genesis-migrate repack --dry-run
      genesis-migrate repack --blocks-per-second 200
    """
    from genesis_flow.cli.repack import repack  # takes a second, which the other commands save

    config = config_of(context)
    if not command.at_head(config):
        raise MigrationError(
            f"The schema of {config.where} is not the newest: run `genesis-migrate up`, and repack then."
        )
    if config.settings.portable:
        raise MigrationError(
            f"{config.where} is used by the portable profile, under which histories do not settle: leave it "
            "as it is."
        )
    reported = time.monotonic()

    def report(done: "Repacked") -> None:
        nonlocal reported
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            config.report(
                f"repack: {done.histories:,} histories, {done.points:,} points, "
                f"{done.bytes_before:,} bytes to {done.bytes_after:,}"
            )

    done = repack(config.settings, dry_run=dry_run, blocks_a_second=blocks_per_second, report=report)
    verb = "would be rewritten" if dry_run else "rewritten"
    lines = [
        f"{done.rewritten:,} of {done.histories:,} histories {verb}: {done.points:,} points",
        f"blocks  {done.blocks_before:,} to {done.blocks_after:,}",
        f"bytes   {done.bytes_before:,} to {done.bytes_after:,}",
    ]
    if not done.blocks_before:
        lines = ["Nothing to do."]
    answer({"database": config.where, "dry_run": dry_run, **done.plain()}, lines, as_json)
