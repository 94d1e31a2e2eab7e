"""``genesis-flow config``: every setting, its value, where it came from, and what is misspelled."""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from genesis_flow.core.options import Option, Reading
    from genesis_flow.core.survey import Survey

_NONE = "-"


@click.command(context_settings={"max_content_width": 100})
@click.option("--uri", metavar="URI", help="The store; else as a store finds it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.pass_context
def config(context: click.Context, uri: str | None, as_json: bool) -> None:
    """Show every setting, its value, and where it came from.

    Passwords and keys show as ***. What is misspelled in mlflow.conf and in the environment is named, with
    the nearest right name, and so is every value that is not valid. Nothing is connected to, and the command
    in GENESIS_FLOW_MONGODB_PASSWORD_COMMAND is not run: `genesis-flow doctor` does both.

    \b
    Exit codes:
      0  all is valid
      1  something is misspelled, has no effect or is not valid
    """
    from genesis_flow.compat.variables import mlflows_variables
    from genesis_flow.core.survey import survey

    found = survey(uri, os.environ, mlflows_variables())
    if as_json:
        click.echo(json.dumps(_report(found), indent=2))
    else:
        click.echo("\n".join(_table(found)))
        for problem in found.problems:
            click.echo(f"Problem: {problem}", err=True)
    context.exit(1 if found.problems else 0)


def _report(found: "Survey") -> dict[str, Any]:
    return {
        "valid": not found.problems,
        "file": str(found.file.absolute()) if found.file else None,
        "settings": [
            {
                "name": option.name,
                "value": _shown(option, reading),
                "source": reading.source,
                "section": option.section or None,
                "variables": list(option.variables),
                "says": option.says,
            }
            for option, reading in found.readings
        ],
        "problems": found.problems,
    }


def _table(found: "Survey") -> Iterator[str]:
    yield f"File: {found.file.absolute() if found.file else 'none'}"
    title = ""
    width = max(len(option.name) for option, _ in found.readings)
    for option, reading in found.readings:
        if title != (title := _title(option)):
            yield f"\n{click.style(title, bold=True)}"
        text = _in_words(_shown(option, reading))
        yield f"  {option.name:<{width}}  {text}  {click.style(f'({reading.source})', dim=True)}"


def _title(option: "Option") -> str:
    if option.section:
        return f"[{option.section}]"
    return "options of the store URI" if option.in_uri else "only in the environment"


def _shown(option: "Option", reading: "Reading") -> Any:
    from genesis_flow.core.options import shown

    return shown(option, reading.value)


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or _NONE
    if isinstance(value, bool):
        return str(value).lower()
    return _NONE if value in (None, "") else str(value)
