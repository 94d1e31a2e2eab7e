"""``genesis-flow watch``: runs in a terminal as they change."""

import fnmatch
import sys
from typing import TYPE_CHECKING

import click

from genesis_flow.cli.look.command import database

if TYPE_CHECKING:
    from genesis_flow.cli.look.watcher import Wanted

_INTERRUPTED = 130
_NOT_FINISHED = 3


@click.command(context_settings={"max_content_width": 100})
@click.argument("what", metavar="RUN|EXPERIMENT")
@click.option(
    "--metrics", default="*", metavar="GLOB", help="Only metrics whose names match, such as 'val/*'."
)
@click.option("--from-now", is_flag=True, help="Do not begin with what there is already.")
@click.option("--once", is_flag=True, help="End when all that there is was shown.")
@click.option("--until-finished", is_flag=True, help="End when no run is running any more.")
@click.option("--after", metavar="TOKEN", help="Go on behind an event, by its token.")
@click.option("--tokens", is_flag=True, help="With --json: print the token of each event, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line for each event.")
@database
def watch(
    uri: str | None,
    what: str,
    metrics: str,
    from_now: bool,
    once: bool,
    until_finished: bool,
    after: str | None,
    tokens: bool,
    as_json: bool,
) -> None:
    """Watch a run, or all runs of an experiment, as they change.

    RUN is a run's id, the beginning of one, or a name; EXPERIMENT is a name or an id, if no run is meant.
    In a terminal the curves are drawn anew; elsewhere each event is a line. Ctrl-C ends it.

    \b
    Exit codes:
      0    all was shown, or with --until-finished: all runs are FINISHED
      1    an error, such as a database that cannot be reached
      3    with --until-finished: a run is FAILED or KILLED
      130  Ctrl-C

    \b
    Examples:
      genesis-flow watch 3f2a91c0
      genesis-flow watch "first steps" --metrics "val/*" --until-finished
      genesis-flow watch "first steps" --json | jq -c "select(.event == \\"metric_logged\\")"
    """
    from genesis_flow.cli.look import watcher  # imports MLflow: --help need not wait

    wanted: Wanted = watcher.Wanted(
        what,
        matches=lambda key: fnmatch.fnmatchcase(key, metrics),
        start="now" if from_now else "beginning",
        after=after,
        is_once=once,
        until_finished=until_finished,
    )
    screen: watcher.Output
    if as_json:
        screen = watcher.JsonLines(with_tokens=tokens)
    elif sys.stdout.isatty():
        screen = watcher.Screen()
    else:
        screen = watcher.Lines()
    try:
        all_finished = watcher.run(uri, wanted, screen)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    if not all_finished:
        sys.exit(_NOT_FINISHED)
