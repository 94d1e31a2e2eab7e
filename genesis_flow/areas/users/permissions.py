"""What users may themselves, without a role that others have.

It is kept as MLflow keeps it, in a role of the user's own in each workspace. Round trips: grant six (the
user, the own role, whether somebody else has it, the change of what was granted before; where nothing was, a
number and the change), five more for the first in a workspace. Revoke two. What was granted on a thing that
goes or gets another name: one, or two.

The role is there and the user has it before anything is granted by it: a grant counts at once, or not at all.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.experiments.methods import next_number
from genesis_flow.areas.users.documents import RoleFields, not_on, on
from genesis_flow.areas.users.shared import roles_in, unknown_user, users_in
from genesis_flow.compat import login
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.error_edge import Meanwhile
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from mlflow.server.auth.entities import GatewayEndpointPermission

_OWN = {"owner_id": {"$type": "number"}}


class Permissions(Area):
    async def _grantee(self, username: str) -> Document:
        found = await users_in(self.database).find_one({"username": username}, {"roles.role_id": 1})
        if found is None:
            raise unknown_user(username)
        return found

    async def _own_role(self, username: str) -> int:
        """The user's own role in this workspace, which the user has."""
        user = await self._grantee(username)
        named = {"workspace": current_workspace(), "name": login.own_role_name(user["_id"])}
        found = await roles_in(self.database).find_one(named, {"_id": 1})
        role_id: int = await self._made(user["_id"], named) if found is None else found["_id"]
        held = {"roles.role_id": role_id}
        if role_id not in {each["role_id"] for each in user["roles"]}:
            made = {
                "id": await drawn_once("assignment", lambda: next_number(self.database, "role_assignments")),
                "role_id": role_id,
            }
            await users_in(self.database).update_one(
                {"_id": user["_id"], "roles.role_id": {"$ne": role_id}}, {"$push": {"roles": made}}
            )
            if await users_in(self.database).find_one({"_id": user["_id"], **held}, {"_id": 1}) is None:
                await roles_in(self.database).delete_one({"_id": role_id})
                raise unknown_user(username)
        other = await users_in(self.database).find_one({"_id": {"$ne": user["_id"]}, **held}, {"_id": 1})
        if other is not None:
            raise invalid(
                f"Role {named['name']!r} in workspace {named['workspace']!r} is for one user, but "
                f"user_id={other['_id']} has it, too. Take it from that user before you grant per-user "
                "permissions."
            )
        return role_id

    async def _made(self, user_id: int, named: Document) -> int:
        role_id = await drawn_once("own role", lambda: next_number(self.database, "roles"))
        document = RoleFields(_id=role_id, owner_id=user_id, **named)
        try:
            await insert_once(roles_in(self.database), document.model_dump(by_alias=True, exclude_none=True))
        except DuplicateKeyError as error:
            found = await roles_in(self.database).find_one(named, {"_id": 1})
            if found is None:
                raise Meanwhile("The user's own role was made and removed meanwhile.") from error
            return int(found["_id"])
        return role_id

    @mutation
    async def grant_user_permission(
        self, username: str, resource_type: str, resource_pattern: str, permission: str
    ) -> None:
        """Let a user do something with a thing, whatever the user was granted on it before."""
        login.check_grant(resource_type, resource_pattern, permission)
        resource_pattern = login.canonical(resource_type, resource_pattern)
        role_id = await self._own_role(username)
        await self._grant(role_id, resource_type, resource_pattern, permission)

    @mutation
    async def grant_user_permissions(self, username: str, grants: Iterable[tuple[str, str, str]]) -> None:
        """Several such grants: all are checked before the first is made."""
        await self._grantee(username)
        checked: list[tuple[str, str, str]] = []
        for resource_type, resource_pattern, permission in grants:
            if not all(isinstance(each, str) for each in (resource_type, resource_pattern, permission)):
                raise invalid("grants must be texts: a resource type, a pattern and a permission each.")
            login.refuse_workspace(resource_type)
            login.check_grant(resource_type, resource_pattern, permission)
            checked.append((resource_type, login.canonical(resource_type, resource_pattern), permission))
        role_id = await self._own_role(username)
        for grant in checked:
            await self._grant(role_id, *grant)

    async def _grant(self, role_id: int, resource_type: str, resource_pattern: str, permission: str) -> None:
        changed = await roles_in(self.database).update_one(
            {"_id": role_id, **on(resource_type, resource_pattern)},
            {"$set": {"permissions.$.permission": permission}},
        )
        if not changed.matched_count:
            added = await self._added(role_id, resource_type, resource_pattern, permission)
            if not added:
                raise Meanwhile(
                    f"Another call changes what is granted on {resource_type} {resource_pattern}."
                )

    async def _added(self, role_id: int, resource_type: str, resource_pattern: str, permission: str) -> bool:
        """Whether there was nothing, and the permission is there now."""
        drawn = f"permission {resource_type} {resource_pattern}"
        made = {
            "id": await drawn_once(drawn, lambda: next_number(self.database, "role_permissions")),
            "resource_type": resource_type,
            "resource_pattern": resource_pattern,
            "permission": permission,
        }
        wanted = {"_id": role_id, **not_on(resource_type, resource_pattern)}
        added = await roles_in(self.database).update_one(wanted, {"$push": {"permissions": made}})
        if added.matched_count:
            return True
        own = {"_id": role_id, "permissions.id": made["id"]}
        return is_repetition() and await roles_in(self.database).find_one(own, {"_id": 1}) is not None

    @mutation
    async def grant_user_resource_permission(
        self, username: str, resource_type: str, resource_pattern: str, permission: str
    ) -> None:
        """Let a user do something with a thing on which the user was granted nothing yet."""
        login.refuse_workspace(resource_type)
        login.check_grant(resource_type, resource_pattern, permission)
        resource_pattern = login.canonical(resource_type, resource_pattern)
        role_id = await self._own_role(username)
        granted = await roles_in(self.database).find_one(
            {"_id": role_id, **on(resource_type, resource_pattern)}, {"_id": 1}
        )
        if (granted is not None and not is_repetition()) or not await self._added(
            role_id, resource_type, resource_pattern, permission
        ):
            raise MlflowException(
                f"Permission for user={username} on resource_type={resource_type}, "
                f"resource_id={resource_pattern} already exists.",
                RESOURCE_ALREADY_EXISTS,
            )

    @mutation
    async def revoke_user_resource_permission(
        self, username: str, resource_type: str, resource_pattern: str
    ) -> None:
        """Take back what was granted to a user on a thing."""
        login.refuse_workspace(resource_type)
        login.check_type(resource_type)
        resource_pattern = login.canonical(resource_type, resource_pattern)
        user = await self._grantee(username)
        revoked = await roles_in(self.database).update_one(
            {
                "workspace": current_workspace(),
                "name": login.own_role_name(user["_id"]),
                **on(resource_type, resource_pattern),
            },
            _without(resource_type, resource_pattern),
        )
        if not revoked.matched_count and not is_repetition():
            raise MlflowException(
                f"Permission for user={username} on resource_type={resource_type}, "
                f"resource_id={resource_pattern} not found.",
                RESOURCE_DOES_NOT_EXIST,
            )

    @mutation
    async def delete_grants_for_resource(
        self, resource_type: str, resource_pattern: str, *, workspace_scoped: bool = False
    ) -> None:
        """Forget what was granted to users on a thing that is gone. Roles that users share stay."""
        resource_pattern = _known(resource_type, resource_pattern)
        await roles_in(self.database).update_many(
            {**_own(workspace_scoped), **on(resource_type, resource_pattern)},
            _without(resource_type, resource_pattern),
        )

    @mutation
    async def rename_grants_for_resource(
        self, resource_type: str, old_pattern: str, new_pattern: str, *, workspace_scoped: bool = False
    ) -> None:
        """Keep what was granted to users on a thing that has another name now.

        Should a user have something under the new name already, it was for a thing that is gone.
        """
        old_pattern, new_pattern = _known(resource_type, old_pattern), _known(resource_type, new_pattern)
        if old_pattern == new_pattern:
            return
        query = {**_own(workspace_scoped), **on(resource_type, old_pattern)}
        await roles_in(self.database).update_many(
            {"$and": [query, on(resource_type, new_pattern)]}, _without(resource_type, new_pattern)
        )
        await roles_in(self.database).update_many(
            query, {"$set": {"permissions.$.resource_pattern": new_pattern}}
        )

    @mutation
    async def delete_workspace_permissions_for_workspace(self, workspace_name: str) -> None:
        """Forget what was granted to users on a workspace as a whole."""
        whole = (login.WORKSPACE, login.EVERYTHING)
        await roles_in(self.database).update_many(
            {**_OWN, "workspace": workspace_name, **on(*whole)}, _without(*whole)
        )

    @operation
    async def list_gateway_endpoint_permissions(self, username: str) -> "list[GatewayEndpointPermission]":
        """What a user was granted on endpoints of the gateway; MLflow's assistant asks for it."""
        user = await self._grantee(username)
        rows = await roles_in(self.database).aggregate(
            [
                {"$match": {"workspace": current_workspace(), "name": login.own_role_name(user["_id"])}},
                {"$unwind": "$permissions"},
                {"$match": {"permissions.resource_type": "gateway_endpoint"}},
                {"$project": {"permissions": 1}},
            ],
            batchSize=BATCH,
        )
        found = sorted([row["permissions"] async for row in rows], key=_pattern)
        return [
            login.entities().GatewayEndpointPermission(
                endpoint_id=each["resource_pattern"], user_id=user["_id"], permission=each["permission"]
            )
            for each in found
        ]

    @operation
    async def list_named_role_grants_for_resource(
        self, resource_types: Iterable[str], resource_patterns: Iterable[str]
    ) -> list[tuple[str, ...]]:
        """What roles that users share have on things that are named, not by a pattern."""
        found = await self._on_things(resource_types, resource_patterns, {"owner_id": None})
        return [login.named_role_grant(role["name"], *grant) for role, grant in found]

    @operation
    async def list_per_user_grants_for_resource(
        self, resource_types: Iterable[str], resource_patterns: Iterable[str]
    ) -> list[tuple[str, ...]]:
        """What was granted to users themselves on things that are named, by the name of the user."""
        found = await self._on_things(resource_types, resource_patterns, _OWN)
        owners = sorted({role["owner_id"] for role, _ in found})
        users = users_in(self.database).find({"_id": {"$in": owners}}, {"username": 1}, batch_size=BATCH)
        names = {user["_id"]: user["username"] for user in await users.to_list()} if owners else {}
        return sorted(
            login.per_user_grant(names[role["owner_id"]], *grant)
            for role, grant in found
            if role["owner_id"] in names
        )

    async def _on_things(
        self, resource_types: Iterable[str], resource_patterns: Iterable[str], whose: Document
    ) -> list[tuple[Document, tuple[str, str, str]]]:
        types, patterns = list(resource_types), [each for each in resource_patterns if each != "*"]
        for each in types:
            login.check_type(each)
        if not all(isinstance(each, str) for each in patterns):
            raise invalid("resource_patterns must be texts.")
        if not types or not patterns:
            return []
        wanted = {"resource_type": {"$in": types}, "resource_pattern": {"$in": patterns}}
        query = {"workspace": current_workspace(), **whose, "permissions": {"$elemMatch": wanted}}
        roles = (
            await roles_in(self.database).find(query, sort=[("name", ASCENDING)], batch_size=BATCH).to_list()
        )
        return [
            (role, (each["resource_type"], each["resource_pattern"], each["permission"]))
            for role in roles
            for each in sorted(role["permissions"], key=_pattern)
            if each["resource_type"] in types and each["resource_pattern"] in patterns
        ]


def _pattern(permission: Document) -> Any:
    return permission["resource_pattern"], permission["id"]


def _own(workspace_scoped: bool) -> Document:
    return {**_OWN, "workspace": current_workspace()} if workspace_scoped else dict(_OWN)


def _known(resource_type: str, resource_pattern: str) -> str:
    if login.HAS_CANONICAL_FORMS:
        login.check_type(resource_type)
    return login.canonical(resource_type, resource_pattern)


def _without(resource_type: str, resource_pattern: str) -> Document:
    gone = {"resource_type": resource_type, "resource_pattern": resource_pattern}
    return {"$pull": {"permissions": gone}}
