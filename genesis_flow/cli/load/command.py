"""``genesis-flow load``: what people and programs see of it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from genesis_flow.core.settings import Settings

MOST_CLIENTS = 64
MOST_SECONDS = 600
_MOST_SLICES = 60


@click.command(context_settings={"max_content_width": 100})
@click.argument("uri", metavar="[URI]", required=False)
@click.option(
    "--clients",
    type=click.IntRange(1, MOST_CLIENTS),
    default=4,
    show_default=True,
    metavar="N",
    help=f"Processes that work at the same time, at most {MOST_CLIENTS}.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, MOST_SECONDS),
    default=10,
    show_default=True,
    metavar="S",
    help=f"How long they work, at most {MOST_SECONDS}.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the report as a page, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before a server elsewhere gets the load.")
@click.pass_context
def load(
    context: click.Context,
    uri: str | None,
    clients: int,
    seconds: int,
    html: Path | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Measure what a server does for several clients at once.

    Each client is a process that does what a training does: it creates runs, logs single metrics and batches
    of a hundred, and searches. The test makes collections of its own in the database that URI names (else the
    one that a store finds) and drops them at its end; others are not touched. One that was killed is cleaned
    up after by the next, an hour later. The user needs the right to make and to drop collections.

    \b
    Examples:
      genesis-flow load mongodb://db/mlflow
      genesis-flow load --clients 16 --seconds 60 --html report.html mongodb://db/mlflow

    \b
    Exit codes:
      0  all calls succeeded
      1  some failed, or the test was not made
      2  a wrong option, or a number above the bounds
    """
    # Imports MLflow: --help need not wait.
    from genesis_flow.cli.load.report import Report
    from genesis_flow.cli.load.trial import collections_of_a_test, measure
    from genesis_flow.cli.look.text import draws_curves
    from genesis_flow.core.settings import Settings

    if html is not None and not html.absolute().parent.is_dir():
        raise click.UsageError(f"There is no folder {str(html.parent)!r} for the page: make it first.")
    given = Settings.resolve(uri)
    if not (yes or _is_here(given)):
        click.confirm(
            f"Let {clients} clients work on {given.store_uri} for {seconds} s?", abort=True, err=True
        )
    slice_seconds = seconds / min(_MOST_SLICES, max(10, seconds))
    with _ended_properly(), collections_of_a_test(given) as settings:
        figures = measure(settings, clients, seconds, slice_seconds)
    report = Report(given.store_uri, clients, seconds, slice_seconds, figures)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        click.echo("\n".join(report.as_text(draws=draws_curves())))
    if html is not None:
        html.write_text(report.as_html(), encoding="utf-8")
    context.exit(1 if report.failed else 0)


def _is_here(settings: Settings) -> bool:
    """Whether the server is on this machine: nobody else's work waits for it."""
    from genesis_flow.core.settings import Embedded

    if isinstance(settings.target, Embedded):
        return True
    hosts = (re.sub(r":\d+$", "", host).strip("[]") for host in settings.target.hosts.split(","))
    return all(_is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or "%2f" in host.lower():  # a socket's path
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _ended_properly() -> Iterator[None]:
    """A test that is terminated drops its collections as one that is interrupted does."""

    def leave(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
