"""Rows of MLflow's tables that no comparison reaches: tables without a place in a target, and orphans."""

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from genesis_flow.importers.kinds import KIND, OWNED, PLAIN

Tables = Mapping[str, sa.TableClause]

# By table: what a row belongs to. A row without it is reached by nobody, in MLflow neither.
_WRITTEN_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "experiments": {
        "experiment_tags": ("experiment_id",),
        "runs": ("experiment_id",),
        "datasets": ("experiment_id",),
        "logged_models": ("experiment_id",),
        "trace_info": ("experiment_id",),
    },
    "runs": dict.fromkeys(("params", "tags", "metrics", "latest_metrics"), ("run_uuid",)),
    "inputs": {"input_tags": ("input_uuid",)},
    "logged_models": dict.fromkeys(
        ("logged_model_params", "logged_model_tags", "logged_model_metrics"), ("model_id",)
    ),
    "trace_info": {
        **dict.fromkeys(("trace_tags", "trace_request_metadata"), ("request_id",)),
        **dict.fromkeys(("spans", "assessments"), ("trace_id",)),
    },
    "evaluation_datasets": dict.fromkeys(
        ("evaluation_dataset_tags", "evaluation_dataset_records"), ("dataset_id",)
    ),
    "registered_models": dict.fromkeys(
        ("registered_model_tags", "registered_model_aliases", "model_versions"), ("name",)
    ),
    "model_versions": {"model_version_tags": ("name", "version")},
    "webhooks": {"webhook_events": ("webhook_id",)},
}
# The same for tables with rows of several owners: the column that names it, its table, what the rows say.
_LINKS: tuple[tuple[str, str, str, dict[str, tuple[str, ...]]], ...] = (
    ("inputs", "destination_id", "runs", {"destination_type": ("RUN",)}),
    ("inputs", "source_id", "runs", {"source_type": ("RUN_INPUT", "RUN_OUTPUT")}),
    (
        "entity_associations",
        "source_id",
        "trace_info",
        {"source_type": ("trace",), "destination_type": ("run", "prompt_version")},
    ),
    ("entity_associations", "source_id", "evaluation_datasets", {"source_type": ("evaluation_dataset",)}),
)
DEFAULT = "default"
_PLAIN_KINDS = tuple(PLAIN.values())
_WITH_WORKSPACE = (
    *("experiments", "registered_models", "evaluation_datasets", "webhooks"),
    *(kind.table for kind in _PLAIN_KINDS if not kind.of_experiment and not kind.within),
)
_OWNERS: dict[str, dict[str, tuple[str, ...]]] = {
    **_WRITTEN_OUT,
    "experiments": _WRITTEN_OUT["experiments"]
    | {kind.table: ("experiment_id",) for kind in _PLAIN_KINDS if kind.of_experiment and not kind.within},
    **{owner: {table: columns for table, (columns, _) in owned.items()} for owner, owned in OWNED.items()},
}
# The owner's columns, where they have another name there.
_KEYS = {"trace_id": "request_id", "server_name": "name"}
# What is compared without belonging to anything.
_COMPARED = frozenset(
    {
        *_OWNERS,
        *(table for owned in _OWNERS.values() for table in owned),
        *(kind.table for kind in _PLAIN_KINDS),
        *(rows.table for kind in _PLAIN_KINDS for rows in kind.rows),
        "entity_associations",
    }
)
# Bookkeeping, and what is computed from the others.
_NO_DATA = frozenset(
    {
        "alembic_version",
        "alembic_version_auth",
        "trace_metrics",
        "span_metrics",
        "sql_trace_metric_daily_rollups",
        "sql_span_cost_daily_rollups",
        "sql_assessment_daily_rollups",
        "sql_trace_rollup_rebuild_queue",
        "job_locks",
        "scheduler_leases",
        "issue_categories",
    }
)


