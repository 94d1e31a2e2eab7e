"""Which rights a run needs and the user has; asked before the first write."""

import re
from typing import Any

from pymongo.database import Database
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from genesis_flow.core.driver_text import plain_text

UNAUTHORIZED = 13
NO_USER = "requires authentication"
AUTHENTICATION = (11, 18, 8000)
NEEDED = ("find", "insert", "update", "remove", "createCollection", "createIndex")
# Nobody logged in: the server has no access control, or refuses by itself.
EVERYTHING = frozenset(("*",))
_ROLES = {"collMod": "dbAdmin", "validate": "dbAdmin", "dropDatabase": "dbAdmin", "reIndex": "dbAdmin"}


def missing_rights(db: Database[dict[str, Any]], needed: tuple[str, ...]) -> list[str]:
    """The needed actions that the user has nowhere in the database.

    A role that grants an action on single collections counts as having it; should the collection be another
    one, the server says so. Services without connectionStatus are asked by doing.
    """
    granted = granted_actions(db)
    if granted is None or granted == EVERYTHING:
        return []
    return [action for action in dict.fromkeys(needed) if action not in granted]


def granted_actions(db: Database[dict[str, Any]]) -> frozenset[str] | None:
    """The actions that the user may do in the database; None where the server does not say."""
    try:
        status = db.client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    except OperationFailure:
        return None
    if not status["authenticatedUsers"]:
        return EVERYTHING
    granted: set[str] = set()
    for privilege in status.get("authenticatedUserPrivileges", []):
        resource = privilege["resource"]
        if resource.get("anyResource") or resource.get("db") in ("", db.name):
            granted.update(privilege["actions"])
    return frozenset(granted)


def explain_missing(actions: list[str], database: str) -> str:
    roles = dict.fromkeys(_ROLES.get(action, "readWrite") for action in actions)
    return (
        f"The database user lacks the right to {', '.join(actions)} in {database!r}: grant it the role "
        f"{' and '.join(roles)} on that database, or run this command as a user that has it."
    )


def explain_refusal(error: OperationFailure, database: str) -> str | None:
    """The right that a step was refused for lack of; None when the error is another one."""
    if error.code != UNAUTHORIZED:
        return None
    command = re.search(r"execute command \{ *(\w+):", str(error))
    return explain_missing([command[1]], database) if command else plain_text(error)


def explain(error: PyMongoError, database: str, where: str) -> str:
    """A sentence for an operator about a driver's error; ``where`` names the database without a password."""
    reason = plain_text(error)
    if isinstance(error, OperationFailure):
        if error.code == UNAUTHORIZED and NO_USER in str(error):
            return (
                f"No user was given, and {where} lets in nobody without one: name user and password in "
                "GENESIS_FLOW_MONGODB_USERNAME and GENESIS_FLOW_MONGODB_PASSWORD, or in the URI."
            )
        if refusal := explain_refusal(error, database):
            return refusal
        if error.code in AUTHENTICATION:
            return f"MongoDB refused the user name or password for {where}: check them, and authSource."
    if isinstance(error, ConnectionFailure):
        return f"Cannot reach {where} ({reason}): check that the server runs and that its address is right."
    return f"MongoDB could not do this in {where} ({reason})."
