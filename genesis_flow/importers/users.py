"""Brings users, roles and permissions of MLflow's login over; hashes of passwords stay what they are.

Who somebody is, is said by the name, and which role it is, by workspace and name: numbers are kept where they
are free. A journal of its own says what was brought, so that it can be repeated, and taken back by
``genesis-migrate import --rollback``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bson
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo import InsertOne, ReplaceOne, ReturnDocument

from genesis_flow.areas.users.documents import RoleFields, UserFields
from genesis_flow.compat.login import own_role_name
from genesis_flow.documents.imports import ImportItemFields
from genesis_flow.documents.plain import Document
from genesis_flow.importers import journal as states_of_journal
from genesis_flow.importers.changes import hashed, note, states, told
from genesis_flow.importers.engine import make_ready
from genesis_flow.importers.errors import ImportConflict
from genesis_flow.importers.journal import Journal
from genesis_flow.importers.records import Problem
from genesis_flow.importers.roots import item_key
from genesis_flow.importers.sql import open_logins
from genesis_flow.importers.target import ImportTarget, patiently
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.runner import locked, require_rights

USERS, ROLES = "auth_users", "auth_roles"
OF_USERS = " (users)"
_NAMED = 10


@dataclass(slots=True)
class Brought:
    """What an import of users did, or with ``dry_run`` would do."""

    source: str
    target: str
    journal: str
    dry_run: bool
    users: int = 0
    roles: int = 0
    permissions: int = 0
    made: int = 0
    changed: int = 0
    problems: list[Problem] = field(default_factory=list)


def import_users(
    config: MigrateConfig, source_uri: str, *, on_conflict: str = "fail", dry_run: bool = False
) -> Brought:
    logins = open_logins(source_uri)
    with opened(config, creates=not dry_run) as connected:
        if dry_run:
            target = ImportTarget(connected.db, config.settings.prefix, DEFAULT_WORKSPACE_NAME)
            return _Import(config, target, logins, on_conflict, dry_run).run()
        make_ready(config, connected)
        require_rights(connected)
        with locked(connected) as run:
            target = ImportTarget(
                connected.db, config.settings.prefix, DEFAULT_WORKSPACE_NAME, check=run.lease.check
            )
            return _Import(config, target, logins, on_conflict, dry_run).run()


class _Import:
    def __init__(
        self, config: MigrateConfig, target: ImportTarget, logins: Any, on_conflict: str, dry_run: bool
    ) -> None:
        self._target = target
        self._logins = logins
        self._on_conflict = on_conflict
        self._dry_run = dry_run
        self._journal = Journal.of_source(target, logins.name + OF_USERS)
        self._there = {name: self._read(name) for name in (USERS, ROLES)}
        # Which document has a number of something within documents.
        self._holders = {
            "role_permissions": _holders(self._there[ROLES], "permissions"),
            "role_assignments": _holders(self._there[USERS], "roles"),
        }
        self._ours = {
            name: {each["root"] for each in self._items(name)} & self._there[name].keys()
            for name in (USERS, ROLES)
        }
        self._draws: dict[str, Callable[[], int]] = {}
        self._done = Brought(logins.name, config.where, self._journal.id, dry_run)
        self._done.problems += logins.problems

    def run(self) -> Brought:
        if self._dry_run:
            self._plan()
            return self._done
        self._journal.begin({"on_conflict": self._on_conflict})
        state = states_of_journal.STOPPED
        try:
            roles, users = self._plan()
            # A user is given what is there.
            self._write(ROLES, roles)
            self._write(USERS, users)
            state = states_of_journal.INCOMPLETE if self._done.problems else states_of_journal.DONE
        finally:
            self._journal.end(state, {"did": {"users": self._done.users, "roles": self._done.roles}})
        return self._done

    def _read(self, name: str) -> dict[int, Document]:
        found = patiently(lambda: list(self._target.collection(name).find()))
        return {each["_id"]: each for each in found}

    def _items(self, collection: str) -> list[Document]:
        prefix = item_key(self._journal.id, (collection, ""))
        items = self._target.collection(ImportItemFields)
        return patiently(lambda: list(items.find({"_id": {"$gte": prefix, "$lt": prefix + "\uffff"}})))

    # What becomes of whom

    def _plan(self) -> tuple[list[Document], list[Document]]:
        by_name = {each["username"]: each for each in self._there[USERS].values()}
        by_role = {(each["workspace"], each["name"]): each for each in self._there[ROLES].values()}
        kept = [
            user["username"]
            for user in self._logins.users.values()
            if self._is_foreign(USERS, by_name.get(user["username"]))
        ]
        foreign = [
            f"{role['workspace']}/{role['name']}"
            for role in self._logins.roles.values()
            if role["owner"] is None
            and self._is_foreign(ROLES, by_role.get((role["workspace"], role["name"])))
        ]
        self._refuse(kept, foreign)
        numbers = self._numbers(
            USERS,
            "users",
            {number: by_name.get(user["username"]) for number, user in self._logins.users.items()},
        )
        names = {
            number: (
                role["workspace"],
                role["name"] if role["owner"] is None else own_role_name(numbers[role["owner"]]),
            )
            for number, role in self._logins.roles.items()
        }
        role_numbers = self._numbers(
            ROLES, "roles", {number: by_role.get(name) for number, name in names.items()}
        )
        roles = [
            self._role_document(number, role_numbers[number], names[number], numbers)
            for number, role in self._logins.roles.items()
            if not self._is_foreign(ROLES, by_role.get(names[number]))
            and not (role["owner"] is not None and self._name_of(role["owner"]) in kept)
        ]
        users = [
            self._user_document(number, numbers[number], role_numbers)
            for number, user in self._logins.users.items()
            if user["username"] not in kept
        ]
        self._done.users, self._done.roles = len(users), len(roles)
        self._done.permissions = sum(len(each["permissions"]) for each in roles)
        return roles, users

    def _name_of(self, number: int) -> str:
        return str(self._logins.users[number]["username"])

    def _is_foreign(self, collection: str, found: Document | None) -> bool:
        return found is not None and found["_id"] not in self._ours[collection]

    def _refuse(self, users: list[str], roles: list[str]) -> None:
        if not users and not roles:
            return
        named = [*(f"user {each}" for each in users), *(f"role {each}" for each in roles)]
        told_names = ", ".join(named[:_NAMED]) + (" …" if len(named) > _NAMED else "")
        if self._on_conflict == "fail":
            raise ImportConflict(
                f"The target has got {len(named)} of these itself: {told_names}. Remove or rename them, or "
                "leave them as they are there with --on-conflict skip."
            )
        reason = "the target has one of its own, which stays as it is"
        self._done.problems += [Problem("user", each, reason) for each in users]
        self._done.problems += [Problem("role", each, reason) for each in roles]

    def _numbers(self, collection: str, counter: str, there: dict[int, Document | None]) -> dict[int, int]:
        """The number of each in the target: that which it has there, else its own, else the next one."""
        found = {number: each["_id"] for number, each in there.items() if each is not None}
        taken = {*self._there[collection], *found.values()}
        draw = self._counter(counter, [*there, *taken])
        for number in there:
            if number not in found:
                found[number] = number if number not in taken else draw()
                taken.add(found[number])
        return found

    def _counter(self, name: str, used: list[int]) -> Callable[[], int]:
        """Gives out numbers that nothing has; those who make more later get others."""
        counters, highest = self._target.collection("counters"), max(used, default=0)
        if self._dry_run:
            free = iter(range(highest + 1, 2**53))
            return lambda: next(free)
        self._target.check()
        patiently(lambda: counters.update_one({"_id": name}, {"$max": {"last": highest}}, upsert=True))

        def draw() -> int:
            change = {"$inc": {"last": 1}}
            after = ReturnDocument.AFTER
            counter: Any = patiently(
                lambda: counters.find_one_and_update({"_id": name}, change, return_document=after)
            )
            return int(counter["last"])

        return draw

    def _role_document(self, number: int, new: int, name: tuple[str, str], users: dict[int, int]) -> Document:
        role = self._logins.roles[number]
        known = {
            (each["resource_type"], each["resource_pattern"]): each["id"]
            for each in self._there[ROLES].get(new, {}).get("permissions", [])
        }
        draw = self._drawn("role_permissions", new)
        permissions = [
            {
                "id": known.get((each["resource_type"], each["resource_pattern"])) or draw(each["id"]),
                **{key: each[key] for key in ("resource_type", "resource_pattern", "permission")},
            }
            for each in role["permissions"]
        ]
        fields = RoleFields(
            _id=new,
            workspace=name[0],
            name=name[1],
            description=role["description"],
            owner_id=None if role["owner"] is None else users[role["owner"]],
            permissions=permissions,
        )
        return fields.model_dump(by_alias=True, exclude_none=True)

    def _user_document(self, number: int, new: int, roles: dict[int, int]) -> Document:
        user = self._logins.users[number]
        there = self._there[USERS].get(new, {}).get("roles", [])
        known = {each["role_id"]: each["id"] for each in there}
        given = self._logins.assignments.get(number, [])
        draw = self._drawn("role_assignments", new)
        fields = UserFields(
            _id=new,
            username=user["username"],
            password_hash=user["password_hash"],
            is_admin=bool(user["is_admin"]),
            roles=[
                {"id": known.get(roles[role]) or draw(each), "role_id": roles[role]} for each, role in given
            ],
        )
        return fields.model_dump(by_alias=True, exclude_none=True)

    def _drawn(self, counter: str, of: int) -> Callable[[int], int]:
        """A number of something within a document: its own, unless another document has that."""
        if counter not in self._draws:
            own = [each["id"] for role in self._logins.roles.values() for each in role["permissions"]] + [
                each for given in self._logins.assignments.values() for each, _ in given
            ]
            self._draws[counter] = self._counter(counter, [*self._holders[counter], *own])
        draw, holders = self._draws[counter], self._holders[counter]
        return lambda number: number if holders.get(number, of) == of else draw()

    # Writing

    def _write(self, collection: str, documents: list[Document]) -> None:
        fresh = [each for each in documents if each["_id"] not in self._there[collection]]
        items = {each["_id"]: item_key(self._journal.id, (collection, each["_id"])) for each in documents}
        self._target.write(
            ImportItemFields,
            [
                ReplaceOne(
                    {"_id": items[each["_id"]]},
                    {
                        "_id": items[each["_id"]],
                        "root": each["_id"],
                        "unit": collection,
                        "state": _state(collection, each),
                    },
                    upsert=True,
                )
                for each in fresh
            ],
        )
        self._done.made += self._target.write(collection, [InsertOne(each) for each in fresh])
        self._rewrite(collection, [each for each in documents if each["_id"] in self._there[collection]])

    def _rewrite(self, collection: str, documents: list[Document]) -> None:
        """What an earlier import brought and the source has otherwise by now; what people changed stays."""
        noted = {each["root"]: each.get("state") for each in self._items(collection)}
        different = [each for each in documents if self._there[collection][each["_id"]] != each]
        current = states(self._target, collection, [each["_id"] for each in different])
        for each in different:
            if current.get(each["_id"]) != noted.get(each["_id"]):
                what = "user" if collection == USERS else "role"
                name = str(each.get("username", each.get("name")))
                reason = "it was changed in the target after it was imported, and stays as it is there"
                self._done.problems.append(Problem(what, name, reason))
                continue
            note(self._target, self._journal.id, {(collection, each["_id"]): _state(collection, each)})
            self._done.changed += self._target.write(collection, [ReplaceOne({"_id": each["_id"]}, each)])


def _state(collection: str, document: Document) -> str:
    return told(hashed(collection, document["_id"], bson.encode(document)))


def _holders(documents: dict[int, Document], field: str) -> dict[int, int]:
    return {each["id"]: key for key, document in documents.items() for each in document[field]}
