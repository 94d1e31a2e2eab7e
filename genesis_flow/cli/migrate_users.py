"""``genesis-migrate import-users``: bring over who may log in to MLflow's server, and what they may."""

from dataclasses import asdict
from typing import Any

import click

from genesis_flow.cli.migrate_import import INCOMPLETE
from genesis_flow.cli.migrate_shared import answer, config_of
from genesis_flow.core.redact import mask
from genesis_flow.migrate.errors import OK

_EPILOG = """\b
Exit codes:
  0   everything is imported (--verify: users and roles are the same)
  1   an error, or a name that the target has given to another user or role
      (--verify: there are differences)
  3   imported, but some things had to be left out: they are listed with their reasons
      (also: another run holds the lock)
  64  the command line was wrong
"""
_SHOWN = 50


@click.command("import-users", epilog=_EPILOG)
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing.")
@click.option("--verify", is_flag=True, help="Read source and target again and compare them.")
@click.option(
    "--on-conflict",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do when the target has a user or a role of the same name: nothing at all, or leave those "
    "as they are there.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
def import_users_command(
    context: click.Context, source: str, dry_run: bool, verify: bool, on_conflict: str, as_json: bool
) -> None:
    """Bring over users, roles and permissions of MLflow's login (basic-auth).

    SOURCE is the `database_uri` of MLflow's basic_auth.ini, such as sqlite:///basic_auth.db. Users keep their
    passwords: the hashes come as they are. Can be killed at any moment and run again; run later, it brings
    what is new. `genesis-migrate import --rollback JOURNAL` takes it back.

    \b
    Examples:
      genesis-migrate import-users sqlite:///basic_auth.db --dry-run
      genesis-migrate import-users sqlite:///basic_auth.db
      genesis-migrate import-users sqlite:///basic_auth.db --verify
    """
    if verify and dry_run:
        raise click.UsageError("--verify writes nothing: leave out --dry-run.")
    config = config_of(context)
    if verify:
        context.exit(_verify(config, source, as_json))
    from genesis_flow.importers.users import import_users

    done = import_users(config, source, on_conflict=on_conflict, dry_run=dry_run)
    would = "would be " if dry_run else ""
    lines = [
        f"{done.source} -> {done.target}",
        *([] if dry_run else [f"journal: {done.journal}"]),
        f"{done.users:,} users and {done.roles:,} roles with {done.permissions:,} permissions "
        f"{would}imported.",
        *([] if dry_run else [f"{done.made:,} documents were made, {done.changed:,} changed."]),
        *(f"  {each.kind} {each.where}: {each.reason}" for each in done.problems[:_SHOWN]),
    ]
    report: dict[str, Any] = asdict(done)
    if dry_run:
        report["journal"] = None
    answer(report, lines, as_json)
    context.exit(INCOMPLETE if done.problems else OK)


def _verify(config: Any, source: str, as_json: bool) -> int:
    from genesis_flow.importers.verify.users import verify_users

    compared, found = verify_users(config, source)
    lines = [
        f"DIFFERS  {each.kind} {each.name}{f', {each.field}' if each.field else ''}: {each.reason}"
        for each in found[:_SHOWN]
    ]
    said = "The target differs from the source." if found else "They are the same in source and target."
    report = {
        "source": mask(source),
        "target": config.where,
        "equal": not found,
        "compared": compared,
        "differences": [each._asdict() for each in found],
    }
    answer(report, [f"{compared:,} users and roles compared.", *lines, said], as_json)
    return 1 if found else OK
