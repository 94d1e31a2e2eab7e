"""``genesis-flow usage``: what people and programs see of it."""

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genesis_flow.cli.usage.report import Report

INCOMPLETE = 3
_HOUR_MS = 3_600_000
_UNITS = {"h": _HOUR_MS, "d": 24 * _HOUR_MS, "w": 7 * 24 * _HOUR_MS}
_AGO = re.compile(r"(\d{1,6})([hdw])")
_ERASE = "\r\x1b[K"


def since_time(
    _context: click.Context | None, _option: click.Parameter | None, text: str | None
) -> int | None:
    """A time ago, or a date, as milliseconds since 1970."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return max(0, round(time.time() * 1000) - int(ago[1]) * _UNITS[ago[2]])
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time ago, such as 30d, 12h or 4w, nor a date, such as 2026-11-01."
        ) from None
    return max(0, round(day.timestamp() * 1000))


@click.command(context_settings={"max_content_width": 100})
@click.argument("uri", required=False)
@click.option("--uri", "named", metavar="URI", help="The database, as other commands take it.")
@click.option(
    "--since",
    callback=since_time,
    metavar="TIME",
    help="Only runs that started since then, and traces and models made since: 30d, 12h, 4w, or a date.",
)
@click.option(
    "--exact", is_flag=True, help="Count all points, however many: they are estimated from a million on."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with plots, too. It needs no network.",
)
@click.pass_context
def usage(
    context: click.Context,
    uri: str | None,
    named: str | None,
    since: int | None,
    exact: bool,
    as_json: bool,
    html: Path | None,
) -> None:
    """Count what there is: whose, of which day, and how large.

    Runs, points, traces and models by experiment, user and day (UTC), with the ten largest, and what each
    collection takes and grows. URI is that of a store; else the environment (MLFLOW_TRACKING_URI,
    GENESIS_FLOW_MONGODB_URI), else mlflow.conf, else ./genesis-data. All workspaces are counted. Nothing is
    written to the database, and nothing is sent anywhere. The right to find is enough; sizes on disk need
    collStats.

    \b
    Examples:
      genesis-flow usage mongodb://db/mlflow
      genesis-flow usage --since 30d --html usage.html
      genesis-flow usage --json | jq '.by_user[] | {user, points}'

    \b
    Exit codes:
      0  everything was counted
      1  the database could not be asked, or the file not be written
      2  a wrong option
      3  something is left out, for lack of a right or since the server refused: the report says which
    """
    if uri and named:
        raise click.UsageError("Name the database once, as an argument or with --uri.")
    from genesis_flow.cli.look import answers, text  # import MLflow: --help need not wait
    from genesis_flow.cli.usage import page, words

    report = _counted(uri or named, since, exact)
    if html is not None:
        html.write_text(page.page(report), encoding="utf-8")
    if as_json:
        click.echo(answers.dumped(report))
    else:
        for line in words.lines(report, text.terminal_width()):
            click.echo(line)
        if html is not None:
            click.echo(f"\nWrote {html}.")
    context.exit(INCOMPLETE if report["gaps"] else 0)


def _counted(uri: str | None, since: int | None, exact: bool) -> "Report":
    from genesis_flow.cli.usage.report import made
    from genesis_flow.cli.usage.source import Source
    from genesis_flow.core.settings import Settings
    from genesis_flow.migrate.config import MigrateConfig, opened
    from genesis_flow.migrate.files import folder

    settings = Settings.resolve(uri)
    with opened(MigrateConfig(settings=settings, script_location=folder()), creates=False) as target:
        # Not the primary that migrations ask: reads go where the URI says.
        db = target.db.client.get_database(settings.database)
        shows = sys.stderr.isatty()
        try:
            return made(Source(db, settings, _tell if shows else _silent), since, exact=exact)
        finally:
            if shows:
                click.echo(_ERASE, err=True, nl=False)


def _tell(text: str) -> None:
    click.echo(f"{_ERASE}Counting {text} ...", err=True, nl=False)


def _silent(text: str) -> None:
    """Nobody looks."""
