"""``genesis-migrate shard``: spread the large collections over a cluster."""

import json
from collections.abc import Iterator

import click

from genesis_flow.cli.migrate_shared import answer, config_of, plain
from genesis_flow.migrate import shards
from genesis_flow.migrate.errors import ERROR, OK
from genesis_flow.migrate.shards import ShardPlan


@click.command("shard")
@click.option("--plan", "mode", flag_value="plan", default="plan", help="Print the commands (the default).")
@click.option("--apply", "mode", flag_value="apply", help="Issue them, through the mongos that URI names.")
@click.option(
    "--shards",
    "shards_wanted",
    type=click.IntRange(2, 1000),
    help="Into how many ranges to split; else as many as the cluster has shards.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@click.pass_context
def shard_command(context: click.Context, mode: str, shards_wanted: int | None, as_json: bool) -> None:
    """Spread runs, histories, traces and models over the shards of a cluster.

    Without --apply nothing is changed, and any server will do: what is printed can be given to mongosh.
    Collections that are spread already are left as they are, so it can be run again.

    \b
    Examples:
      genesis-migrate shard --uri mongodb://mongos/mlflow
      genesis-migrate shard --shards 8 --json
      genesis-migrate shard --apply --uri mongodb://mongos/mlflow
    """
    from genesis_flow.stores.areas import DECLARED  # takes a second, which the other commands save

    config = config_of(context)
    if mode == "apply":
        if shards_wanted is not None:
            raise click.UsageError(
                "--shards is for --plan: what is applied is split by the cluster's shards."
            )
        done = shards.apply(config, DECLARED)
    else:
        done = shards.plan(config, DECLARED, shards_wanted)
    answer({**plain(done), "applied": mode == "apply"}, list(_lines(done, mode == "apply")), as_json)
    context.exit(ERROR if done.problems else OK)


def _lines(plan: ShardPlan, applied: bool) -> Iterator[str]:
    kind = f"a cluster of {plan.shards} shards" if plan.on_cluster else "no cluster: only a plan"
    yield f"Database  {plan.database} ({kind})"
    for each in plan.spread:
        state = "spread already" if each.done else "spread now" if applied else "to be spread"
        yield f"{each.collection:<22} by {each.key:<9} {state:<15} {each.because}"
    yield f"Whole: {', '.join(plan.whole)}"
    yield from (f"Problem   {problem}" for problem in plan.problems)
    if not applied:
        yield ""
        yield from (f"db.adminCommand({json.dumps(command)})" for command in plan.commands)
