"""Proof that users, roles and permissions are the same in source and target; reads both for itself."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.importers.verify.opening import engine_of
from genesis_flow.migrate.config import MigrateConfig, opened

Row = dict[str, Any]


class UserDifference(NamedTuple):
    kind: str
    name: str
    field: str
    # Not what they are: hashes are secrets.
    reason: str


def verify_users(config: MigrateConfig, source_uri: str) -> tuple[int, list[UserDifference]]:
    """How many users and roles were compared, and where the target is not as the source."""
    engine = engine_of(source_uri)
    try:
        with engine.connect() as connection:
            theirs = _of_source(connection)
    finally:
        engine.dispose()
    with opened(config, creates=False) as connected:
        users, roles = (
            list(connected.db[config.settings.prefix + name].find()) for name in ("auth_users", "auth_roles")
        )
    ours = _of_target(users, roles)
    found: list[UserDifference] = []
    for kind in ("user", "role"):
        for name, fields in theirs[kind].items():
            there = ours[kind].get(name)
            if there is None:
                found.append(UserDifference(kind, name, "", "the target has none of this name"))
                continue
            found += [
                UserDifference(kind, name, field, "it is another one in the target")
                for field in fields
                if fields[field] != there[field]
            ]
    return len(theirs["user"]) + len(theirs["role"]), found


def _of_source(connection: sa.Connection) -> dict[str, dict[str, Row]]:
    def rows(name: str, *columns: str) -> Iterable[Any]:
        table = sa.table(name, *(sa.column(each) for each in columns))
        return connection.execute(sa.select(*table.c)).all()

    users = {row.id: row for row in rows("users", "id", "username", "password_hash", "is_admin")}
    names = {number: row.username for number, row in users.items()}
    roles = {row.id: row for row in rows("roles", "id", "workspace", "name", "description")}
    called = {number: _called(row.workspace, row.name, names) for number, row in roles.items()}
    granted: dict[int, set[tuple[str, str, str]]] = {number: set() for number in roles}
    for row in rows("role_permissions", "role_id", "resource_type", "resource_pattern", "permission"):
        if row.role_id in granted:
            granted[row.role_id].add((row.resource_type, row.resource_pattern, row.permission))
    given: dict[int, set[str]] = {number: set() for number in users}
    for row in rows("user_role_assignments", "user_id", "role_id"):
        if row.user_id in given and row.role_id in called:
            given[row.user_id].add(called[row.role_id])
    return {
        "user": {
            row.username: {
                "password": row.password_hash,
                "is_admin": bool(row.is_admin),
                "roles": given[number],
            }
            for number, row in users.items()
        },
        "role": {
            called[number]: {"description": row.description, "permissions": granted[number]}
            for number, row in roles.items()
            # A user's own role without the user is nobody's.
            if (owner := _number_in(row.name)) is None or owner in users
        },
    }


def _of_target(users: list[Row], roles: list[Row]) -> dict[str, dict[str, Row]]:
    names = {each["_id"]: each["username"] for each in users}
    called = {each["_id"]: _called(each["workspace"], each["name"], names) for each in roles}
    return {
        "user": {
            each["username"]: {
                "password": each["password_hash"],
                "is_admin": each["is_admin"],
                "roles": {called[one["role_id"]] for one in each["roles"] if one["role_id"] in called},
            }
            for each in users
        },
        "role": {
            called[each["_id"]]: {
                "description": each.get("description"),
                "permissions": {
                    (one["resource_type"], one["resource_pattern"], one["permission"])
                    for one in each["permissions"]
                },
            }
            for each in roles
        },
    }


def _called(workspace: str, name: str, users: dict[int, str]) -> str:
    """A role by a name that is the same on both sides: a user's own by the user."""
    number = _number_in(name)
    if number is not None and number in users:
        name = f"own role of {users[number]}"
    return name if workspace == DEFAULT_WORKSPACE_NAME else f"{workspace}/{name}"


def _number_in(name: str) -> int | None:
    found = re.fullmatch(r"__user_([0-9]+)__", name)
    return int(found[1]) if found else None
