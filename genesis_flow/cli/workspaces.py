"""``genesis-flow workspaces``: what is in which, and moving it to another."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from mlflow.store.workspace.abstract_store import AbstractStore

    from genesis_flow.cli.workspace_moves import Moves
    from genesis_flow.core.settings import Settings

T = TypeVar("T")

_CONTEXT = {"max_content_width": 100}
# As in cli/workspace_moves.py, which imports MLflow: --help need not wait. A test compares them.
KINDS = (
    *("experiments", "registered_models", "mcp_servers", "skills"),
    *("evaluation_datasets", "webhooks", "jobs"),
)
_SHOWN = 20
_uri = click.option(
    "--uri",
    metavar="URI",
    help="mongodb://host/database[#prefix] or genesis:///dir. Else the environment (MLFLOW_TRACKING_URI, "
    "GENESIS_FLOW_MONGODB_URI), else mlflow.conf, else ./genesis-data.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be moved, and what keeps it.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_CODES = """\b
Exit codes:
  0  all is moved, or nothing had to be (--dry-run: nothing is in the way)
  1  names are taken where things are to go, which are listed and nothing is moved; or another error
  2  a wrong option
"""


def _moving(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands have which move something."""
    return _uri(_dry_run(_yes(_json(command))))


@click.group(context_settings=_CONTEXT)
def workspaces() -> None:
    """Say what is in which workspace, and move it to another one.

    The commands work on the database itself, whatever servers run, and need the rights of a server. Stop
    those who write to what is moved: it is not found any more where it was. Each command can be killed at any
    moment and run again. With GENESIS_FLOW_AUDIT=true each move leaves its records in the audit trail.
    """


@workspaces.command("list", context_settings=_CONTEXT)
@_uri
@_json
def list_command(uri: str | None, as_json: bool) -> None:
    """List the workspaces, and how much of what is in each.

    \b
    Examples:
      genesis-flow workspaces list --uri mongodb://db/mlflow
      genesis-flow workspaces list --json
    """
    settings = _settings(uri)
    known = {each.name: each.description for each in _keeper(settings).list_workspaces()}
    counts = _on(settings, lambda moves: moves.count_things())
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "description": known.get(name),
            "is_known": name in known,
            "things": counts.get(name, {}),
        }
        for name in sorted(known.keys() | counts.keys())
    ]
    if as_json:
        click.echo(json.dumps({"workspaces": found}, indent=2))
        return
    for each in found:
        things = ", ".join(f"{count:,} {_words(kind)}" for kind, count in each["things"].items())
        unknown = "" if each["is_known"] else " (no workspace of this name is known)"
        click.echo(f"{each['name']}{unknown}: {things or 'nothing'}")


