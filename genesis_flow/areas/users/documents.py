"""Users and roles: what is stored of them.

A user has the ids of his roles, and a role has its permissions: each change is one update of one document,
and who has a role is one index away. What was granted to a user himself is in a role of his own in each
workspace, as in MLflow's SQL store, whose REST answers show these roles.

Users are of no workspace, and ids of roles are unique over all of them: the calls of MLflow's server name the
workspace where it matters, and queries here, which see all of them, do as they say.
"""

from typing import TYPE_CHECKING, Any

from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pydantic import Field
from pymongo import ASCENDING

from genesis_flow.compat import login
from genesis_flow.core.errors import invalid
from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.plain import Document

if TYPE_CHECKING:
    from mlflow.server.auth.entities import Role, RolePermission, User, UserRoleAssignment


class UserFields(Declared):
    """Who may log in to MLflow's server."""

    id: int = Field(alias="_id", description="Number of the user, from `counters`; never given again.")
    workspace: str = Field(
        default=DEFAULT_WORKSPACE_NAME, description="`default`: users are those of all workspaces."
    )
    username: str = Field(description="The name that is typed; unique.")
    password_hash: str = Field(
        description="What werkzeug makes of the password and a salt. The password itself is kept nowhere."
    )
    is_admin: bool = Field(description="Whether the user may do everything.")
    roles: list[dict[str, Any]] = Field(
        default_factory=list,
        description="The roles of the user: `role_id`, and `id`, the number of the assignment.",
    )

    class Settings(CollectionSettings):
        name = "auth_users"
        indexes = [
            Index(
                [("username", ASCENDING)],
                name="username_unique",
                unique=True,
                serves="One user of a name; the user who logs in.",
            ),
            Index([("roles.role_id", ASCENDING)], name="by_role", serves="The users who have a role."),
        ]
        keep_nulls = False


class RoleFields(Declared):
    """Permissions that users can be given together."""

    id: int = Field(alias="_id", description="Number of the role, from `counters`; never given again.")
    workspace: str = Field(description="The workspace in which it counts.")
    name: str = Field(description="Name, unique in the workspace.")
    description: str | None = Field(default=None, description="What it is for.")
    owner_id: int | None = Field(
        default=None,
        description="The user whose own permissions these are. Such a role is called `__user_<id>__`.",
    )
    permissions: list[dict[str, Any]] = Field(
        default_factory=list,
        description=(
            "Its permissions, the oldest first: `id`, `resource_type`, `resource_pattern` (an id, a name or "
            "`*`) and `permission`. One for a type and pattern."
        ),
    )

    class Settings(CollectionSettings):
        name = "auth_roles"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING)],
                name="name_unique",
                unique=True,
                serves="One role of a name in a workspace; the roles of a workspace; a user's own role.",
            ),
            Index([("owner_id", ASCENDING)], name="by_owner", serves="The own roles of a user who goes."),
            Index([("permissions.id", ASCENDING)], name="by_permission", serves="A permission by its id."),
            Index(
                [("permissions.resource_pattern", ASCENDING), ("permissions.resource_type", ASCENDING)],
                name="by_resource",
                serves="What was granted on a thing that is deleted or gets another name.",
            ),
        ]
        keep_nulls = False


def user_entity(document: Document) -> "User":
    made: User = login.entities().User(
        id_=document["_id"],
        username=document["username"],
        password_hash=document["password_hash"],
        is_admin=document["is_admin"],
    )
    return made


def role_entity(document: Document) -> "Role":
    made: Role = login.entities().Role(
        id_=document["_id"],
        name=document["name"],
        workspace=document["workspace"],
        description=document.get("description"),
        permissions=[permission_entity(document["_id"], each) for each in document["permissions"]],
    )
    return made


def permission_entity(role_id: int, permission: Document) -> "RolePermission":
    made: RolePermission = login.entities().RolePermission(
        id_=permission["id"],
        role_id=role_id,
        resource_type=permission["resource_type"],
        resource_pattern=permission["resource_pattern"],
        permission=permission["permission"],
    )
    return made


def assignment_entity(user_id: int, assignment: Document) -> "UserRoleAssignment":
    made: UserRoleAssignment = login.entities().UserRoleAssignment(
        id_=assignment["id"], user_id=user_id, role_id=assignment["role_id"]
    )
    return made


def number(name: str, value: Any) -> int:
    """An id. A dictionary in its place would be an operator to MongoDB."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be a whole number, not {value!r:.100}.")
    return value


def on(resource_type: str, resource_pattern: str) -> Document:
    """A condition on a role: it has a permission for this."""
    wanted = {"resource_type": resource_type, "resource_pattern": resource_pattern}
    return {"permissions": {"$elemMatch": wanted}}


def not_on(resource_type: str, resource_pattern: str) -> Document:
    wanted = {"resource_type": resource_type, "resource_pattern": resource_pattern}
    return {"permissions": {"$not": {"$elemMatch": wanted}}}
