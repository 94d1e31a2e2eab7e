"""The database whose usage is counted, and what its user may not see of it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from genesis_flow.core.driver_text import plain_text
from genesis_flow.core.settings import Settings
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.migrate.rights import NO_USER, UNAUTHORIZED

T = TypeVar("T")

# Of a refusal the server repeats the command, which names its collection first.
_COLLECTION = re.compile(r'execute command \{ *\w+: "([^"]+)"')
BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be counted, and why. ``action`` is the right that is missing, if one is."""

    what: str
    collections: tuple[str, ...]
    action: str | None
    says: str


@dataclass
class Source:
    """Collections are read where the URI says, secondaries included."""

    db: Database[Document]
    settings: Settings
    told: Callable[[str], None] = lambda text: None
    gaps: list[Gap] = field(default_factory=list)

    def name(self, declared: type[Declared]) -> str:
        return self.settings.prefix + declared.Settings.name

    def collection(self, declared: type[Declared]) -> Collection[Document]:
        """The documents of all workspaces."""
        return self.db[self.name(declared)]

    def rows(self, declared: type[Declared], pipeline: list[Document]) -> Iterator[Document]:
        """The rows of a pipeline, for which the server may use its disk."""
        spills: dict[str, Any] = {} if self.settings.portable else {"allowDiskUse": True}
        return self.collection(declared).aggregate(pipeline, batchSize=BATCH, **spills)

    def guarded(self, what: str, declared: type[Declared], count: Callable[[], T]) -> T | None:
        """What ``count`` gives; None, and a gap, if the server refuses it: the rest is worth having."""
        try:
            return count()
        except OperationFailure as error:
            self.gaps.append(self.refused(what, (self.name(declared),), "find", error))
            return None

    def refused(self, what: str, names: tuple[str, ...], action: str, error: OperationFailure) -> Gap:
        if NO_USER in str(error):  # nothing at all can be counted
            raise error
        if error.code != UNAUTHORIZED:
            return Gap(what, names, None, f"{what} could not be counted ({plain_text(error)}).")
        if action == "find" and (named := _COLLECTION.search(str(error))):
            names = (named[1],)
        # A few are granted by name; all of them by the empty name, which means every collection.
        resources = names if len(names) < 5 else ("",)
        where = "the database" if resources == ("",) else ", ".join(names)
        says = (
            f"{what}: the database user lacks the right {action} on {where}. {self._grant(action, resources)}"
        )
        return Gap(what, names, action, says)

    def _grant(self, action: str, resources: Iterable[str]) -> str:
        """What an administrator is to do: the command for mongosh, for the role that the user has."""
        try:
            status = self.db.client.admin.command("connectionStatus")["authInfo"]
        except OperationFailure:  # a service that does not tell
            status = {}
        database, roles = self.db.name, status.get("authenticatedUserRoles")
        if not roles:
            return "Give the user a role that has it, such as mlflowReader of docs/security.md."
        role = next((each for each in roles if each["db"] == database), roles[0])
        privileges = ", ".join(
            f'{{resource: {{db: "{database}", collection: "{each}"}}, actions: ["{action}"]}}'
            for each in resources
        )
        return (
            "Grant it as an administrator: "
            f'db.getSiblingDB("{role["db"]}").grantPrivilegesToRole("{role["role"]}", [{privileges}])'
        )


def portions(things: Iterable[T], size: int) -> Iterator[list[T]]:
    waiting = iter(things)
    while portion := list(islice(waiting, size)):
        yield portion


def text_of(value: Any) -> str:
    return "" if value is None else str(value)
