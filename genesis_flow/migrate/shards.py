"""Which collections of a database are spread over the shards of a cluster, and the commands for that.

A collection's documents say their key (``Settings.shard``). The others stay whole on the database's first
shard: they are small, or have names that must be unique, which a cluster keeps within one shard only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import OperationFailure

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.sharding import ShardKey
from genesis_flow.migrate.config import MigrateConfig, Target, opened
from genesis_flow.migrate.errors import MigrationError

Command = dict[str, Any]

RIGHTS = "the role clusterManager"
_UNAUTHORIZED = 13
_ROUTER = "isdbgrid"


@dataclass(frozen=True, slots=True)
class Spread:
    """One collection: its key, why, whether it is spread already, and the commands that are left."""

    collection: str
    key: str
    because: str
    done: bool
    commands: list[Command]


@dataclass(frozen=True, slots=True)
class ShardPlan:
    database: str
    shards: int
    """How many the cluster has, or the plan was asked for."""
    on_cluster: bool
    spread: list[Spread]
    whole: list[str]
    problems: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[Command]:
        return [command for each in self.spread for command in each.commands]


def plan(config: MigrateConfig, declared: tuple[type[Declared], ...], shards: int | None = None) -> ShardPlan:
    """What would be done. Needs the right to read; of a server that is no cluster, too."""
    with opened(config, creates=False) as target:
        return _plan(target, declared, shards)


def apply(config: MigrateConfig, declared: tuple[type[Declared], ...]) -> ShardPlan:
    """Spread what is not spread yet; what is left when it is interrupted, the next run does."""
    with opened(config, creates=False) as target:
        planned = _plan(target, declared, None)
        if not planned.on_cluster:
            raise MigrationError(
                f"{config.where} is no router of a sharded cluster: give the URI of a mongos. "
                "`genesis-migrate shard --plan` shows the commands without one."
            )
        if planned.problems:
            raise MigrationError("Nothing was done. " + " ".join(planned.problems))
        admin = target.db.client.admin
        for each in planned.spread:
            for command in each.commands:
                config.report(f"{each.collection}: {next(iter(command))}")
                _issue(admin, command)
        return planned


def _issue(admin: Any, command: Command) -> None:
    try:
        admin.command(command)
    except OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            raise MigrationError(
                f"The database user may not {next(iter(command))}: grant it {RIGHTS} on the cluster."
            ) from error
        raise


def _plan(target: Target, declared: tuple[type[Declared], ...], shards: int | None) -> ShardPlan:
    settings, client = target.config.settings, target.db.client
    on_cluster = client.admin.command("hello").get("msg") == _ROUTER
    if on_cluster and shards is None:
        shards = len(client.admin.command("listShards")["shards"])
    known = {each.Settings.name: each for each in declared}
    keys = {name: each.Settings.shard for name, each in known.items() if each.Settings.shard is not None}
    there = _spread_already(client, target.db.name) if on_cluster else {}
    spread, problems = [], []
    for name, key in keys.items():
        space = f"{target.db.name}.{settings.prefix}{name}"
        present = there.get(space)
        if present is not None and present != {key.field: 1}:
            problems.append(f"{space} is spread by {present}, not by {key.field}: leave it, or reshard it.")
        done = present is not None
        commands = [] if done else list(commands_for(space, key, shards or 2))
        spread.append(Spread(settings.prefix + name, key.field, key.because, done, commands))
        problems += _conflicts(target, settings.prefix + name, key)
    whole = sorted(settings.prefix + name for name in known.keys() - keys.keys())
    return ShardPlan(target.config.where, shards or 2, on_cluster, spread, whole, problems)


def commands_for(space: str, key: ShardKey, shards: int) -> Iterator[Command]:
    """Ranges of equal size, which the balancer moves; an index that begins with the key is declared."""
    yield {"shardCollection": space, "key": {key.field: 1}}
    for split in key.splits(shards):
        yield {"split": space, "middle": {key.field: split}}


def _spread_already(client: Any, database: str) -> dict[str, Command]:
    query = {"_id": {"$gte": f"{database}.", "$lt": f"{database}/"}}
    collections = client.config.collections.find(query, {"key": 1})
    return {each["_id"]: each["key"] for each in collections if "key" in each}


def _conflicts(target: Target, name: str, key: ShardKey) -> Iterator[str]:
    """Indexes whose values a cluster cannot keep unique: those that do not begin with the key."""
    for index in target.db[name].list_indexes():
        fields = list(index["key"])
        if index.get("unique") and fields[0] != key.field:
            yield (
                f"{name} has the unique index {index['name']} on {', '.join(fields)}, which no cluster can "
                f"keep while the collection is spread by {key.field}: drop the index, or leave it whole."
            )
