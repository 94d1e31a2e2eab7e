"""``genesis-migrate import``: bring over what another MLflow store holds, prove it, take it back."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from genesis_flow.cli.migrate_shared import Target, answer, config_of
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.errors import OK

if TYPE_CHECKING:
    from genesis_flow.importers.engine import Options, Outcome
    from genesis_flow.importers.progress import Progress

INCOMPLETE = 3
MOST_WORKERS = 64
# The options that they take beside --json; to ignore others silently would look as if they were obeyed.
_HEEDED = {"verify": {"source", "experiments", "since"}, "journal": {"force"}, "list_journals": set[str]()}

_EPILOG = """\b
Exit codes:
  0   everything is imported (--verify: source and target are equal; 3 if something is named besides)
  1   an error, a conflict under --on-conflict fail, a problem under --on-error stop
      (--verify: there are differences)
  3   (--rollback: some things were left in place)
      imported, but some things had to be left out, since they cannot be read or since the
      target has no place for them: they are listed with their reasons
      (also: another run holds the lock)
  64  the command line was wrong
"""


def _milliseconds(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A date, a date with a time, or milliseconds since 1970."""
    if value is None:
        return None
    if value.isdigit() and len(value) > len("20261101"):
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is no time: write 2026-11-01, 2026-11-01T08:00 or milliseconds.", context, option
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command(name="import", epilog=_EPILOG)
@click.argument("source", required=False)
@click.option(
    "--analyze", is_flag=True, help="Read everything, write nothing: counts, problems, conflicts, time."
)
@click.option("--verify", is_flag=True, help="Read source and target again and compare them.")
@click.option(
    "--rollback",
    "journal",
    metavar="JOURNAL",
    help="Remove what an import created, and only that; what was changed since stays and is named.",
)
@click.option("--force", is_flag=True, help="With --rollback: remove also what was changed since.")
@click.option("--list", "list_journals", is_flag=True, help="List the imports of this database.")
@click.option(
    "--artifacts",
    type=click.Choice(["reference", "copy", "none"]),
    default="reference",
    show_default=True,
    help="Leave artifacts where they are, copy them to the target's artifact root, or leave them behind.",
)
@click.option(
    "--artifact-root",
    metavar="URI",
    help="Where the target keeps artifacts; else GENESIS_FLOW_ARTIFACT_ROOT, else the folder of genesis://.",
)
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="ID|NAME",
    help="Only this experiment and what belongs to it; may be repeated.",
)
@click.option(
    "--since",
    callback=_milliseconds,
    metavar="TIME",
    help="Only what began or changed from then on (UTC unless it names a zone).",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=1,
    show_default=True,
    help="Processes that read and convert side by side.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    show_default=True,
    help="What to do about something that cannot be read.",
)
@click.option(
    "--on-conflict",
    type=click.Choice(["fail", "skip", "rename"]),
    default="fail",
    show_default=True,
    help="What to do when the target holds something else under the same id or name.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every problem to this file, a JSON object on each line.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document, and no progress without a terminal."
)
@click.pass_context
def import_command(context: click.Context, /, source: str | None, as_json: bool, **asked: Any) -> None:
    """Bring over an mlruns folder or an SQL database of MLflow.

    SOURCE is file:///old/mlruns (or a path), or an SQLAlchemy URI such as sqlite:///mlflow.db or
    postgresql://user@host/mlflow. Ids, names, times, stages and version numbers are kept. The command can be
    killed at any moment and run again; run later, it brings what is new in the source.

    \b
    Examples:
      genesis-migrate import file:///old/mlruns --analyze
      genesis-migrate import file:///old/mlruns --workers 4
      genesis-migrate import sqlite:///mlflow.db --artifacts copy
      genesis-migrate import file:///old/mlruns --verify
      genesis-migrate import file:///old/mlruns --since 2026-11-01
      genesis-migrate import --list
      genesis-migrate import --rollback mlruns-1a2b3c4d
    """
    config = config_of(context)
    modes = [name for name in ("analyze", "verify", "journal", "list_journals") if asked[name]]
    if len(modes) > 1:
        raise click.UsageError("Choose one of --analyze, --verify, --rollback and --list.")
    for mode in modes:
        _refuse_ignored(context, mode)
    if asked["force"] and not asked["journal"]:
        raise click.UsageError("--force goes with --rollback: leave it out.")
    if asked["list_journals"]:
        _list(config, as_json)
    elif asked["journal"]:
        context.exit(_rollback(config, asked["journal"], as_json, force=asked["force"]))
    elif not source:
        raise click.UsageError("Name the source: an mlruns folder or an SQL URI.")
    elif asked["verify"]:
        context.exit(_verify(config, source, asked, as_json))
    else:
        quiet = context.ensure_object(Target).quiet
        context.exit(_import(config, source, asked, as_json, quiet))


