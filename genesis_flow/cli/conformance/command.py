"""``genesis-flow conformance``: what people and programs see of it."""

import dataclasses
import json
import os
import platform
import textwrap
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click

from genesis_flow.cli.errors import describe
from genesis_flow.compat import packages

if TYPE_CHECKING:
    from genesis_flow.cli.conformance.outcome import Outcome
    from genesis_flow.cli.conformance.trial import Trial

_COLOURS = {"pass": "green", "fail": "red", "absent": "yellow", "skip": "bright_black"}
_WIDTH = 110
_INDENT = " " * 26
_NOT_MADE = 3


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--uri",
    metavar="URI",
    help="mongodb://host/database or genesis:///dir; the database in it is not touched. Else as for a store.",
)
@click.option("--portable", is_flag=True, help="Use the portable profile, as for Azure Cosmos DB (RU).")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each check may take.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.pass_context
def conformance(
    context: click.Context, uri: str | None, portable: bool, timeout: float, as_json: bool
) -> None:
    """Try out on a server what genesis_flow asks of it.

    In a database of its own, which is made for it under a new name and dropped at the end; others are not
    touched. The user needs the right to make and to drop databases. The report names no host, user or
    password, so it can be posted.

    \b
    Examples:
      genesis-flow conformance --uri mongodb://db/mlflow
      genesis-flow conformance --uri mongodb://db/mlflow --json > report.json

    \b
    Exit codes:
      0  everything that genesis_flow needs works there
      1  something does not
      2  a wrong option
      3  the test was not made: the server is away, or the user may not make a database
    """
    # Imports MLflow: --help need not wait.
    from genesis_flow.cli.conformance import server, stores
    from genesis_flow.cli.conformance.outcome import Outcome, Verdict
    from genesis_flow.cli.conformance.trial import Refused, drop, trial

    environ = {**os.environ, **({"GENESIS_FLOW_PROFILE": "portable"} if portable else {})}
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if not as_json:
            click.echo(_line(outcome))

    try:
        with trial(uri, timeout, environ) as made:
            about = _about(made)
            if not as_json:
                click.echo("\n".join(f"{name}: {value}" for name, value in about.items()) + "\n")
            for outcome in made.outcomes((*server.CHECKS, *stores.CHECKS)):
                tell(outcome)
            made.close_stores()
            drop(made.db)
            gone = made.db.name not in made.db.client.list_database_names()
            tell(
                Outcome("clean-up", Verdict.PASS, "The database of the test is gone.")
                if gone
                else Outcome(
                    "clean-up", Verdict.FAIL, f"The database {made.db.name!r} is still there: drop it."
                )
            )
    except Refused as refusal:
        click.echo(f"Error: {describe(refusal)}", err=True)
        context.exit(_NOT_MADE)
    counted = Counter(str(outcome.verdict) for outcome in outcomes)
    if as_json:
        report = {
            "conforms": not counted["fail"],
            **about,
            "checks": [dataclasses.asdict(outcome) for outcome in outcomes],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo()
        click.echo(", ".join(f"{counted[name]} {name}" for name in _COLOURS if counted[name]))
    context.exit(1 if counted["fail"] else 0)


def _about(made: "Trial") -> dict[str, Any]:
    return {
        **{name: made.without_places(value) for name, value in made.server.items()},
        "genesis-flow": version("genesis-flow"),
        "mlflow": packages.installed() or "missing",
        "pymongo": version("pymongo"),
        "python": platform.python_version(),
    }


def _line(outcome: "Outcome") -> str:
    verdict = click.style(f"{outcome.verdict:<6}", fg=_COLOURS[outcome.verdict])
    reason = textwrap.fill(
        outcome.why,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"{verdict}  {outcome.check:<{len(_INDENT) - 8}}{reason[len(_INDENT) :]}"