def leftovers(
    connection: sa.Connection, tables: Tables, experiments: list[int] | None
) -> Iterator[tuple[str, str]]:
    """Tables, and what is left out of them; of some ``experiments`` only what says that it is theirs."""
    for name, table in sorted(tables.items()):
        if name in _COMPARED | _NO_DATA:
            continue
        query = sa.select(sa.func.count()).select_from(table)
        if name == "workspaces":  # every database has this one
            query = query.where(table.c.name != DEFAULT)
        if experiments is not None:
            if "experiment_id" not in table.c:
                continue
            query = query.where(table.c.experiment_id.in_(experiments))
        if rows := connection.execute(query).scalar():
            yield name, f"{rows} rows: the target has no place for them"
    if experiments is None:
        yield from _orphans(connection, tables)
        yield from _other_workspaces(connection, tables)


def _other_workspaces(connection: sa.Connection, tables: Tables) -> Iterator[tuple[str, str]]:
    for name in _WITH_WORKSPACE:
        if name in tables and "workspace" in tables[name].c:
            workspace = tables[name].c.workspace
            query = sa.select(sa.func.count()).select_from(tables[name])
            if rows := connection.execute(query.where(workspace != DEFAULT)).scalar():
                yield name, f"{rows} rows are of other workspaces: the target has them all in one"


def _orphans(connection: sa.Connection, tables: Tables) -> Iterator[tuple[str, str]]:
    for owner, owned in _OWNERS.items():
        for name, columns in owned.items():
            if name not in tables:
                continue
            query = sa.select(sa.func.count()).select_from(tables[name])
            if owner in tables:
                pairs = [
                    (tables[name].c[column], tables[owner].c[_owner_column(tables[owner], column)])
                    for column in columns
                ]
                same = sa.and_(*(theirs == ours for theirs, ours in pairs))
                query = query.where(
                    ~sa.exists(sa.select(sa.literal(1)).select_from(tables[owner]).where(same))
                )
            if rows := connection.execute(query).scalar():
                yield name, f"{rows} rows belong to nothing: what they name is not in the table {owner}"

    for name, column, owner, says in _LINKS:
        if name not in tables or owner not in tables:
            continue
        key = next(iter(_OWNERS[owner].values()))[0]
        owners = sa.select(sa.literal(1)).where(tables[owner].c[key] == tables[name].c[column])
        query = sa.select(sa.func.count()).select_from(tables[name]).where(~sa.exists(owners))
        for said, values in says.items():
            query = query.where(tables[name].c[said].in_(values))
        if rows := connection.execute(query).scalar():
            yield (
                name,
                f"{rows} rows belong to nothing: what their {column} names is not in the table {owner}",
            )
    for kind in _PLAIN_KINDS:
        if (shared := kind.but) is not None and kind.table in tables:
            table, above = tables[kind.table], tables[KIND[kind.within].table]
            of_part = sa.and_(
                *(table.c[name] == value for name, value in shared.where),
                *(table.c[name].is_not(None) for name in shared.filled),
            )
            part_of = next(each for each in _PLAIN_KINDS if shared in each.rows)
            yield from _orphans_of(connection, table, sa.not_(of_part), above, kind.parent, kind.parent)
            yield from _orphans_of(
                connection, table, of_part, tables[part_of.table], shared.owner[0], part_of.key[0]
            )


def _orphans_of(
    connection: sa.Connection,
    table: sa.TableClause,
    which: sa.ColumnElement[bool],
    owner: sa.TableClause,
    column: str,
    key: str,
) -> Iterator[tuple[str, str]]:
    owners = sa.select(sa.literal(1)).where(owner.c[key] == table.c[column])
    query = sa.select(sa.func.count()).select_from(table).where(which, ~sa.exists(owners))
    if rows := connection.execute(query).scalar():
        yield (
            table.name,
            f"{rows} rows belong to nothing: what their {column} names is not in the table {owner.name}",
        )


def _owner_column(owner: sa.TableClause, column: str) -> str:
    return column if column in owner.c else _KEYS[column]
