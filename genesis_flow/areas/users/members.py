"""Who has which role, and what users may by their roles.

Round trips: give a role four (both are there, a number, the change), take it back one. Every question about
what a user may is two: the ids of the user's roles, and these.
"""

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Collection as Several
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from pymongo import ASCENDING

from genesis_flow.areas.experiments.methods import next_number
from genesis_flow.areas.users.documents import (
    assignment_entity,
    number,
    role_entity,
)
from genesis_flow.areas.users.shared import roles_in, unknown_role, unknown_user, unknown_user_id, users_in
from genesis_flow.compat import login
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, mutation, operation

if TYPE_CHECKING:
    from mlflow.server.auth.entities import Role, UserRoleAssignment
    from mlflow.server.auth.sqlalchemy_store import RoleGrantRow

_BY_ID = [("_id", ASCENDING)]
_OF_WORKSPACE = {"resource_type": login.WORKSPACE, "resource_pattern": login.EVERYTHING}
_ADMINS = {"permissions": {"$elemMatch": {**_OF_WORKSPACE, "permission": login.MANAGE}}}


class Members(Area):
    async def _ids_of_roles(self, query: Document) -> list[int] | None:
        """The ids of a user's roles in the order in which they were given; None if there is no such user."""
        user = await users_in(self.database).find_one(query, {"roles.role_id": 1})
        return None if user is None else [each["role_id"] for each in user["roles"]]

    async def _roles_of(
        self, user_id: int, condition: Document | None = None, shown: Document | None = None
    ) -> list[Document]:
        """A user's roles, as they were given. An unknown user has none."""
        ids = await self._ids_of_roles({"_id": number("user_id", user_id)})
        return await self._chosen(ids or [], condition, shown)

    async def _chosen(
        self, ids: list[int], condition: Document | None, shown: Document | None
    ) -> list[Document]:
        if not ids:
            return []
        query = {"_id": {"$in": ids}, **(condition or {})}
        found = await roles_in(self.database).find(query, shown, batch_size=BATCH).to_list()
        place = {role_id: at for at, role_id in enumerate(ids)}
        return sorted(found, key=lambda role: place[role["_id"]])

    async def _workspaces_of(self, user_id: int, condition: Document | None = None) -> set[str]:
        roles = await self._roles_of(user_id, condition, {"workspace": 1})
        return {role["workspace"] for role in roles}

    @mutation
    async def assign_role_to_user(self, user_id: int, role_id: int) -> "UserRoleAssignment":
        """Give a user a role."""
        wanted = {"_id": number("user_id", user_id)}

        async def draw() -> int:
            user, role = await asyncio.gather(
                users_in(self.database).find_one(wanted, {"roles.role_id": 1}),
                roles_in(self.database).find_one({"_id": number("role_id", role_id)}, {"_id": 1}),
            )
            if user is None:
                raise unknown_user_id(user_id)
            if role is None:
                raise unknown_role(role_id)
            if role_id in {each["role_id"] for each in user["roles"]}:
                raise _has_it(user_id, role_id)
            return await next_number(self.database, "role_assignments")

        made = {"id": await drawn_once("assignment", draw), "role_id": role_id}
        given = await users_in(self.database).update_one(
            {**wanted, "roles.role_id": {"$ne": role_id}}, {"$push": {"roles": made}}
        )
        if not given.matched_count:
            user = await users_in(self.database).find_one(wanted, {"roles": 1})
            if user is None:
                raise unknown_user_id(user_id)
            if made not in user["roles"]:  # else an earlier try of this call has given it
                raise _has_it(user_id, role_id)
        return assignment_entity(user_id, made)

    @mutation
    async def unassign_role_from_user(self, member_id: int, role_id: int) -> None:
        """Take a role from a user, which the audit trail names: it takes ``user_id`` for who acts."""
        taken = await users_in(self.database).update_one(
            {"_id": number("user_id", member_id), "roles.role_id": number("role_id", role_id)},
            {"$pull": {"roles": {"role_id": role_id}}},
        )
        if not taken.matched_count and not is_repetition():
            raise MlflowException(
                f"User role assignment (user_id={member_id}, role_id={role_id}) not found",
                RESOURCE_DOES_NOT_EXIST,
            )

    @operation
    async def list_user_roles(self, user_id: int) -> "list[Role]":
        """A user's roles."""
        return [role_entity(each) for each in await self._roles_of(user_id)]

    @operation
    async def list_user_roles_for_workspace(self, user_id: int, workspace: str) -> "list[Role]":
        """A user's roles in a workspace."""
        return [role_entity(each) for each in await self._roles_of(user_id, {"workspace": workspace})]

    @operation
    async def list_role_users(self, role_id: int) -> "list[UserRoleAssignment]":
        """Who has a role, in the order in which it was given."""
        query = {"_id": number("role_id", role_id)}
        role, users = await asyncio.gather(
            roles_in(self.database).find_one(query, {"_id": 1}),
            users_in(self.database)
            .find({"roles.role_id": role_id}, {"roles": 1}, batch_size=BATCH)
            .to_list(),
        )
        if role is None:
            raise unknown_role(role_id)
        found = [
            assignment_entity(user["_id"], each)
            for user in users
            for each in user["roles"]
            if each["role_id"] == role_id
        ]
        return sorted(found, key=lambda assignment: int(assignment.id))

    @operation
    async def user_has_any_role_in_workspace(self, user_id: int, workspace: str) -> bool:
        """Whether a user has a role in a workspace, be it one without permissions."""
        return bool(await self._roles_of(user_id, {"workspace": workspace}, {"_id": 1}))

    @operation
    async def list_user_present_workspaces(self, user_id: int) -> set[str]:
        """The workspaces in which a user has a role."""
        return await self._workspaces_of(user_id)

    @operation
    async def list_workspace_admin_workspaces(self, user_id: int) -> set[str]:
        """The workspaces that a user manages."""
        return await self._workspaces_of(user_id, _ADMINS)

    @operation
    async def is_workspace_admin(self, user_id: int, workspace: str) -> bool:
        """Whether a user manages a workspace."""
        return bool(await self._roles_of(user_id, {**_ADMINS, "workspace": workspace}, {"_id": 1}))

    @operation
    async def is_workspace_admin_of_any_of_users_workspaces(
        self, admin_user_id: int, target_user_id: int
    ) -> bool:
        """Whether one user manages a workspace in which the other has a role."""
        managed, present = await asyncio.gather(
            self._workspaces_of(admin_user_id, _ADMINS), self._workspaces_of(target_user_id)
        )
        return bool(managed & present)

    @operation
    async def list_accessible_workspace_names(self, username: str | None) -> set[str]:
        """The workspaces that a user sees: by any role that users share, or by an own permission to read."""
        if username is None:
            return set()
        ids = await self._ids_of_roles({"username": username})
        if ids is None:
            raise unknown_user(username)
        shown = {"workspace": 1, "owner_id": 1, "permissions": {"$elemMatch": _OF_WORKSPACE}}
        return {
            role["workspace"]
            for role in await self._chosen(ids, None, shown)
            if role.get("owner_id") is None
            or any(login.may_read(each["permission"]) for each in role.get("permissions", ()))
        }

    @operation
    async def list_grants(
        self, user_id: int, workspace: str, resource_types: "Several[str]"
    ) -> "list[RoleGrantRow]":
        """What a user may with things of some types in a workspace, and with the workspace itself."""
        types = set(resource_types)
        for each in types:
            login.check_type(each)
        kinds = {"permissions.resource_type": {"$in": sorted({*types, login.WORKSPACE})}}
        return [
            login.grant_row(each["resource_type"], each["resource_pattern"], each["permission"])
            async for each in self._grants(user_id, workspace, kinds)
        ]

    @operation
    async def list_role_grants_for_user_in_workspace(
        self, user_id: int, workspace: str, resource_type: str
    ) -> list[tuple[str, str]]:
        """What a user may with things of a type, by pattern, and what a permission for the workspace adds."""
        login.check_type(resource_type)
        whole: Document = {f"permissions.{field}": value for field, value in _OF_WORKSPACE.items()}
        if login.ONLY_MANAGERS_SEE_ALL:
            whole["permissions.permission"] = login.MANAGE
        kinds = {"$or": [{"permissions.resource_type": resource_type}, whole]}
        return [
            (each["resource_pattern"], each["permission"])
            async for each in self._grants(user_id, workspace, kinds)
        ]

    async def _grants(self, user_id: int, workspace: str, condition: Document) -> AsyncIterator[Document]:
        """A user's permissions in a workspace. The server picks them: one role may have many thousands."""
        ids = await self._ids_of_roles({"_id": number("user_id", user_id)})
        if not ids:
            return
        rows = await roles_in(self.database).aggregate(
            [
                {"$match": {"_id": {"$in": ids}, "workspace": workspace}},
                {"$unwind": "$permissions"},
                {"$match": condition},
                {"$project": {"permissions": 1}},
            ],
            batchSize=BATCH,
        )
        place = {role_id: at for at, role_id in enumerate(ids)}
        found = [row async for row in rows]
        for row in sorted(found, key=lambda row: (place[row["_id"]], row["permissions"]["id"])):
            yield row["permissions"]


def _has_it(user_id: int, role_id: int) -> MlflowException:
    return MlflowException(
        f"User role assignment (user_id={user_id}, role_id={role_id}) already exists", RESOURCE_ALREADY_EXISTS
    )
