"""Rows of MLflow's tables that no comparison reaches: tables without a place in a target, and orphans."""

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from genesis_flow.importers.kinds import DERIVED, KIND, KINDS, LINKS, OWNED, PLAIN

Tables = Mapping[str, sa.TableClause]

DEFAULT = "default"
_WITH_WORKSPACE = [kind.table for kind in KINDS if not kind.of_experiment and not kind.within]
# By table: what belongs to its rows, by which columns of both. What belongs to nothing is reached by nobody,
# in MLflow neither.
_OWNERS = OWNED | {
    "experiments": OWNED["experiments"]
    | {
        kind.table: (("experiment_id",), ("experiment_id",))
        for kind in KINDS
        if kind.of_experiment and not kind.within
    }
}
# What is compared without belonging to anything.
_COMPARED = frozenset(
    {
        *_OWNERS,
        *(table for owned in _OWNERS.values() for table in owned),
        *(kind.table for kind in KINDS),
        *(rows.table for kind in KINDS for rows in kind.rows),
    }
)


def leftovers(
    connection: sa.Connection, tables: Tables, experiments: list[int] | None, workspace: str | None = None
) -> Iterator[tuple[str, str]]:
    """Tables, and what is left out of them; of some ``experiments`` only what says that it is theirs.

    Of one ``workspace`` what is in it; what is in none is told with the default one.
    """
    for name, table in sorted(tables.items()):
        if name in _COMPARED | DERIVED:
            continue
        query = sa.select(sa.func.count()).select_from(table)
        if workspace is not None:
            if name == "workspaces" or ("workspace" not in table.c and workspace != DEFAULT):
                continue  # they are compared, and told of another
            if "workspace" in table.c:
                query = query.where(table.c.workspace == workspace)
        if name == "workspaces":  # every database has this one
            query = query.where(table.c.name != DEFAULT)
        if experiments is not None:
            if "experiment_id" not in table.c:
                continue
            query = query.where(table.c.experiment_id.in_(experiments))
        if rows := connection.execute(query).scalar():
            yield name, f"{rows} rows: the target has no place for them"
    if experiments is None and workspace in (None, DEFAULT):
        yield from _orphans(connection, tables)
    if experiments is None and workspace is None:
        yield from _other_workspaces(connection, tables)


def workspaces_of(connection: sa.Connection, tables: Tables) -> dict[str, dict[str, str]]:
    """What the source says of its workspaces, by their names: whatever names one."""
    found: dict[str, dict[str, str]] = {DEFAULT: {}}
    for table in tables.values():
        if "workspace" in table.c:
            for (name,) in connection.execute(sa.select(table.c.workspace).distinct()):
                found.setdefault(name or DEFAULT, {})
    if "workspaces" in tables:
        for row in connection.execute(sa.select(tables["workspaces"])).mappings():
            found[row["name"]] = {key: row[key] for key in row if key != "name" and row[key]}
    return found


def _other_workspaces(connection: sa.Connection, tables: Tables) -> Iterator[tuple[str, str]]:
    for name in _WITH_WORKSPACE:
        if name in tables and "workspace" in tables[name].c:
            workspace = tables[name].c.workspace
            query = sa.select(sa.func.count()).select_from(tables[name])
            if rows := connection.execute(query.where(workspace != DEFAULT)).scalar():
                yield name, f"{rows} rows are of other workspaces: the target has them all in one"


def _orphans(connection: sa.Connection, tables: Tables) -> Iterator[tuple[str, str]]:
    for owner, owned in _OWNERS.items():
        for name, (columns, key) in owned.items():
            if name not in tables:
                continue
            query = sa.select(sa.func.count()).select_from(tables[name])
            if owner in tables:
                pairs = zip(columns, key, strict=True)
                same = sa.and_(*(tables[name].c[ours] == tables[owner].c[theirs] for ours, theirs in pairs))
                query = query.where(
                    ~sa.exists(sa.select(sa.literal(1)).select_from(tables[owner]).where(same))
                )
            if rows := connection.execute(query).scalar():
                yield name, f"{rows} rows belong to nothing: what they name is not in the table {owner}"

    for name, column, says, owner, its, _ in LINKS:
        if name in tables and owner in tables:
            said = sa.and_(*(tables[name].c[each].in_(values) for each, values in says.items()))
            yield from _orphans_of(connection, tables[name], said, tables[owner], column, its)
    for kind in PLAIN.values():
        if (shared := kind.but) is not None and kind.table in tables:
            table, above = tables[kind.table], tables[KIND[kind.within].table]
            of_part = sa.and_(
                *(table.c[name] == value for name, value in shared.where),
                *(table.c[name].is_not(None) for name in shared.filled),
            )
            part_of = next(each for each in PLAIN.values() if shared in each.rows)
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
