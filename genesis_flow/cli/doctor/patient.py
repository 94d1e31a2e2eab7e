"""The database that is looked at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pymongo.database import Database

from genesis_flow.core.settings import Server, Settings
from genesis_flow.core.uri import MongoUri, parse
from genesis_flow.migrate.config import MigrateConfig

if TYPE_CHECKING:
    from genesis_flow.cli.doctor.orphans import Orphans

_LOOPBACK = ("127.", "localhost", "[::1]")
_NAMED = 5


@dataclass
class Leftover:
    """Half-done changes of one kind; ``names`` are people's names for where they are."""

    kind: str
    names: list[str] = field(default_factory=list)
    finish: list[Callable[[], object]] = field(default_factory=list)

    def add(self, name: str, finish: Callable[[], object]) -> None:
        self.names.append(name)
        self.finish.append(finish)

    def describe(self) -> str:
        more = f" and {len(self.names) - _NAMED} more" if len(self.names) > _NAMED else ""
        return f"{len(self.names)} {self.kind} ({', '.join(self.names[:_NAMED])}{more})"


@dataclass
class Patient:
    """A connection and what is known of it."""

    settings: Settings
    """With the patience of the doctor, which is less than a store's."""
    for_stores: Settings
    config: MigrateConfig
    db: Database[dict[str, Any]]
    timeout: float
    hello: dict[str, Any] = field(default_factory=dict)
    leftovers: list[Leftover] = field(default_factory=list)
    orphans: "list[Orphans]" = field(default_factory=list)

    @property
    def where(self) -> str:
        return self.settings.store_uri

    @property
    def has_transactions(self) -> bool:
        return "setName" in self.hello or self.hello.get("msg") == "isdbgrid"

    @cached_property
    def uri(self) -> MongoUri | None:
        """The URI in parts, without credentials; None for an embedded server."""
        if not isinstance(self.settings.target, Server):
            return None
        parsed = parse(self.settings.credential_free_uri.reveal(), "settings")
        return parsed if isinstance(parsed, MongoUri) else None

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves this machine."""
        return self.uri is None or all(host.startswith(_LOOPBACK) for host in self.uri.hosts.split(","))

    def command(self, name: str, **options: Any) -> dict[str, Any]:
        """A command to the admin database."""
        answer: dict[str, Any] = self.db.client.admin.command(name, **options)
        return answer
