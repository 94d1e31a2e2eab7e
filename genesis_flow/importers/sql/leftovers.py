"""What of a database becomes nothing in the target: rows without a place, and rows without an owner."""

from collections.abc import Iterator
from typing import Any

from genesis_flow.importers.kinds import DERIVED, KIND, KINDS, LINKS, PLAIN
from genesis_flow.importers.records import Problem
from genesis_flow.importers.sql.reading import conditions_of, rows_of_kind
from genesis_flow.importers.sql.snapshot import DEFAULT, Snapshot
from genesis_flow.importers.sql.tables import PARENTS, PARTS, PHASE_OF, READ, ROOTS

_ROOTS_WITH_WORKSPACE = [kind.table for kind in KINDS if not kind.of_experiment and not kind.within]


def unsupported(snapshot: Snapshot, wanted: list[int] | None) -> dict[str, int]:
    """The tables that the target has no place for, with their rows; ``wanted``: of these experiments."""
    counts = {}
    for table in sorted(snapshot.tables.keys() - READ - DERIVED):
        where = []
        if snapshot.workspace is not None and table == "workspaces":
            continue  # they are kept
        if snapshot.workspace not in (None, DEFAULT) and not snapshot.own(table):
            continue
        if table == "workspaces":
            where.append(snapshot.column(table, "name") != DEFAULT)
        if wanted is not None:
            if not snapshot.has(table, "experiment_id"):
                continue
            where.append(snapshot.column(table, "experiment_id").in_(wanted))
        counts[table] = snapshot.count(table, *where)
    return {table: count for table, count in counts.items() if count}


def left_behind(snapshot: Snapshot) -> list[str]:
    """What stays behind without being missed: MLflow itself does not show it any more."""
    if not snapshot.has("webhooks", "deleted_timestamp"):
        return []
    deleted = snapshot.count("webhooks", snapshot.column("webhooks", "deleted_timestamp").is_not(None))
    if not deleted:
        return []
    return [f"Webhooks that were deleted ({deleted:,}), which MLflow keeps but never shows, stay behind."]


def orphans(snapshot: Snapshot, phase: str) -> Iterator[Problem]:
    """Rows whose owner is gone, or that have no id: the target has no place for them."""
    if snapshot.workspace not in (None, DEFAULT):
        return
    table, key = ROOTS[phase]
    if snapshot.has(table, key) and (rows := snapshot.count(table, snapshot.column(table, key).is_(None))):
        yield Problem(phase, f"table {table}", f"{rows} rows have no {key}", rows)
    if phase == "experiment" and snapshot.workspace is None:
        yield from _workspaces(snapshot)
    if phase == "run":
        yield from _strange_inputs(snapshot)
    for child, keys, parent, parent_keys, kind in PARENTS:
        if PHASE_OF.get(kind, kind) != phase or not snapshot.has(child) or not snapshot.has(parent):
            continue
        if snapshot.has(child, "workspace") and snapshot.has(parent, "workspace"):
            keys, parent_keys = (*keys, "workspace"), (*parent_keys, "workspace")
        for owner, rows in snapshot.orphans(child, keys, parent, parent_keys):
            yield _orphan(kind, child, keys, owner, parent, rows)
    for child, of, says, parent, parent_key, kind in LINKS:
        if kind != phase or not snapshot.has(child, of) or not snapshot.has(parent):
            continue
        said = [snapshot.column(child, name).in_(values) for name, values in says.items()]
        for owner, rows in snapshot.orphans(child, (of,), parent, (parent_key,), *said):
            yield _orphan(kind, child, (of,), owner, parent, rows)
    yield from _orphans_in_part(snapshot, phase)


def _orphans_in_part(snapshot: Snapshot, phase: str) -> Iterator[Problem]:
    """Rows left out of tables whose rows are parts of one kind, and things of another."""
    for kind in PLAIN.values():
        if kind.but is None or PHASE_OF[kind.name] != phase or not snapshot.has(kind.table):
            continue
        above = KIND[kind.within]
        where = rows_of_kind(snapshot, kind)
        for owner, rows in snapshot.orphans(kind.table, (kind.parent,), above.table, above.key, *where):
            yield _orphan(kind.name, kind.table, (kind.parent,), owner, above.table, rows)
    for kind, part in PARTS:
        if not part.where or PHASE_OF.get(kind.name, kind.name) != phase or not snapshot.has(part.table):
            continue
        where = conditions_of(snapshot, part)
        for owner, rows in snapshot.orphans(part.table, part.owner, kind.table, kind.key, *where):
            yield _orphan(kind.name, part.table, part.owner, owner, kind.table, rows)


def _orphan(
    kind: str, child: str, keys: tuple[str, ...], owner: tuple[Any, ...], parent: str, rows: int
) -> Problem:
    where = ", ".join(f"{key}={value}" for key, value in zip(keys, owner, strict=True))
    reason = f"{rows} rows belong to nothing: {parent} has no such row"
    return Problem(kind, f"table {child}, {where}", reason, rows)


def _strange_inputs(snapshot: Snapshot) -> Iterator[Problem]:
    """What is said to be read or made by something that is no run."""
    kinds = ("source_type", "destination_type")
    for (source, destination), rows in snapshot.counts("inputs", kinds):
        if destination != "RUN" and source not in ("RUN_INPUT", "RUN_OUTPUT"):
            where = f"table inputs, source_type={source}, destination_type={destination}"
            yield Problem("run", where, f"{rows} rows are of no run, and nothing else has inputs", rows)


def workspaces_in(snapshot: Snapshot) -> dict[str, int]:
    """The workspaces that things are in, but for the default one, and how many."""
    found: dict[str, int] = {}
    for table in _ROOTS_WITH_WORKSPACE:
        for (name,), rows in snapshot.counts(table, ("workspace",)):
            if name not in (None, DEFAULT):
                found[name] = found.get(name, 0) + rows
    return found


def _workspaces(snapshot: Snapshot) -> Iterator[Problem]:
    for name, rows in sorted(workspaces_in(snapshot).items()):
        reason = (
            "what belongs to it is imported beside that of other workspaces, since the target has only one: "
            "to keep the workspaces, import with MLFLOW_ENABLE_WORKSPACES=true and without MLFLOW_WORKSPACE"
        )
        yield Problem("workspace", name, reason, rows)
