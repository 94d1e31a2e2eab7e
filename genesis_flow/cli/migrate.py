"""``genesis-migrate``: see, plan, apply and undo changes of the schema."""

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from genesis_flow.core.redact import mask
from genesis_flow.migrate import command
from genesis_flow.migrate.batches import span
from genesis_flow.migrate.config import MigrateConfig, load_config
from genesis_flow.migrate.errors import CHANGED, DRIFT, ERROR, MISMATCH, OK, PENDING, USAGE, MigrationError
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


class _Commands(click.Group):
    """Exit codes of our own: click's 2 for a wrong command line would mean that steps are pending."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.params.extend(_target_options())
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
            return super(_Commands, self).main(args, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return call()
        try:
            sys.exit(call() or OK)
        except click.ClickException as exc:
            exc.show()
            sys.exit(USAGE if isinstance(exc, click.UsageError) else ERROR)
        except MigrationError as exc:
            click.echo(f"Error: {mask(str(exc))}", err=True)
            sys.exit(exc.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted: run the command again to go on.", err=True)
            sys.exit(ERROR)


@dataclasses.dataclass
class _Target:
    """The options that every command takes, before its name or after it."""

    uri: str | None = None
    ini: Path | None = None
    quiet: bool = False


def _kept(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        setattr(context.ensure_object(_Target), str(option.name), value)


def _target_options() -> list[click.Option]:
    return [
        click.Option(
            ["--uri"],
            metavar="URI",
            expose_value=False,
            callback=_kept,
            help="The database: mongodb://host/database[#prefix] or genesis:///dir. Else the environment "
            "(MLFLOW_TRACKING_URI, GENESIS_FLOW_MONGODB_URI), else alembic_like.ini.",
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


@click.group(
    cls=_Commands,
    params=[*_target_options()],
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Migrate the schema of a genesis_flow database.

    Steps are files in the migrations folder, applied in the order of their versions. A REV is a version, the
    beginning of one, or a step's name.

    \b
    Examples:
      genesis-migrate status                     where the database stands
      genesis-migrate plan                       what up would do (exit code 2: something)
      genesis-migrate up                         apply every pending step
      genesis-migrate --uri mongodb://db/mlflow up +1
      genesis-migrate down -1 --accept-data-loss
      genesis-migrate check --json               indexes declared against the server's
    """
    _die_cleanly_when_terminated()


def _progress(text: str) -> None:
    click.echo(mask(text), err=True)


def _quiet(text: str) -> None:
    """--quiet was given."""


def _die_cleanly_when_terminated() -> None:
    """SIGTERM as Ctrl-C: the interrupted step is recorded as such and the lock given up at once."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class _AsRevision(click.Command):
    """Lets ``-1`` stand for a revision rather than for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for index, text in enumerate(args):
            if text[:1] == "-" and text[1:].isdigit():
                return super().parse_args(ctx, [*args[:index], *args[index + 1 :], "--", text])
        return super().parse_args(ctx, args)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
out_of_order_option = click.option(
    "--out-of-order", is_flag=True, help="Also apply steps that are older than the newest applied one."
)


@cli.command()
@click.argument("revision", metavar="[REV|+N]", default="head")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; writes nothing.")
@out_of_order_option
@json_option
@click.pass_context
def up(context: click.Context, revision: str, dry_run: bool, out_of_order: bool, as_json: bool) -> None:
    """Apply pending steps, all or up to REV, or the next N.

    Safe to start in several places at once, and to start again after a crash.

    \b
    Examples:
      genesis-migrate up
      genesis-migrate up +1
      genesis-migrate up 20261121000000 --dry-run
    """
    config = _config(context)
    outcome = command.up(config, revision, dry_run=dry_run, out_of_order=out_of_order)
    _tell(config, outcome, "applied", dry_run, as_json)


