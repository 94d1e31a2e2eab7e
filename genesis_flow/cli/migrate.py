"""``genesis-migrate``: see, plan, apply and undo changes of the schema."""

import click

from genesis_flow.cli.migrate_import import ConfiguredImports, import_command
from genesis_flow.cli.migrate_repack import repack_command
from genesis_flow.cli.migrate_shard import shard_command
from genesis_flow.cli.migrate_shared import (
    EXIT_CODES,
    Commands,
    Target,
    WithRevision,
    answer,
    config_of,
    die_cleanly_when_terminated,
    plain,
    target_options,
)
from genesis_flow.cli.migrate_users import import_users_command
from genesis_flow.migrate import command
from genesis_flow.migrate.batches import span
from genesis_flow.migrate.config import MigrateConfig
from genesis_flow.migrate.errors import CHANGED, DRIFT, ERROR, MISMATCH, OK, PENDING


@click.group(
    cls=Commands,
    params=[*target_options()],
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
      genesis-migrate import file:///old/mlruns --analyze
    """
    die_cleanly_when_terminated()


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
imports_option = click.option(
    "--imports",
    type=click.Choice(["once", "again", "never"]),
    default="once",
    show_default=True,
    help="Import what [imports] names: unless that is done, again (brings what is new), or never.",
)
out_of_order_option = click.option(
    "--out-of-order", is_flag=True, help="Also apply steps that are older than the newest applied one."
)


@cli.command()
@click.argument("revision", metavar="[REV|+N]", default="head")
@click.option("--dry-run", is_flag=True, help="Only say what would be done; writes nothing.")
@out_of_order_option
@imports_option
@json_option
@click.pass_context
def up(
    context: click.Context, revision: str, dry_run: bool, out_of_order: bool, imports: str, as_json: bool
) -> None:
    """Apply pending steps, all or up to REV, or the next N.

    Safe to start in several places at once, and to start again after a crash. Behind the last step come the
    sources that [imports] of the configuration file names; exit code 3 when something of them had to be left
    out.

    \b
    Examples:
      genesis-migrate up
      genesis-migrate up +1
      genesis-migrate up 20261128000000 --dry-run
    """
    config = config_of(context)
    quiet = context.ensure_object(Target).quiet
    outcome = command.up(config, revision, dry_run=dry_run, out_of_order=out_of_order)
    job = ConfiguredImports(config, imports if revision == "head" else "never", quiet)
    if dry_run:
        job.plan()
    else:
        job.run()
    _tell(config, outcome, "applied", dry_run, as_json, job)
    context.exit(job.exit_code)


@cli.command(cls=WithRevision)
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
      genesis-migrate down 20261128000000 --accept-data-loss
    """
    config = config_of(context)
    outcome = command.down(config, revision, dry_run=dry_run, accept_data_loss=accept_data_loss)
    _tell(config, outcome, "reverted", dry_run, as_json)


@cli.command()
@click.argument("revision", metavar="[REV|+N]", default="head")
@out_of_order_option
@imports_option
@json_option
@click.pass_context
def plan(context: click.Context, revision: str, out_of_order: bool, imports: str, as_json: bool) -> None:
    """List what `up` would do; exit code 2 when that is something.

    \b
    Example:
      genesis-migrate plan || echo "migrate before you deploy"
    """
    config = config_of(context)
    planned = command.plan(config, revision, out_of_order=out_of_order)
    job = ConfiguredImports(config, imports if revision == "head" else "never", quiet=True)
    job.plan()
    lines = [f"would apply {label}" for label in planned] + job.lines() or ["Nothing is pending."]
    answer({"database": config.where, "planned": planned, "imports": job.planned}, lines, as_json)
    context.exit(PENDING if planned or job.planned else OK)


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
    config = config_of(context)
    version, head = command.current(config)
    text = version or "nothing applied"
    answer(
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
    status = command.status(config_of(context))
    lines = [f"Database  {status.database}", f"Current   {status.current or 'nothing applied'}"]
    lines += [
        f"  {step.version}  {step.state:<13} {step.name}  {step.detail}".rstrip() for step in status.steps
    ]
    lines += [f"Problem   {problem}" for problem in status.problems]
    if status.lock:
        lines.append(f"Lock      held by {status.lock.describe()}")
    answer(plain(status), lines, as_json)


@cli.command()
@json_option
@click.pass_context
def history(context: click.Context, as_json: bool) -> None:
    """List what was done to the database: when, by whom, which step, how long.

    \b
    Example:
      genesis-migrate history
    """
    events = command.history(config_of(context))
    lines = [
        f"{event['at']:%Y-%m-%d %H:%M:%S} UTC  {event['action']:<11} {event['version']}_{event['name']}  "
        f"{event['who']}" + (f"  {span(event['duration_ms'] / 1000)}" if "duration_ms" in event else "")
        for event in events
    ]
    answer(
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
    step = command.show(config_of(context, database=False), revision)
    lines = [f"{step['version']}_{step['name']}", *step["description"].splitlines(), ""]
    for label in ("file", "checksum", "reversible", "loses", "compatible", "rights"):
        value = step[label]
        lines.append(f"{label:<11} {', '.join(value) if isinstance(value, list) else value}".rstrip())
    answer(step, lines, as_json)


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
    file = command.new(config_of(context, database=False), what)
    answer({"version": file.version, "file": str(file.path)}, [str(file.path)], as_json)


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
    config = config_of(context)
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
    from genesis_flow.stores.areas import DECLARED  # takes a second, which the other commands save

    config = config_of(context)
    findings = command.check(config, DECLARED)
    lines = [f"{finding.kind:<9} {finding.what}: {finding.detail}" for finding in findings]
    drift = any(finding.kind != "note" for finding in findings)
    verdict = "The server differs from what the documents declare." if drift else "No difference."
    answer([plain(finding) for finding in findings], [*lines, verdict], as_json)
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
    accepted = command.repair(config_of(context))
    lines = [f"accepted {label}" for label in accepted] or ["No file of an applied step was changed."]
    answer({"accepted": accepted}, lines, as_json)


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
    holder = command.unlock(config_of(context), force=force)
    text = f"removed the lock of {holder.describe()}" if holder else "There is no lock."
    answer({"removed": plain(holder) if holder else None}, [text], as_json)


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
    problems = command.validate(config_of(context, database=not files_only), files_only=files_only)
    codes = [problem.exit_code for problem in problems]
    lines = [str(problem) for problem in problems] or ["The steps are valid."]
    answer({"problems": [str(problem) for problem in problems]}, lines, as_json)
    context.exit(next((code for code in (MISMATCH, CHANGED) if code in codes), ERROR if codes else OK))


cli.add_command(import_command)
cli.add_command(shard_command)
cli.add_command(repack_command)
cli.add_command(import_users_command)


def _tell(
    config: MigrateConfig,
    outcome: command.Outcome,
    done: str,
    dry_run: bool,
    as_json: bool,
    imports: ConfiguredImports | None = None,
) -> None:
    if dry_run:
        lines = [f"would be {done}: {label}" for label in outcome.planned]
    else:
        lines = [f"taken over from mongodb-migrations: {version}" for version in outcome.adopted]
        lines += [f"{done}: {step.version}_{step.name} ({span(step.seconds)})" for step in outcome.steps]
    report = {"database": config.where, "dry_run": dry_run, **plain(outcome)}
    if imports is not None:
        lines += imports.lines()
        report["imports"] = imports.plain()
    answer(report, lines or ["Nothing to do."], as_json)


if __name__ == "__main__":
    cli(prog_name="genesis-migrate")
