"""The order of the checks, and what is left out when an earlier one failed."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import pymongo
from mlflow.exceptions import MlflowException
from pymongo.errors import OperationFailure, PyMongoError

from genesis_flow.cli.doctor import (
    agreement,
    artifacts,
    leftovers,
    network,
    orphans,
    packages,
    schema,
    secrets,
    server,
)
from genesis_flow.cli.doctor.finding import Finding, fail, skip
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.embedded import EmbeddedUnavailable
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.files import folder
from genesis_flow.migrate.rights import explain

_Check = Callable[[Patient], Finding]

# In this order; each needs only a connection.
_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("rights", server.rights),
    ("server", server.version),
    ("topology", server.topology),
    ("durability", server.durability),
    ("clock", network.clock),
    ("pool", server.pool),
    ("schema", schema.version),
    ("indexes", schema.indexes),
    ("secrets", secrets.passphrase),
)


class Checkup:
    """All checks of one database."""

    def __init__(
        self, uri: str | None, artifact_root: str | None, timeout: float, *, deep: bool, repair: bool
    ) -> None:
        self._given = given = Settings.resolve(uri, artifact_root=artifact_root)
        self._settings = dataclasses.replace(
            given,
            server_selection_timeout=min(timeout, given.server_selection_timeout),
            timeout=min(timeout, given.timeout),
        )
        self._timeout = timeout
        self._deep = deep
        self._repair = repair

    @property
    def where(self) -> str:
        """The database, its password masked."""
        return self._settings.store_uri

    @property
    def title(self) -> str:
        target = self._settings.target
        place = f" in {target.directory}" if isinstance(target, Embedded) else ""
        return f"{self.where}{place} (from: {self._settings.sources['store_uri']})"

    def findings(self) -> Iterator[Finding]:
        """One after the other, as they are found."""
        yield packages.mlflow()
        yield network.credentials(self._settings)
        yield from self._of_database()
        yield artifacts.artifact_root(self._settings, self._timeout)

    def _of_database(self) -> Iterator[Finding]:
        absent = self._absent_directory()
        if absent is not None:
            yield absent
            return
        config = MigrateConfig(settings=self._settings, script_location=folder())
        try:
            with opened(config) as target:
                patient = Patient(self._settings, self._given, config, target.db, self._timeout)
                with pymongo.timeout(self._timeout):
                    connection = network.connection(patient)
                yield connection
                yield network.tls(patient)
                for name, check in _CHECKS:
                    yield _guarded(name, check, patient)
                yield self._leftovers(patient)
                yield self._orphans(patient)
                if self._deep:
                    yield _guarded("agreement", agreement.look, patient)
        except (MigrationError, EmbeddedUnavailable) as error:
            yield fail("connection", *_cut(str(error)))
            yield skip("the rest", "Needs a connection.")

    def _absent_directory(self) -> Finding | None:
        """To look at a database must not make one."""
        target = self._settings.target
        if not isinstance(target, Embedded) or (target.directory / "db").is_dir():
            return None
        return fail(
            "connection",
            f"There is no embedded database in {target.directory}.",
            "Name the right one with --uri; `genesis-flow quickstart` or a store's first call makes one.",
        )

    def _leftovers(self, patient: Patient) -> Finding:
        # Transactions leave nothing half-done, so a full search is not worth its cost where there are some.
        everything = self._deep or not patient.has_transactions
        finding = _guarded("half-done", partial(leftovers.look, everything=everything), patient)
        found = patient.leftovers
        # Repairing takes as long as it takes: each call has the deadline of its own that a store gives it.
        return leftovers.repair(found) if self._repair and found else finding

    def _orphans(self, patient: Patient) -> Finding:
        finding = _guarded(orphans.CHECK, partial(orphans.look, everything=self._deep), patient)
        return orphans.repair(patient) if self._repair and patient.orphans else finding


def _guarded(name: str, check: _Check, patient: Patient) -> Finding:
    """A check that fails for a reason of its own, or hangs, must not hide the others."""
    try:
        with pymongo.timeout(patient.timeout):
            return check(patient)
    except OperationFailure as error:
        return skip(name, f"Could not be looked at: {explain(error, patient.db.name, patient.where)}")
    except PyMongoError as error:
        if error.timeout:
            return skip(name, "Not finished in time.", "Allow more with --timeout.")
        return fail(name, *_cut(explain(error, patient.db.name, patient.where)))
    except (MigrationError, MlflowException) as error:
        return fail(name, *_cut(mask(str(error))))


def _cut(sentence: str) -> tuple[str, str]:
    """Our errors say what is wrong, a colon, and what to do."""
    wrong, colon, todo = sentence.rpartition("): " if "): " in sentence else ": ")
    if not colon:
        return sentence, ""
    return f"{wrong}{colon[:-2]}.", todo[:1].upper() + todo[1:]