@cli.command(cls=_AsRevision)
@click.argument("revision", metavar="REV|-N|base")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; writes nothing.")
@click.option("--accept-data-loss", is_flag=True, help="Also revert steps whose reverting loses data.")
@json_option
@click.pass_context
def down(context: click.Context, revision: str, dry_run: bool, accept_data_loss: bool, as_json: bool) -> None:
    """Revert the steps after REV, the last N, or all (base).

    \b
    Examples:
      genesis-migrate down -1 --dry-run
      genesis-migrate down 20261121000000 --accept-data-loss
    """
    config = _config(context)
    outcome = command.down(config, revision, dry_run=dry_run, accept_data_loss=accept_data_loss)
    _tell(config, outcome, "reverted", dry_run, as_json)


@cli.command()
@click.argument("revision", metavar="[REV|+N]", default="head")
@out_of_order_option
@json_option
@click.pass_context
def plan(context: click.Context, revision: str, out_of_order: bool, as_json: bool) -> None:
    """List what `up` would do; exit code 2 when that is something.

    \b
    Example:
      genesis-migrate plan || echo "migrate before you deploy"
    """
    config = _config(context)
    planned = command.plan(config, revision, out_of_order=out_of_order)
    lines = [f"would apply {label}" for label in planned] or ["Nothing is pending."]
    _answer({"database": config.where, "planned": planned}, lines, as_json)
    context.exit(PENDING if planned else OK)


@cli.command()
@click.option("--check", is_flag=True, help="Exit code 2 unless the database is at the newest step.")
@json_option
@click.pass_context
def current(context: click.Context, check: bool, as_json: bool) -> None:
    """Print the newest applied step.

    \b
    Example:
      genesis-migrate current --check && start-the-server
    """
    config = _config(context)
    version, head = command.current(config)
    text = version or "nothing applied"
    _answer(
        {"database": config.where, "current": version, "head": head},
        [f"{text} (head)" if version and version == head else text],
        as_json,
    )
    context.exit(PENDING if check and not command.at_head(config) else OK)


@cli.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show every step with its state, problems, and who holds the lock. Needs the right to read only.

    \b
    Example:
      genesis-migrate status --json | jq .steps
    """
    found = command.status(_config(context))
    lines = [f"Database  {found.database}", f"Current   {found.current or 'nothing applied'}"]
    lines += [
        f"  {step.version}  {step.state:<13} {step.name}  {step.detail}".rstrip() for step in found.steps
    ]
    lines += [f"Problem   {problem}" for problem in found.problems]
    if found.lock:
        lines.append(f"Lock      held by {found.lock.describe()}")
    _answer(_plain(found), lines, as_json)


@cli.command()
@json_option
@click.pass_context
def history(context: click.Context, as_json: bool) -> None:
    """List what was done to the database: when, by whom, which step, how long.

    \b
    Example:
      genesis-migrate history
    """
    events = command.history(_config(context))
    lines = [
        f"{event['at']:%Y-%m-%d %H:%M:%S} UTC  {event['action']:<11} {event['version']}_{event['name']}  "
        f"{event['who']}" + (f"  {span(event['duration_ms'] / 1000)}" if "duration_ms" in event else "")
        for event in events
    ]
    _answer(
        events,
        lines or ["Nothing is recorded; a database that a client initialised has no history."],
        as_json,
    )


@cli.command()
@click.argument("revision", metavar="REV")
@json_option
@click.pass_context
def show(context: click.Context, revision: str, as_json: bool) -> None:
    """Describe one step: what it changes, what reverting it loses, which rights it needs.

    \b
    Example:
      genesis-migrate show head
    """
    found = command.show(_config(context, database=False), revision)
    lines = [f"{found['version']}_{found['name']}", *found["description"].splitlines(), ""]
    for label in ("file", "checksum", "reversible", "loses", "compatible", "rights"):
        value = found[label]
        lines.append(f"{label:<11} {', '.join(value) if isinstance(value, list) else value}".rstrip())
    _answer(found, lines, as_json)


@cli.command()
@click.argument("what", metavar='"WHAT"')
@json_option
@click.pass_context
def new(context: click.Context, what: str, as_json: bool) -> None:
    """Write an empty step into the migrations folder.

    \b
    Example:
      genesis-migrate new "index runs by user"
    """
    file = command.new(_config(context, database=False), what)
    _answer({"version": file.version, "file": str(file.path)}, [str(file.path)], as_json)


@cli.command()
@click.argument("revision", metavar="REV|base")
@json_option
@click.pass_context
def stamp(context: click.Context, revision: str, as_json: bool) -> None:
    """Record the steps up to REV as applied, and no later one, without running any.

    For a database that was restored or migrated by other means. It is believed, not checked: run
    `genesis-migrate check` afterwards.

    \b
    Example:
      genesis-migrate stamp head
    """
    config = _config(context)
    _tell(config, command.stamp(config, revision), "recorded as applied", False, as_json)


@cli.command()
@json_option
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Compare declared collections and indexes with the server's; exit code 6 when they differ.

    \b
    Example:
      genesis-migrate check --json
    """
    from genesis_flow.documents.binding import DECLARED  # takes a second, which the other commands save

    config = _config(context)
    findings = command.check(config, DECLARED)
    lines = [f"{found.kind:<9} {found.what}: {found.detail}" for found in findings]
    drift = any(found.kind != "note" for found in findings)
    verdict = "The server differs from what the documents declare." if drift else "No difference."
    _answer([_plain(found) for found in findings], [*lines, verdict], as_json)
    context.exit(DRIFT if drift else OK)