@workspaces.command(context_settings=_CONTEXT, epilog=_CODES)
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--from", "origin", required=True, metavar="WORKSPACE", help="Where they are.")
@click.option("--to", "destination", required=True, metavar="WORKSPACE", help="Where they are to go.")
@click.option("--name", "names", multiple=True, help="Only what has this name; may be repeated.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only what has this tag; may be repeated, and then all are meant.",
)
@click.option(
    "--artifact-policy",
    type=click.Choice(["preserve", "retarget"]),
    default="preserve",
    show_default=True,
    help="Of experiments: whether new runs keep their artifacts where the others are, or in the artifact "
    "root of the other workspace. What is logged already stays where it is.",
)
@click.option(
    "--default-artifact-root",
    "artifact_root",
    metavar="URI",
    help="For `retarget`, what the server is started with, unless the workspace has a root of its own; else "
    "GENESIS_FLOW_ARTIFACT_ROOT.",
)
@_moving
def move(
    uri: str | None,
    kind: str,
    origin: str,
    destination: str,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    artifact_policy: str,
    artifact_root: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Move things of one KIND to another workspace: all, or those with a name or with tags.

    What belongs to a thing goes along: with an experiment its runs, traces, logged models, issues, judges and
    reviews, with a model its versions. Grants stay: who may use it in the other workspace has to be told
    there. The default experiment stays, and so do the gateway's things, which refer to each other:
    `migrate-default` takes them along.

    \b
    Examples:
      genesis-flow workspaces move experiments --from default --to team-a --name churn --name fraud
      genesis-flow workspaces move registered_models --from default --to team-a --tag team=a --dry-run
      genesis-flow workspaces move skills --from team-a --to team-b --name @acme/summary
      genesis-flow workspaces move experiments --from default --to team-a --name churn \\
          --artifact-policy retarget --default-artifact-root s3://mlflow
    """
    from genesis_flow.cli.workspace_moves import AT_ONCE, MOVABLE, Choice

    if names and tags:
        raise click.UsageError("Choose by --name or by --tag, not by both.")
    if tags and not MOVABLE[kind].tagged:
        raise click.UsageError(f"{_words(kind).capitalize()} are chosen by name: leave out --tag.")
    if artifact_policy == "retarget" and kind != "experiments":
        raise click.UsageError("Only experiments say where artifacts go: leave out --artifact-policy.")
    settings = _settings(uri)
    keeper = _known(settings, origin, destination)
    root = _root(keeper, settings, destination, artifact_root) if artifact_policy == "retarget" else None
    choice = Choice(kind, names, tuple(_tag(each) for each in tags))
    plan = _on(settings, lambda moves: moves.plan(choice, origin, destination))
    _refuse_unknown(choice, plan, origin)
    if plan.conflicts:
        _refuse_conflicts(plan.conflicts, destination)
    told = {"from": [origin], "to": destination, "things": {kind: plan.names} if plan.names else {}}
    if root is not None:
        told["artifact_root"] = root
    if not _agreed(told, dry_run, yes, as_json):
        return

    async def carry(moves: "Moves") -> None:
        ids = [each["_id"] for each in plan.things]
        for begin in range(0, len(ids), AT_ONCE):
            await moves.move_things(kind, ids[begin : begin + AT_ONCE], origin, destination, root)

    _on(settings, carry)
    _done(told, as_json)


@workspaces.command("migrate-default", context_settings=_CONTEXT, epilog=_CODES)
@click.option("--to", "destination", required=True, metavar="WORKSPACE", help="Which is to get everything.")
@_moving
def migrate_default(uri: str | None, destination: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give all that is in the default workspace to another one, which is there by then.

    For a database that was used without workspaces and becomes one team's among several. The default
    experiment stays with its runs, since clients that name no experiment count on it. Artifacts stay where
    they are.

    \b
    Examples:
      genesis-flow workspaces migrate-default --to team-a --dry-run
      genesis-flow workspaces migrate-default --to team-a
    """
    from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

    settings = _settings(uri)
    _known(settings, DEFAULT_WORKSPACE_NAME, destination)
    _give(settings, [DEFAULT_WORKSPACE_NAME], destination, dry_run, yes, as_json)


@workspaces.command("migrate-to-default", context_settings=_CONTEXT, epilog=_CODES)
@click.option(
    "--from",
    "origins",
    multiple=True,
    metavar="WORKSPACE",
    help="Only what is in this one; may be repeated. All others unless given.",
)
@_moving
def migrate_to_default(
    uri: str | None, origins: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Give all that is in other workspaces to the default one.

    Afterwards the database can be used without workspaces again. The workspaces stay, empty. It is what
    `mlflow db migrate-to-default-workspace` does for SQL databases.

    \b
    Examples:
      genesis-flow workspaces migrate-to-default --dry-run
      genesis-flow workspaces migrate-to-default --yes --json
    """
    from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

    if DEFAULT_WORKSPACE_NAME in origins:
        raise click.UsageError(f"Its things are in {DEFAULT_WORKSPACE_NAME!r} already: leave out --from.")
    settings = _settings(uri)
    counts = _on(settings, lambda moves: moves.count_things())
    if unknown := sorted(set(origins) - counts.keys()):
        _known(settings, *unknown)  # it may be there, and empty
    chosen = sorted(set(origins) or counts.keys() - {DEFAULT_WORKSPACE_NAME})
    _give(settings, chosen, DEFAULT_WORKSPACE_NAME, dry_run, yes, as_json)


def _give(
    settings: "Settings", origins: Sequence[str], destination: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    async def planned(moves: "Moves") -> tuple[list[Any], dict[str, int]]:
        await moves.refuse_kept_skills(list(origins))
        found = await moves.find_all_conflicts(list(origins), destination)
        return found, await moves.count_movable(list(origins))

    found, counts = _on(settings, planned)
    if found:
        _refuse_conflicts(found, destination)
    told = {"from": list(origins), "to": destination, "things": counts}
    if not _agreed(told, dry_run, yes, as_json):
        return

    async def carry(moves: "Moves") -> None:
        for origin in origins:
            await moves.give_all(origin, destination)

    _on(settings, carry)
    _done(told, as_json)


def _on(settings: "Settings", work: Callable[["Moves"], Awaitable[T]]) -> T:
    """What ``work`` makes with the database."""
    from genesis_flow.cli.workspace_moves import Moves

    async def worked() -> T:
        moves = Moves(settings)
        try:
            return await work(moves)
        finally:
            await moves.close()

    return asyncio.run(worked())


def _settings(uri: str | None) -> "Settings":
    from genesis_flow.core.settings import Settings

    return Settings.resolve(uri)


def _keeper(settings: "Settings") -> "AbstractStore":
    from genesis_flow.sync.workspaces import workspace_store

    return workspace_store(settings)


def _known(settings: "Settings", *names: str) -> "AbstractStore":
    """The list of workspaces, in which all of these are."""
    if len(set(names)) < len(names):
        raise click.UsageError("They are in this workspace already: name two different ones.")
    keeper = _keeper(settings)
    for name in names:
        keeper.get_workspace(name)
    return keeper


def _root(keeper: "AbstractStore", settings: "Settings", destination: str, given: str | None) -> str:
    """Where new experiments of a workspace keep artifacts, as the server finds it."""
    from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local
    from mlflow.utils.workspace_utils import WORKSPACES_DIR_NAME

    from genesis_flow.areas.experiments.places import refuse_reserved_root

    if given is None and settings.sources["artifact_root"] != "default":
        given = settings.artifact_root
    root, appended = keeper.resolve_artifact_root(given and resolve_uri_if_local(given), destination)
    if not root:
        raise click.UsageError(
            f"The workspace {destination!r} has no artifact root of its own: give --default-artifact-root as "
            "the server has it."
        )
    if appended:
        refuse_reserved_root(root)
        root = append_to_uri_path(root, WORKSPACES_DIR_NAME, destination)
    return str(root)


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.UsageError(f"A tag is written KEY=VALUE, not {text!r}.")
    return key, value


def _refuse_unknown(choice: Any, plan: Any, origin: str) -> None:
    from genesis_flow.core.errors import GenesisFlowError

    if plan.unknown:
        raise GenesisFlowError(
            f"The workspace {origin!r} has no {_words(choice.kind)} of the name "
            f"{', '.join(map(repr, plan.unknown))} that can be moved (the default experiment cannot)."
        )


def _refuse_conflicts(found: Sequence[Any], destination: str) -> None:
    from genesis_flow.core.errors import GenesisFlowError

    for each in found:
        click.echo(f"{each.kind}: {each.name!r} is in {', '.join(each.workspaces)}", err=True)
    raise GenesisFlowError(
        f"Nothing is moved: {len(found)} names are taken in {destination!r}, or are in several workspaces "
        "that are to go there. Rename or remove these, deleted ones too, and try again."
    )


def _agreed(told: dict[str, Any], dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Whether it is to be done; else it is told what would be."""
    if as_json:
        if dry_run or not told["things"]:
            click.echo(json.dumps({**told, "moved": False}, indent=2))
            return False
    else:
        _show(told)
        if not told["things"]:
            click.echo("Nothing has to be moved.")
            return False
        if dry_run:
            click.echo("Nothing is moved: it was asked what would be.")
            return False
    if not yes:
        where = f"from {', '.join(told['from'])} to {told['to']}"
        click.confirm(f"Move this {where}?", abort=True, err=True)
    return True


def _show(told: dict[str, Any]) -> None:
    for kind, things in told["things"].items():
        if isinstance(things, int):
            click.echo(f"{_words(kind)}: {things:,}")
            continue
        click.echo(f"{_words(kind)}: {len(things):,}")
        for name in things[:_SHOWN]:
            click.echo(f"  {name}")
        if len(things) > _SHOWN:
            click.echo(f"  and {len(things) - _SHOWN:,} more (--json names all)")


def _done(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**told, "moved": True}, indent=2))
        return
    count = sum(each if isinstance(each, int) else len(each) for each in told["things"].values())
    click.echo(f"Moved {count:,} things from {', '.join(told['from'])} to {told['to']}.")


def _words(kind: str) -> str:
    return kind.replace("_", " ").replace("mcp", "MCP")
