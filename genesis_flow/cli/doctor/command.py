"""``genesis-flow doctor``: what people and programs see of it."""

import dataclasses
import json
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from genesis_flow.core.redact import mask

if TYPE_CHECKING:
    from genesis_flow.cli.doctor.finding import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_WIDTH = 110
_NAMES = 12


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--uri",
    metavar="URI",
    help="mongodb://host/database[#prefix] or genesis:///dir. Else the environment (MLFLOW_TRACKING_URI, "
    "GENESIS_FLOW_MONGODB_URI), else mlflow.conf, else ./genesis-data.",
)
@click.option(
    "--artifact-root", metavar="URI", help="Where artifacts are kept; else as for a store. Probed by a file."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the server, and for each longer check.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Read all documents too: whether they agree, and all that has lost its parent.",
)
@click.option("--repair", is_flag=True, help="Finish half-done changes, and remove what has lost its parent.")
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.pass_context
def doctor(
    context: click.Context,
    uri: str | None,
    artifact_root: str | None,
    timeout: float,
    deep: bool,
    repair: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Check a database and everything around it, and say what to do.

    Connection, TLS, rights, server, schema, indexes, clock, artifact root, pool, half-done changes, remains
    of what is deleted. Nothing is written but one small file below the artifact root, which is removed again;
    an embedded MongoDB is started if need be.

    \b
    Examples:
      genesis-flow doctor --uri mongodb://db/mlflow
      genesis-flow doctor --json --strict > report.json
      genesis-flow doctor --uri mongodb://db/mlflow --deep --repair

    \b
    Exit codes:
      0  nothing is broken (warnings may be shown)
      1  something is, or with --strict a warning was shown
      2  a wrong option
    """
    from genesis_flow.cli.doctor.checkup import Checkup  # imports MLflow: --help need not wait

    checkup = Checkup(uri, artifact_root, timeout, deep=deep or repair, repair=repair)
    findings = []
    if not as_json:
        click.echo(mask(checkup.title))
        click.echo()
    for finding in checkup.findings():
        findings.append(finding)
        if not as_json:
            click.echo(mask(_line(finding)))
    counted = Counter(str(finding.verdict) for finding in findings)
    broken = counted["fail"] > 0 or (strict and counted["warn"] > 0)
    if as_json:
        report = {
            "database": checkup.where,
            "healthy": not broken,
            "checks": [dataclasses.asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(_masked(report), indent=2))
    else:
        click.echo()
        click.echo(", ".join(f"{counted[name]} {name}" for name in _COLOURS if counted[name]))
    context.exit(1 if broken else 0)


def _masked(value: Any) -> Any:
    """The value with passwords masked in every text, and nothing in it that JSON does not know."""
    if isinstance(value, dict):
        return {str(key): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return mask(str(value))


def _line(finding: "Finding") -> str:
    indent = " " * (_NAMES + 7)
    head = f"{click.style(f'{finding.verdict:<5}', fg=_COLOURS[finding.verdict])} {finding.check:<{_NAMES}} "
    lines = [head + _filled(finding.message, indent, indent)[len(indent) :]]
    if finding.advice:
        lines.append(_filled(finding.advice, f"{indent}> ", f"{indent}  "))
    return "\n".join(lines)


def _filled(text: str, first: str, others: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    )