def _refuse_ignored(context: click.Context, mode: str) -> None:
    flags = {str(option.name): option.opts[0] for option in context.command.params}
    ignored = [
        "SOURCE" if name == "source" else flags[name]
        for name in context.params.keys() - {mode, "as_json"} - _HEEDED.get(mode, context.params.keys())
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if ignored:
        raise click.UsageError(f"{flags[mode]} does not take {' or '.join(sorted(ignored))}: leave it out.")


def options_of(asked: dict[str, Any]) -> "Options":
    from genesis_flow.importers.engine import Options
    from genesis_flow.importers.records import Filters

    return Options(
        filters=Filters(tuple(asked["experiments"]), asked["since"]),
        workers=asked["workers"],
        stop_on_error=asked["on_error"] == "stop",
        on_conflict=asked["on_conflict"],
        artifacts=asked["artifacts"],
        artifact_root=asked["artifact_root"],
        report=asked["report_file"],
    )


def _import(config: MigrateConfig, source: str, asked: dict[str, Any], as_json: bool, quiet: bool) -> int:
    from genesis_flow.importers.engine import import_parts
    from genesis_flow.importers.report import lines_of, plain_of

    outcomes = import_parts(
        config,
        source,
        options_of(asked),
        lambda: progress_of(config, quiet),
        analyzes=asked["analyze"],
    )
    _answer([plain_of(each) for each in outcomes], [lines_of(each) for each in outcomes], as_json)
    return max(exit_code(each) for each in outcomes)


def _answer(reports: list[dict[str, Any]], parts: list[list[str]], as_json: bool) -> None:
    """One report, as ever; several where the workspaces of the source are kept."""
    lines = [line for part in parts for line in ("", *part)][1:]
    answer(reports[0] if len(reports) == 1 else {"workspaces": reports}, lines, as_json)


def exit_code(outcome: "Outcome") -> int:
    return OK if outcome.complete else INCOMPLETE


def progress_of(config: MigrateConfig, quiet: bool) -> "Progress":
    from genesis_flow.importers.progress import Bar, Lines

    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet:
        return Bar()
    return Lines(config.report)


class ConfiguredImports:
    """The imports that ``up`` does behind the steps; the modules are loaded only if there are any."""

    def __init__(self, config: MigrateConfig, when: str, quiet: bool) -> None:
        self._config = config
        self._when = when
        self._quiet = quiet
        self.planned: list[str] = []
        self._outcomes: list[Outcome] = []

    def plan(self) -> None:
        if self._config.imports:
            from genesis_flow.importers.configured import pending_imports, source_name

            self.planned = [source_name(uri) for uri in pending_imports(self._config, self._when)]

    def run(self) -> None:
        if self._config.imports:
            from genesis_flow.importers.configured import run_configured

            self._outcomes = run_configured(
                self._config, self._when, lambda: progress_of(self._config, self._quiet)
            )

    @property
    def exit_code(self) -> int:
        return max((exit_code(outcome) for outcome in self._outcomes), default=OK)

    def lines(self) -> list[str]:
        if not self._outcomes:
            return [f"would import {name}" for name in self.planned]
        from genesis_flow.importers.report import lines_of

        return [line for outcome in self._outcomes for line in ("", *lines_of(outcome))]

    def plain(self) -> list[Any]:
        if not self._outcomes:
            return list(self.planned)
        from genesis_flow.importers.report import plain_of

        return [plain_of(outcome) for outcome in self._outcomes]


def _verify(config: MigrateConfig, source: str, asked: dict[str, Any], as_json: bool) -> int:
    from genesis_flow.importers.verify.command import verify_parts

    def tell(kind: str, done: int) -> None:
        config.report(f"{kind.replace('_', ' ')}: {done:,} compared")

    parts = verify_parts(config, source, options_of(asked).filters, tell)
    _answer([each.plain() for each in parts], [each.lines() for each in parts], as_json)
    codes = [each.exit_code for each in parts]
    return 1 if 1 in codes else max(codes)


def _rollback(config: MigrateConfig, journal: str, as_json: bool, *, force: bool) -> int:
    from genesis_flow.importers.report import plain_problem, rollback_lines
    from genesis_flow.importers.rollback import rollback

    done = rollback(config, journal, force=force)
    report = {
        "journal": done.journal,
        "source": done.source,
        "removed": done.removed,
        "kept": [plain_problem(each) for each in done.kept],
    }
    answer(report, rollback_lines(done), as_json)
    return INCOMPLETE if done.kept else OK


def _list(config: MigrateConfig, as_json: bool) -> None:
    from genesis_flow.importers.journal import journals

    found = journals(config)
    lines = [
        f"{each['journal']:<32} {_state(each['state']):<31} {_moment(each['last_update_time'])}  "
        f"{each['source']}{_of_workspace(each)}"
        for each in found
    ]
    answer(found, lines or ["Nothing was imported into this database."], as_json)


def _of_workspace(journal: dict[str, Any]) -> str:
    return "" if journal["workspace"] == "default" else f" (workspace {journal['workspace']})"


def _state(state: str) -> str:
    """As the help says it."""
    return "imported, some things left out" if state == "incomplete" else state


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
