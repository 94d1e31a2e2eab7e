"""Users.

Round trips: the check of a login, get, list one; create three (is the name free, a number, the insert);
update two (the user, the change); delete four (the user, the own roles, the user, and the own roles once
more, since something may have been granted in between). With roles two, or three for one workspace.

To make or to check a hash takes a tenth of a second of a processor: it is done outside of the event loop.
"""

import asyncio
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.experiments.methods import next_number
from genesis_flow.areas.users.documents import UserFields, role_entity, user_entity
from genesis_flow.areas.users.shared import roles_in, unknown_user, users_in
from genesis_flow.compat import login
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, made_first, mutation, operation
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from mlflow.server.auth.entities import Role, User

_BY_ID = [("_id", ASCENDING)]


class Users(Area):
    async def _user(self, username: str) -> Document:
        found = await users_in(self.database).find_one({"username": username})
        if found is None:
            raise unknown_user(username)
        return found

    @operation
    async def authenticate_user(self, username: str, password: str, *, use_primary: bool = False) -> bool:
        """Whether this is the password of a user. The URI says which members are read."""
        found = await users_in(self.database).find_one({"username": username}, {"password_hash": 1})
        if found is None:
            return False
        return await asyncio.to_thread(login.is_password, found["password_hash"], password)

    @operation
    async def has_user(self, username: str, *, use_primary: bool = False) -> bool:
        """Whether there is a user of this name."""
        return await users_in(self.database).find_one({"username": username}, {"_id": 1}) is not None

    @operation
    async def get_user(self, username: str) -> "User":
        """The user of this name."""
        return user_entity(await self._user(username))

    @operation
    async def list_users(self) -> "list[User]":
        """All users, in the order in which they were made."""
        found = users_in(self.database).find({}, sort=_BY_ID, batch_size=BATCH)
        return [user_entity(each) for each in await found.to_list()]

    @operation
    async def list_users_with_roles(
        self, workspace: str | None = None, requester: str | None = None
    ) -> "list[tuple[User, list[Role]]]":
        """All users with their roles. For a workspace: admins, who asks, and who has a role there."""
        query: Document = {}
        if workspace is not None:
            roles = roles_in(self.database).find({"workspace": workspace}, {"_id": 1}, batch_size=BATCH)
            there = [role["_id"] for role in await roles.to_list()]
            shown = [{"is_admin": True}, {"username": requester}, {"roles.role_id": {"$in": there}}]
            query = {"$or": shown}
        users = await users_in(self.database).find(query, sort=_BY_ID, batch_size=BATCH).to_list()
        wanted = {"_id": {"$in": sorted({each["role_id"] for user in users for each in user["roles"]})}}
        known = {
            role["_id"]: role
            for role in await roles_in(self.database).find(wanted, batch_size=BATCH).to_list()
        }
        return [
            (
                user_entity(user),
                [role_entity(known[each["role_id"]]) for each in user["roles"] if each["role_id"] in known],
            )
            for user in users
        ]

    @mutation
    async def create_user(self, username: str, password: str, is_admin: bool = False) -> "User":
        """Let somebody log in. Of several who make one user at a time one does, and the others are told."""
        login.check_new_user(username, password)
        hashed = await made_first(lambda: login.password_hash(password))

        async def draw() -> int:
            # Asked first only so that a taken name does not use up a number; the unique index decides.
            if await users_in(self.database).find_one({"username": username}, {"_id": 1}) is not None:
                raise _taken(username)
            return await next_number(self.database, "users")

        number = await drawn_once("user", draw)
        document = UserFields(_id=number, username=username, password_hash=hashed, is_admin=bool(is_admin))
        try:
            made = await insert_once(
                users_in(self.database), document.model_dump(by_alias=True, exclude_none=True)
            )
        except DuplicateKeyError as error:
            raise _taken(username) from error
        return user_entity(made)

    @mutation
    async def update_user(
        self, username: str, password: str | None = None, is_admin: bool | None = None
    ) -> "User":
        """Give a user another password, or make an admin of one or an admin one."""
        user = await self._user(username)
        change: Document = {}
        if password is not None:
            login.check_password(password)
            change["password_hash"] = await asyncio.to_thread(login.password_hash, password)
        if is_admin is not None:
            change["is_admin"] = bool(is_admin)
        if not change:
            return user_entity(user)
        changed = await users_in(self.database).find_one_and_update(
            {"_id": user["_id"]}, {"$set": change}, return_document=ReturnDocument.AFTER
        )
        if changed is None:
            raise unknown_user(username)
        return user_entity(changed)

    @mutation
    async def delete_user(self, username: str) -> None:
        """Remove a user, with what was granted to the user alone."""
        user = await users_in(self.database).find_one({"username": username}, {"_id": 1})
        if user is None:
            if is_repetition():
                return
            raise unknown_user(username)
        # The user last: should this be cut in two, it can be called again. What is granted meanwhile, to a
        # user who is there no more in the end, goes with the second look.
        await roles_in(self.database).delete_many({"owner_id": user["_id"]})
        await users_in(self.database).delete_one({"_id": user["_id"]})
        await roles_in(self.database).delete_many({"owner_id": user["_id"]})


def _taken(username: str) -> MlflowException:
    return MlflowException(f"User (username={username}) already exists.", RESOURCE_ALREADY_EXISTS)
