"""Reads the users, roles and permissions that MLflow's login keeps in an SQL database."""

from dataclasses import dataclass, field
from typing import Any

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Problem
from genesis_flow.importers.sql.snapshot import Snapshot, open_snapshot

_TABLES = {
    "users": ("id", "username", "password_hash", "is_admin"),
    "roles": ("id", "workspace", "name", "description"),
    "role_permissions": ("id", "role_id", "resource_type", "resource_pattern", "permission"),
    "user_role_assignments": ("id", "user_id", "role_id"),
}
_NEEDED = {
    "users": ("username", "password_hash"),
    "roles": ("workspace", "name"),
    "role_permissions": ("resource_type", "resource_pattern", "permission"),
    "user_role_assignments": (),
}
_PREFIX, _SUFFIX = "__user_", "__"


@dataclass(slots=True)
class Logins:
    """What a database says, with the numbers that it has there."""

    name: str
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    # With ``permissions``, and with ``owner`` if it is what one user was granted alone.
    roles: dict[int, dict[str, Any]] = field(default_factory=dict)
    # By user, the roles with the numbers of the assignments, the oldest first.
    assignments: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_logins(uri: str) -> Logins:
    snapshot = open_snapshot(uri, needed=())
    try:
        return _read(snapshot)
    finally:
        snapshot.close()


def _read(snapshot: Snapshot) -> Logins:
    if not all(snapshot.has(table) for table in _TABLES):
        if snapshot.has("users") and snapshot.has("experiment_permissions"):
            raise ImportFailed(
                f"{snapshot.name} has users of an older MLflow: copy it, bring the copy to MLflow's newest "
                "schema with `python -m mlflow.server.auth db upgrade --url URI`, and import that."
            )
        raise ImportFailed(f"{snapshot.name} has no users: name the database_uri of MLflow's basic_auth.ini.")
    found = Logins(snapshot.name)
    rows = {table: _rows(snapshot, table, found.problems) for table in _TABLES}
    found.users = {row["id"]: row for row in rows["users"]}
    found.roles = {row["id"]: {**row, "permissions": []} for row in rows["roles"]}
    for row in rows["role_permissions"]:
        if row["role_id"] in found.roles:
            found.roles[row["role_id"]]["permissions"].append(row)
        else:
            _orphan(found, "role_permissions", row["id"], "its role is gone")
    for role in list(found.roles.values()):
        owner = _owner_of(role["name"])
        if owner is not None and owner not in found.users:
            _orphan(found, "roles", role["id"], "the user whose own it was is gone")
            del found.roles[role["id"]]
        role["owner"] = owner
    for row in rows["user_role_assignments"]:
        if row["user_id"] in found.users and row["role_id"] in found.roles:
            found.assignments.setdefault(row["user_id"], []).append((row["id"], row["role_id"]))
        else:
            _orphan(found, "user_role_assignments", row["id"], "its user or its role is gone")
    return found


def _rows(snapshot: Snapshot, table: str, problems: list[Problem]) -> list[dict[str, Any]]:
    names = _TABLES[table]
    found = []
    for row in snapshot.rows(table, names, order=("id",)):
        said = dict(zip(names, row, strict=True))
        if not isinstance(said["id"], int) or not all(
            isinstance(said[name], str) and said[name] for name in _NEEDED[table]
        ):
            reason = "a column that must say something says nothing, or is no text"
            problems.append(Problem(table, f"table {table}, id={said['id']}", reason, 1))
            continue
        found.append(said)
    return found


def _owner_of(name: str) -> int | None:
    middle = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    is_own = name == f"{_PREFIX}{middle}{_SUFFIX}" and middle.isascii() and middle.isdigit()
    return int(middle) if is_own else None


def _orphan(found: Logins, table: str, number: int, reason: str) -> None:
    found.problems.append(Problem(table, f"table {table}, id={number}", reason, 1))
