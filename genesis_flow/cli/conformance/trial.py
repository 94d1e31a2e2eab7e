"""The database of a test: made for it under a name that nobody else has, and dropped at its end."""

import dataclasses
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import pymongo
from mlflow.exceptions import MlflowException
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from genesis_flow.cli.conformance.outcome import Check, NotTried, Outcome, Verdict, Wrong
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Embedded, Server, Settings
from genesis_flow.documents.plain import Document
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.files import folder
from genesis_flow.migrate.rights import UNAUTHORIZED, missing_rights
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore

PREFIX = "genesis_flow_conformance_"
_NEEDED = ("find", "insert", "update", "remove", "createCollection", "createIndex", "dropDatabase")
_SERVICES = (
    (".mongocluster.cosmos.azure.com", "Azure DocumentDB"),
    (".mongo.cosmos.azure.com", "Azure Cosmos DB for MongoDB (RU)"),
    (".mongodb.net", "MongoDB Atlas"),
    (".docdb.amazonaws.com", "Amazon DocumentDB"),
)


class Refused(GenesisFlowError):
    """The test was not made."""


class _Closable(Protocol):
    def close(self) -> None: ...


@dataclass
class Trial:
    """An empty database, and stores on it."""

    settings: Settings
    db: Database[Document]
    hello: Document
    build: Document
    timeout: float
    another_client: Callable[[], Database[Document]]
    _stores: list[_Closable] = field(default_factory=list)

    @property
    def portable(self) -> bool:
        return self.settings.portable

    @property
    def is_standalone(self) -> bool:
        return "setName" not in self.hello and self.hello.get("msg") != "isdbgrid"

    @property
    def topology(self) -> str:
        if self.hello.get("msg") == "isdbgrid":
            return "sharded cluster"
        if self.is_standalone:
            return "standalone"
        members = len(self.hello.get("hosts", [])) + len(self.hello.get("passives", []))
        return f"replica set of {members}"

    @property
    def service(self) -> str:
        target = self.settings.target
        if isinstance(target, Embedded):
            return "MongoDB, embedded"
        hosts = [re.sub(r":\d+$", "", host.lower()) for host in target.hosts.split(",")]
        for suffix, name in _SERVICES:
            if any(host.endswith(suffix) for host in hosts):
                return name
        return "FerretDB" if "ferretdb" in self.build else "MongoDB"

    @property
    def server(self) -> dict[str, str]:
        return {
            "service": self.service,
            "version": str(self.build.get("version", "unknown")),
            "topology": self.topology,
            "profile": "portable" if self.portable else "full",
        }

    def fresh(self, name: str) -> Collection[Document]:
        """A new, empty collection; transactions cannot make one on all servers."""
        self.db.create_collection(name)
        return self.db[name]

    def tracking(self, client: str = "conformance") -> MongoDBStore:
        """A store; each ``client`` has connections of its own."""
        made = MongoDBStore.from_settings(dataclasses.replace(self.settings, app_name=client))
        self._stores.append(made)
        return made

    def registry(self) -> MongoDBModelRegistryStore:
        made = MongoDBModelRegistryStore.from_settings(self.settings)
        self._stores.append(made)
        return made

    def outcomes(self, checks: Sequence[Check]) -> Iterator[Outcome]:
        for check in checks:
            verdict, why = self._tried(check)
            yield Outcome(check.name, verdict, self.without_places(why))

    def _tried(self, check: Check) -> tuple[Verdict, str]:
        """A check that fails, or hangs, must not hide the others."""
        bad = Verdict.FAIL if check.needed else Verdict.ABSENT
        try:
            with pymongo.timeout(self.timeout):
                return Verdict.PASS, check.look(self)
        except NotTried as reason:
            return Verdict.SKIP, str(reason)
        except Wrong as difference:
            return bad, str(difference)
        except OperationFailure as error:
            details = error.details or {}
            told = details.get("errmsg", error)
            return bad, f"The server refuses: {told} ({details.get('codeName') or error.code})."
        except (PyMongoError, MlflowException, GenesisFlowError) as error:
            return bad, f"{type(error).__name__}: {error}"

    def without_places(self, text: str) -> str:
        """The text without passwords, hosts, users and folders: a report is for posting."""
        text = mask(" ".join(text.split()))
        for place in sorted(self._places(), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.-]){re.escape(place)}(?![\w-])", "***", text, flags=re.IGNORECASE)
        return text

    def _places(self) -> set[str]:
        named = {self.settings.username or "", str(self.hello.get("me", ""))}
        named.update(map(str, (*self.hello.get("hosts", []), *self.hello.get("passives", []))))
        named.update(f"{host}:{port}" for host, port in self.db.client.nodes)
        target = self.settings.target
        named.update(target.hosts.split(",") if isinstance(target, Server) else [str(target.directory)])
        # A socket's path has no port.
        return {place for name in named for place in (name, re.sub(r":(\d+|None)$", "", name)) if place}

    def close_stores(self) -> None:
        for store in self._stores:
            store.close()


@contextmanager
def trial(uri: str | None, timeout: float, environ: Mapping[str, str]) -> Iterator[Trial]:
    """A database of its own on the server that ``uri`` names; ``finish`` drops it."""
    given = Settings.resolve(uri, environ=environ)
    settings = dataclasses.replace(
        given,
        database=PREFIX + uuid.uuid4().hex[:12],
        prefix="",
        audit=False,
        strict_input=None,
        timeout=min(timeout, given.timeout),
        artifact_root="file:///conformance",
    )
    config = MigrateConfig(settings=settings, script_location=folder())
    try:
        with opened(config, creates=False) as target:
            db = target.db
            with pymongo.timeout(timeout):
                client = db.client
                hello, build = client.admin.command("hello"), client.admin.command("buildInfo")
                made = Trial(settings, db, hello, build, timeout, target.database)
                _claim(db)
            try:
                yield made
            finally:
                # Also when somebody interrupts the test; one that ended well has dropped it by now.
                made.close_stores()
                drop(db)
    except MigrationError as error:
        raise Refused(str(error)) from error


def _claim(db: Database[Document]) -> None:
    """Refuse before anything is written what the user may not do, and a database that holds something."""
    advice = (
        "grant it the roles readWriteAnyDatabase and dbAdminAnyDatabase for the time of the test, or name "
        "another user."
    )
    if missing := missing_rights(db, _NEEDED):
        raise Refused(
            f"The test makes a database of its own, and the database user lacks the right to "
            f"{', '.join(missing)} in new databases: {advice}"
        )
    try:
        if db.list_collection_names():
            raise Refused(f"A database {db.name!r} is there already: run the test again.")
        db.create_collection("claimed")
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        raise Refused(
            f"The test makes a database of its own, and the server does not let this user do so: {advice}"
        ) from error


def drop(db: Database[Document]) -> None:
    """Only ever what a test has made."""
    assert db.name.startswith(PREFIX)
    db.client.drop_database(db.name)
