"""What the commands of ``genesis-migrate`` share: the target's options, exit codes, answers."""

import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from mlflow.exceptions import MlflowException

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask
from genesis_flow.migrate.config import MigrateConfig, load_config
from genesis_flow.migrate.errors import ERROR, OK, USAGE, MigrationError
from genesis_flow.migrate.lock import Holder

EXIT_CODES = """\b
Exit codes:
  0   done, or nothing to do
  1   an error: bad settings, no connection, a missing right, a failed step
  2   steps are pending (plan, current --check)
  3   another run holds the lock, or this run lost it
  4   the file of an applied step was changed
  5   files and database disagree: a missing file, an unknown newer step,
      or an older step that was never applied
  6   check found a difference between documents and server
  7   refused: data would be lost without --accept-data-loss
  64  the command line was wrong
"""


class Commands(click.Group):
    """Exit codes of our own: click's 2 for a wrong command line would mean that steps are pending."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.params.extend(target_options())
        super().add_command(cmd, name)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        def call() -> Any:
            return super(Commands, self).main(args, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return call()
        try:
            sys.exit(call() or OK)
        except click.ClickException as exc:
            exc.show()
            sys.exit(USAGE if isinstance(exc, click.UsageError) else ERROR)
        except (GenesisFlowError, MlflowException) as exc:
            click.echo(f"Error: {mask(str(exc))}", err=True)
            sys.exit(exc.exit_code if isinstance(exc, MigrationError) else ERROR)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted: run the command again to go on.", err=True)
            sys.exit(ERROR)


@dataclasses.dataclass
class Target:
    """The options that every command takes, before its name or after it."""

    uri: str | None = None
    ini: Path | None = None
    quiet: bool = False


def _kept(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        setattr(context.ensure_object(Target), str(option.name), value)


def target_options() -> list[click.Option]:
    return [
        click.Option(
            ["--uri"],
            metavar="URI",
            expose_value=False,
            callback=_kept,
            help="The database: mongodb://host/database[#prefix] or genesis:///dir. Else the environment "
            "(MLFLOW_TRACKING_URI, GENESIS_FLOW_MONGODB_URI), else alembic_like.ini, else mlflow.conf, else "
            "./genesis-data.",
        ),
        click.Option(
            ["-c", "--config", "ini"],
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_kept,
            help="The configuration file; else GENESIS_MIGRATE_CONFIG, else ./alembic_like.ini.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_kept,
            help="No progress on standard error.",
        ),
    ]


class WithRevision(click.Command):
    """Lets ``-1`` stand for a revision rather than for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for index, text in enumerate(args):
            if text[:1] == "-" and text[1:].isdigit():
                return super().parse_args(ctx, [*args[:index], *args[index + 1 :], "--", text])
        return super().parse_args(ctx, args)


def _progress(text: str) -> None:
    click.echo(mask(text), err=True)


def _quiet(text: str) -> None:
    """--quiet was given."""


def die_cleanly_when_terminated() -> None:
    """SIGTERM as Ctrl-C: the interrupted step is recorded as such and the lock given up at once."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def config_of(context: click.Context, *, database: bool = True) -> MigrateConfig:
    """The settings of the call; commands that only read files get by without a database."""
    target = context.ensure_object(Target)
    # A program that asks for JSON may read both outputs as one.
    for_program = context.params.get("as_json") and not sys.stderr.isatty()
    report = _quiet if target.quiet or for_program else _progress
    return load_config(target.uri, target.ini, needs_database=database, report=report)


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON shows it; a lock's token is nobody's business."""
    fields = dataclasses.asdict(value)
    if isinstance(value, Holder):
        fields.pop("token")
    elif isinstance(fields.get("lock"), dict):
        fields["lock"].pop("token")
    return fields


def answer(value: Any, lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        click.echo(mask(json.dumps(value, default=str, indent=2)))
    else:
        for line in lines:
            click.echo(mask(line))
