"""Roles and their permissions.

Round trips: get, list, remove one; create, and add a permission, three (is it free, a number, the change);
update, and another level for a permission, two (what it is, the change); delete two (the role, then what
users have of it: whoever reads the id of a role that is gone passes over it).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.experiments.methods import next_number
from genesis_flow.areas.users.documents import (
    RoleFields,
    not_on,
    number,
    permission_entity,
    role_entity,
)
from genesis_flow.areas.users.shared import roles_in, unknown_role, users_in
from genesis_flow.compat import login
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, mutation, operation
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from mlflow.server.auth.entities import Role, RolePermission

_BY_ID = [("_id", ASCENDING)]


class Roles(Area):
    async def _role(self, role_id: int) -> Document:
        found = await roles_in(self.database).find_one({"_id": number("role_id", role_id)})
        if found is None:
            raise unknown_role(role_id)
        return found

    @mutation
    async def create_role(self, name: str, workspace: str, description: str | None = None) -> "Role":
        """Add a role, which may nothing yet."""
        if not isinstance(name, str):
            raise invalid("name must be a text. Give the role a name.")
        login.check_role(name, description)

        async def draw() -> int:
            # Asked first only so that a taken name does not use up a number; the unique index decides.
            if (
                await roles_in(self.database).find_one({"workspace": workspace, "name": name}, {"_id": 1})
                is not None
            ):
                raise _taken(name, workspace)
            return await next_number(self.database, "roles")

        role_id = await drawn_once("role", draw)
        document = RoleFields(_id=role_id, workspace=workspace, name=name, description=description)
        try:
            made = await insert_once(
                roles_in(self.database), document.model_dump(by_alias=True, exclude_none=True)
            )
        except DuplicateKeyError as error:
            raise _taken(name, workspace) from error
        return role_entity(made)

    @operation
    async def get_role(self, role_id: int) -> "Role":
        """The role with this id."""
        return role_entity(await self._role(role_id))

    @operation
    async def get_role_by_name(self, workspace: str, name: str) -> "Role":
        """The role of this name in a workspace."""
        found = await roles_in(self.database).find_one({"workspace": workspace, "name": name})
        if found is None:
            raise MlflowException(
                f"Role with name={name} in workspace={workspace} not found", RESOURCE_DOES_NOT_EXIST
            )
        return role_entity(found)

    @operation
    async def list_roles(self, workspaces: "Iterable[str] | None" = None) -> "list[Role]":
        """All roles, or those of some workspaces; of none there are none."""
        query = {} if workspaces is None else {"workspace": {"$in": _texts(workspaces)}}
        found = roles_in(self.database).find(query, sort=_BY_ID, batch_size=BATCH)
        return [role_entity(each) for each in await found.to_list()]

    @mutation
    async def update_role(
        self, role_id: int, name: str | None = None, description: str | None = None
    ) -> "Role":
        """Give a role another name or description; None leaves what is there."""
        login.check_role(name, description)
        role = await self._role(role_id)
        given = {"name": name, "description": description}
        change: Document = {"$set": {field: value for field, value in given.items() if value is not None}}
        if not change["$set"]:
            return role_entity(role)
        if name is not None and role.get("owner_id") is not None:
            change["$unset"] = {"owner_id": ""}  # a user's own role is one by its name
        try:
            changed = await roles_in(self.database).find_one_and_update(
                {"_id": role_id}, change, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError as error:
            raise MlflowException(
                f"Role with name={name} already exists in workspace={role['workspace']}",
                RESOURCE_ALREADY_EXISTS,
            ) from error
        if changed is None:
            raise unknown_role(role_id)
        return role_entity(changed)

    @mutation
    async def delete_role(self, role_id: int) -> None:
        """Remove a role: at once for all who have it."""
        removed = await roles_in(self.database).delete_one({"_id": number("role_id", role_id)})
        if not removed.deleted_count and not is_repetition():
            raise unknown_role(role_id)
        await self._taken_from_all([role_id])

    @mutation
    async def delete_roles_for_workspace(self, workspace_name: str) -> None:
        """Remove all roles of a workspace that is deleted, those of users alone too."""
        # Users forget them first: whoever repeats this after a crash still finds the roles.
        query = {"workspace": workspace_name}
        found = await roles_in(self.database).find(query, {"_id": 1}, batch_size=BATCH).to_list()
        await self._taken_from_all([each["_id"] for each in found])
        await roles_in(self.database).delete_many(query)

    async def _taken_from_all(self, role_ids: list[int]) -> None:
        chosen = {"role_id": {"$in": role_ids}}
        await users_in(self.database).update_many(
            {"roles.role_id": {"$in": role_ids}}, {"$pull": {"roles": chosen}}
        )

    @mutation
    async def add_role_permission(
        self, role_id: int, resource_type: str, resource_pattern: str, permission: str
    ) -> "RolePermission":
        """Let a role do something with a thing, or with all things of a type."""
        login.check_role_permission(resource_type, resource_pattern, permission)
        resource_pattern = login.canonical_of_role(resource_type, resource_pattern)
        wanted = {"_id": number("role_id", role_id), **not_on(resource_type, resource_pattern)}

        async def draw() -> int:
            # Asked first only so that a refusal does not use up a number.
            if await roles_in(self.database).find_one(wanted, {"_id": 1}) is None:
                await self._refuse_permission(role_id, resource_type, resource_pattern)
            return await next_number(self.database, "role_permissions")

        made = {
            "id": await drawn_once("permission", draw),
            "resource_type": resource_type,
            "resource_pattern": resource_pattern,
            "permission": permission,
        }
        added = await roles_in(self.database).update_one(wanted, {"$push": {"permissions": made}})
        if not added.matched_count:
            there = {each["id"] for each in (await self._role(role_id))["permissions"]}
            if made["id"] not in there:  # else an earlier try of this call has added it
                await self._refuse_permission(role_id, resource_type, resource_pattern)
        return permission_entity(role_id, made)

    async def _refuse_permission(self, role_id: int, resource_type: str, resource_pattern: str) -> NoReturn:
        await self._role(role_id)
        raise MlflowException(
            f"Role permission (role_id={role_id}, resource_type={resource_type}, "
            f"resource_pattern={resource_pattern}) already exists.",
            RESOURCE_ALREADY_EXISTS,
        )

    @operation
    async def get_role_permission(self, role_permission_id: int) -> "RolePermission":
        """The permission with this id."""
        role_id, found = await self._permission(role_permission_id)
        return permission_entity(role_id, found)

    async def _permission(self, permission_id: int) -> tuple[int, Document]:
        wanted = {"permissions.id": number("role_permission_id", permission_id)}
        found = await roles_in(self.database).find_one(wanted, {"permissions.$": 1})
        if found is None:
            raise _no_permission(permission_id)
        return found["_id"], found["permissions"][0]

    @mutation
    async def remove_role_permission(self, role_permission_id: int) -> None:
        """Take a permission from a role."""
        wanted = number("role_permission_id", role_permission_id)
        removed = await roles_in(self.database).update_one(
            {"permissions.id": wanted}, {"$pull": {"permissions": {"id": wanted}}}
        )
        if not removed.matched_count and not is_repetition():
            raise _no_permission(role_permission_id)

    @operation
    async def list_role_permissions(self, role_id: int) -> "list[RolePermission]":
        """What a role may, in the order in which it was added."""
        role = await self._role(role_id)
        return [permission_entity(role_id, each) for each in role["permissions"]]

    @mutation
    async def update_role_permission(self, role_permission_id: int, permission: str) -> "RolePermission":
        """Raise or lower what a role may do with a thing."""
        role_id, found = await self._permission(role_permission_id)
        login.check_level(found["resource_type"], permission)
        changed = await roles_in(self.database).update_one(
            {"_id": role_id, "permissions.id": found["id"]},
            {"$set": {"permissions.$.permission": permission}},
        )
        if not changed.matched_count:
            raise _no_permission(role_permission_id)
        return permission_entity(role_id, {**found, "permission": permission})


def _texts(values: Any) -> list[str]:
    listed = list(values)
    if not all(isinstance(each, str) for each in listed):
        raise invalid("workspaces must be names of workspaces.")
    return listed


def _taken(name: str, workspace: str) -> MlflowException:
    return MlflowException(
        f"Role (name={name}, workspace={workspace}) already exists.", RESOURCE_ALREADY_EXISTS
    )


def _no_permission(permission_id: int) -> MlflowException:
    return MlflowException(f"Role permission with id={permission_id} not found", RESOURCE_DOES_NOT_EXIST)
