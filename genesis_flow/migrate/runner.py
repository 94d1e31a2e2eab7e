"""Run steps under the lock, with an entry before and after each."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from genesis_flow.core.redact import mask
from genesis_flow.migrate.base import BaseMigration, StepContext
from genesis_flow.migrate.batches import span
from genesis_flow.migrate.config import MigrateConfig, Target
from genesis_flow.migrate.errors import LockLost, MigrationError, StepFailed
from genesis_flow.migrate.fence import FencedDatabase
from genesis_flow.migrate.files import MigrationFile
from genesis_flow.migrate.ledger import Entry, Ledger, State
from genesis_flow.migrate.lock import Lease
from genesis_flow.migrate.rights import NEEDED, explain_missing, explain_refusal, missing_rights
from genesis_flow.migrate.survey import Survey, survey


@dataclass(frozen=True, slots=True)
class Done:
    """One step that was run."""

    version: str
    name: str
    seconds: float


class _Positions:
    """The journal of a step: its positions, kept in its ledger entry."""

    def __init__(self, ledger: Ledger, version: str, run: str, positions: dict[str, Any]) -> None:
        self._ledger, self._version, self._run = ledger, version, run
        self._positions = positions

    def position(self, label: str) -> Any:
        return self._positions.get(label)

    def advance(self, label: str, position: Any) -> None:
        self._positions[label] = position
        self._ledger.advance(self._version, self._run, self._positions)


def plain_ledger(target: Target) -> Ledger:
    """The ledger for reading."""
    config = target.config
    return Ledger(target.db, config.settings.prefix, config.metastore)


def require_rights(target: Target, migrations: Iterable[type[BaseMigration]] = ()) -> None:
    """Refuse, before anything is written, what the user may not do."""
    needed = (*NEEDED, *(right for migration in migrations for right in migration.rights))
    if missing := missing_rights(target.db, needed):
        raise MigrationError(explain_missing(missing, target.db.name))


@contextlib.contextmanager
def locked(target: Target) -> Iterator["Run"]:
    """Hold the lock for a block; every write of the block goes through the fence."""
    config = target.config
    lease = Lease(
        target.database(),
        config.settings.prefix,
        seconds=config.lock_lease,
        wait=config.lock_wait,
        on_lost=target.db.client.close,
        report=config.report,
    )
    with lease:
        try:
            yield Run(target, lease)
        except PyMongoError as exc:
            # A lost lock closes the client, which is how a call in the middle of its batches ends.
            _raise_if_lost(lease, exc)
            raise


def _raise_if_lost(lease: Lease, cause: Exception) -> None:
    try:
        lease.check()
    except LockLost as lost:
        raise lost from cause


class Run:
    """A run that holds the lock."""

    def __init__(self, target: Target, lease: Lease) -> None:
        self.config: MigrateConfig = target.config
        self.lease = lease
        self.db = FencedDatabase(target.db, lease.check)
        self.ledger = Ledger(self.db, self.config.settings.prefix, self.config.metastore)

    def survey(self) -> Survey:
        return survey(self.ledger, self.config.script_location)

    def adopt(self, survey: Survey) -> list[str]:
        """Take over what mongodb-migrations has applied, and the steps that others were replaced by."""
        for version in survey.adoptable:
            file = survey.file(version)
            if file is not None:
                replaced = survey.replaced.get(version, ())
                self.ledger.adopt(file, file.load().compatible, replaced)
                self.ledger.record("adopt", file)
                self.config.report(f"{file.label}: {survey.adopted_from(version)}, taken over")
        return survey.adoptable

    def apply(self, file: MigrationFile, previous: Entry | None) -> Done:
        migration = file.load()
        self.config.report(f"{file.label}: applying")
        self.ledger.begin(file, State.APPLYING, self.lease.token, previous, migration.compatible)
        seconds = self._execute(file, migration, State.APPLYING, previous)
        self.ledger.forget_replaced(migration.replaces)
        self.ledger.applied(file, self.lease.token, migration.compatible, round(seconds * 1000))
        self.ledger.record("up", file, duration_ms=round(seconds * 1000))
        self.config.report(f"{file.label}: applied in {span(seconds)}")
        return Done(file.version, file.name, seconds)

    def revert(self, file: MigrationFile, previous: Entry | None) -> Done:
        migration = file.load()
        self.config.report(f"{file.label}: reverting")
        self.ledger.begin(file, State.REVERTING, self.lease.token, previous, migration.compatible)
        seconds = self._execute(file, migration, State.REVERTING, previous)
        # Before its own entry: what it replaces would otherwise stand for it again.
        self.ledger.forget_replaced(migration.replaces)
        self.ledger.reverted(file.version, self.lease.token)
        self.ledger.record("down", file, duration_ms=round(seconds * 1000))
        self.config.report(f"{file.label}: reverted in {span(seconds)}")
        return Done(file.version, file.name, seconds)

    def _execute(
        self, file: MigrationFile, migration: type[BaseMigration], state: State, previous: Entry | None
    ) -> float:
        step = migration(
            db=self.db, prefix=self.config.settings.prefix, context=self._context(file, state, previous)
        )
        started = time.monotonic()
        try:
            if state is State.APPLYING:
                step.upgrade()
            else:
                step.downgrade()
        except LockLost:
            raise
        except (Exception, KeyboardInterrupt) as exc:
            _raise_if_lost(self.lease, exc if isinstance(exc, Exception) else StepFailed("interrupted"))
            reason = _reason(exc, self.db.name)
            self._note_failure(file, state, reason)
            if isinstance(exc, KeyboardInterrupt):
                raise
            raise StepFailed(
                f"The step {file.label} failed while {state.value}: {reason.rstrip('.')}. What it had done "
                "stays; correct the cause and run the command again."
            ) from exc
        self.lease.check()
        return time.monotonic() - started

    def _context(self, file: MigrationFile, state: State, previous: Entry | None) -> StepContext:
        failure = State.FAILED if state is State.APPLYING else State.REVERT_FAILED
        resumes = (
            previous is not None
            and previous.state in (state, failure)
            and previous.checksum == file.checksum()
        )
        positions = dict(previous.positions) if previous is not None and resumes else {}
        return StepContext(
            journal=_Positions(self.ledger, file.version, self.lease.token, positions),
            report=lambda text: self.config.report(f"{file.label}: {text}"),
            batch_size=self.config.batch_size,
            imports=self.config.imports,
            portable=self.config.settings.portable,
        )

    def _note_failure(self, file: MigrationFile, state: State, reason: str) -> None:
        """The entry says what happened; if the server is away it stays as begun, to be repeated."""
        try:
            self.ledger.failed(file, self.lease.token, state, reason)
            self.ledger.record(f"{'up' if state is State.APPLYING else 'down'} failed", file, error=reason)
        except (PyMongoError, LockLost) as exc:
            self.config.report(f"{file.label}: the failure could not be recorded ({mask(str(exc))})")


def _reason(exc: BaseException, database: str) -> str:
    if isinstance(exc, KeyboardInterrupt):
        return "interrupted"
    if isinstance(exc, OperationFailure) and (explained := explain_refusal(exc, database)):
        return explained
    text = mask(str(exc)).split(", full error:")[0]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