@cli.command()
@json_option
@click.pass_context
def repair(context: click.Context, as_json: bool) -> None:
    """Accept the files of applied steps as they are now.

    \b
    Example:
      genesis-migrate validate; genesis-migrate repair
    """
    accepted = command.repair(_config(context))
    lines = [f"accepted {label}" for label in accepted] or ["No file of an applied step was changed."]
    _answer({"accepted": accepted}, lines, as_json)


@cli.command()
@click.option(
    "--force", is_flag=True, help="Also take a lock that is alive; its run stops before its next write."
)
@json_option
@click.pass_context
def unlock(context: click.Context, force: bool, as_json: bool) -> None:
    """Remove the lock that a dead run left; it also expires by itself.

    \b
    Example:
      genesis-migrate status && genesis-migrate unlock
    """
    holder = command.unlock(_config(context), force=force)
    text = f"removed the lock of {holder.describe()}" if holder else "There is no lock."
    _answer({"removed": _plain(holder) if holder else None}, [text], as_json)


@cli.command()
@click.option("--files-only", is_flag=True, help="Do not ask the database.")
@json_option
@click.pass_context
def validate(context: click.Context, files_only: bool, as_json: bool) -> None:
    """Check the files, and that they agree with what the database has recorded.

    \b
    Examples:
      genesis-migrate validate
      genesis-migrate validate --files-only      in the CI of a repository of steps
    """
    problems = command.validate(_config(context, database=not files_only), files_only=files_only)
    codes = [problem.exit_code for problem in problems]
    lines = [str(problem) for problem in problems] or ["The steps are valid."]
    _answer({"problems": [str(problem) for problem in problems]}, lines, as_json)
    context.exit(next((code for code in (MISMATCH, CHANGED) if code in codes), ERROR if codes else OK))


def _config(context: click.Context, *, database: bool = True) -> MigrateConfig:
    """The settings of the call; commands that only read files get by without a database."""
    target = context.ensure_object(_Target)
    report = _quiet if target.quiet else _progress
    return load_config(target.uri, target.ini, needs_database=database, report=report)


def _tell(config: MigrateConfig, outcome: command.Outcome, done: str, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        lines = [f"would be {done}: {label}" for label in outcome.planned]
    else:
        lines = [f"taken over from mongodb-migrations: {version}" for version in outcome.adopted]
        lines += [f"{done}: {step.version}_{step.name} ({span(step.seconds)})" for step in outcome.steps]
    answer = {"database": config.where, "dry_run": dry_run, **_plain(outcome)}
    _answer(answer, lines or ["Nothing to do."], as_json)


def _plain(value: Any) -> dict[str, Any]:
    plain = dataclasses.asdict(value)
    if isinstance(value, Holder):
        plain.pop("token")
    elif isinstance(plain.get("lock"), dict):
        plain["lock"].pop("token")
    return plain


def _answer(value: Any, lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        click.echo(mask(json.dumps(value, default=str, indent=2)))
    else:
        for line in lines:
            click.echo(mask(line))


if __name__ == "__main__":
    cli(prog_name="genesis-migrate")
