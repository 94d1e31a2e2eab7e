"""What ``genesis-migrate`` does, as plain functions.

Each takes a :class:`~genesis_flow.migrate.config.MigrateConfig` (see ``load_config``), connects for itself
and raises a :class:`~genesis_flow.migrate.errors.MigrationError` whose message says what to do. Functions
that only look need the right to read, and write nothing, not even the lock.
"""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from genesis_flow.documents.declared import Declared
from genesis_flow.migrate.base import BaseMigration
from genesis_flow.migrate.config import MigrateConfig, Target, opened
from genesis_flow.migrate.errors import DataLossRefused, Locked, MigrationError
from genesis_flow.migrate.files import INSTALLED, MigrationFile, misnamed, read_folder
from genesis_flow.migrate.ledger import State
from genesis_flow.migrate.lock import Holder, read_holder, remove_lock
from genesis_flow.migrate.runner import Done, locked, plain_ledger, require_rights
from genesis_flow.migrate.schema_check import Finding, compare
from genesis_flow.migrate.survey import Survey, down_to, find_revision, survey, up_to


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command that writes did, or with ``dry_run`` would do."""

    steps: list[Done] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepStatus:
    version: str
    name: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    database: str
    current: str | None
    head: str | None
    steps: list[StepStatus]
    problems: list[str]
    lock: Holder | None


def up(
    config: MigrateConfig, revision: str = "head", *, dry_run: bool = False, out_of_order: bool = False
) -> Outcome:
    """Apply pending steps up to ``revision``: ``head``, a version, a name, or ``+N`` for the next N."""
    with opened(config, creates=not dry_run) as target:
        survey = _sound(_survey(target), out_of_order)
        steps = up_to(survey.files, survey.pending, revision)
        migrations = [file.load() for file in steps]
        if dry_run or not (steps or survey.adoptable):
            return Outcome(planned=[file.label for file in steps], adopted=survey.adoptable)
        require_rights(target, migrations)
        with locked(target) as run:
            survey = _sound(run.survey(), out_of_order)
            adopted = run.adopt(survey)
            steps = _still_planned(steps, survey)
            return Outcome([run.apply(file, survey.entries.get(file.version)) for file in steps], [], adopted)


def _still_planned(steps: list[MigrationFile], survey: Survey) -> list[MigrationFile]:
    """Without what another run applied while this one waited: ``+1`` is the step that was next then."""
    return [file for file in survey.pending if any(file.version == step.version for step in steps)]


def down(
    config: MigrateConfig, revision: str, *, dry_run: bool = False, accept_data_loss: bool = False
) -> Outcome:
    """Revert the steps after ``revision``: a version or name; ``-N``: the last N; ``base``: all."""
    with opened(config, creates=False) as target:
        survey = _sound(_survey(target), True)
        steps = down_to(survey, revision)
        migrations = {file.version: file.load() for file in steps}
        _refuse_irreversible(steps, migrations)
        if dry_run or not steps:
            return Outcome(planned=[file.label for file in steps])
        if not accept_data_loss:
            _refuse_loss(steps, migrations)
        require_rights(target, migrations.values())
        with locked(target) as run:
            survey = _sound(run.survey(), True)
            adopted = run.adopt(survey)
            if [file.version for file in down_to(survey, revision)] != [file.version for file in steps]:
                raise Locked(
                    "Another run changed the schema while this one waited: look at it and try again."
                )
            return Outcome(
                [run.revert(file, survey.entries.get(file.version)) for file in steps], [], adopted
            )


def _refuse_irreversible(steps: list[MigrationFile], migrations: dict[str, type[BaseMigration]]) -> None:
    for file in steps:
        if migrations[file.version].downgrade is BaseMigration.downgrade:
            raise MigrationError(
                f"The step {file.label} cannot be reverted, since it has no downgrade: "
                "restore a backup instead."
            )


def _refuse_loss(steps: list[MigrationFile], migrations: dict[str, type[BaseMigration]]) -> None:
    losses = [(file, loss) for file in steps if (loss := migrations[file.version].loses)]
    if losses:
        listed = "; ".join(f"{file.label} loses {loss}" for file, loss in losses)
        raise DataLossRefused(f"Nothing was done: {listed}. If that is meant, add --accept-data-loss.")


def plan(config: MigrateConfig, revision: str = "head", *, out_of_order: bool = False) -> list[str]:
    """The steps that ``up`` would run, in order; writes nothing."""
    return up(config, revision, dry_run=True, out_of_order=out_of_order).planned


def current(config: MigrateConfig) -> tuple[str | None, str | None]:
    """The newest applied version, and the newest that there is."""
    with opened(config, creates=False) as target:
        survey = _survey(target)
        return survey.current, survey.head


def at_head(config: MigrateConfig) -> bool:
    """Whether every step is applied and nothing is wrong with the history."""
    with opened(config, creates=False) as target:
        return not _sound(_survey(target), False).pending


def status(config: MigrateConfig) -> Status:
    """Every step with its state, the problems of the history, and who holds the lock."""
    with opened(config, creates=False) as target:
        survey = _survey(target)
        known = [_step_status(survey, file) for file in survey.files]
        unknown = [
            StepStatus(entry.version, entry.name, "unknown", "applied, without a file")
            for entry in survey.unknown
        ]
        return Status(
            database=config.where,
            current=survey.current,
            head=survey.head,
            steps=sorted(known + unknown, key=lambda step: step.version),
            problems=[str(problem) for problem in survey.problems()],
            lock=read_holder(target.db, config.settings.prefix),
        )


def _step_status(survey: Survey, file: MigrationFile) -> StepStatus:
    entry = survey.entries.get(file.version)
    if entry is None:
        if file.version in survey.adoptable:
            detail = f"{survey.adopted_from(file.version)}, not taken over yet"
            return StepStatus(file.version, file.name, "applied", detail)
        if part := survey.applied_in_part(file.version):
            detail = (
                f"{len(part)} of the {len(survey.replaced[file.version])} steps that it replaces were run"
            )
            return StepStatus(file.version, file.name, "pending", detail)
        late = "older than the newest applied step" if file in survey.out_of_order else ""
        return StepStatus(file.version, file.name, "pending", late)
    if entry.state is not State.APPLIED:
        return StepStatus(file.version, file.name, entry.state.value, entry.error or "unfinished")
    if file in survey.changed:
        return StepStatus(file.version, file.name, "changed", "the file is not the one that was applied")
    when = f"{entry.created_at:%Y-%m-%d %H:%M:%S} UTC" if entry.created_at else ""
    return StepStatus(file.version, file.name, "applied", f"{when} by {entry.who}" if entry.who else when)


def history(config: MigrateConfig) -> list[dict[str, Any]]:
    """What was done to this database, oldest first: when, by whom, which step, how long."""
    with opened(config, creates=False) as target:
        return plain_ledger(target).history()


def steps(config: MigrateConfig) -> list[MigrationFile]:
    """The migration files, oldest first; needs no database."""
    return list(read_folder(config.script_location))


def show(config: MigrateConfig, revision: str) -> dict[str, Any]:
    """Everything known about one step; needs no database."""
    file = find_revision(read_folder(config.script_location), revision)
    migration = file.load()
    source = file.path.read_text(encoding="utf-8")
    documented = re.match(r'\s*"""(.*?)"""', source, re.DOTALL)
    return {
        "version": file.version,
        "name": file.name,
        "file": str(file.path),
        "description": inspect.cleandoc(documented[1]) if documented else "",
        "checksum": file.checksum(),
        "reversible": migration.downgrade is not BaseMigration.downgrade,
        "loses": migration.loses,
        "compatible": migration.compatible,
        "rights": list(migration.rights),
    }


def new(config: MigrateConfig, what: str) -> MigrationFile:
    """Write an empty step, newer than every other, into the migrations folder."""
    name = re.sub(r"[^a-z]+", "_", what.lower()).strip("_")
    if not name:
        raise MigrationError(f"{what!r} gives no file name: describe the step in a few words of letters a-z.")
    if config.script_location == INSTALLED:
        raise MigrationError(
            "New steps belong into a checkout of the project, not into the installed package: "
            "run this there, or set script_location."
        )
    existing = read_folder(config.script_location)
    version = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    if existing and version <= existing[-1].version:
        version = str(int(existing[-1].version) + 1)
    file = MigrationFile(version, name, config.script_location / f"{version}_{name}.py")
    file.path.write_text(_TEMPLATE.format(what=what.strip().rstrip(".").replace('"""', "")), encoding="utf-8")
    return file


_TEMPLATE = '''"""{what}.

Say here which collections, fields and indexes the step changes. Freeze every definition in this file:
the models may change later, this step may not. Applying it twice must leave what applying it once leaves.
"""

from genesis_flow.migrate.base import BaseMigration


class Migration(BaseMigration):
    # Losses of downgrade, for people; "" when up, down and up again equals up.
    loses = "everything that upgrade adds"
    # True when clients of the schema before this step may go on writing after it.
    compatible = False

    def upgrade(self):
        raise NotImplementedError

    def downgrade(self):
        raise NotImplementedError
'''


def stamp(config: MigrateConfig, revision: str) -> Outcome:
    """Record steps as applied up to ``revision`` (or none, for ``base``) without running any."""
    with opened(config) as target:
        files = read_folder(config.script_location)
        last = "" if revision == "base" else find_revision(files, revision).version
        require_rights(target)
        with locked(target) as run:
            survey = run.survey()
            adopted = run.adopt(survey)
            wanted = [file for file in files if file.version <= last and not survey.is_applied(file.version)]
            for file in wanted:
                migration = file.load()
                run.ledger.stamp(file, migration.compatible, "stamp")
                run.ledger.forget_replaced(migration.replaces)
                run.ledger.record("stamp", file)
            recorded = {*survey.entries, *adopted}
            for version in sorted(version for version in recorded if version > last):
                run.ledger.forget(version)
                run.ledger.record(
                    "forget", survey.file(version) or MigrationFile(version, "", config.script_location)
                )
            return Outcome([Done(file.version, file.name, 0.0) for file in wanted], [], adopted)


def check(config: MigrateConfig, declared: Iterable[type[Declared]]) -> list[Finding]:
    """How the collections and indexes of the server differ from the declared documents'."""
    with opened(config, creates=False) as target:
        return compare(target.db, config.settings.prefix, declared, portable=config.settings.portable)


def repair(config: MigrateConfig) -> list[str]:
    """Accept the files as they are now for applied steps whose file has changed."""
    with opened(config, creates=False) as target:
        if not _survey(target).changed:
            return []
        require_rights(target)
        with locked(target) as run:
            changed = run.survey().changed
            for file in changed:
                run.ledger.accept(file)
                run.ledger.record("repair", file)
            return [file.label for file in changed]


def unlock(config: MigrateConfig, *, force: bool = False) -> Holder | None:
    """Remove an expired lock, or with ``force`` any; the holder that had it, or None when there was none."""
    with opened(config, creates=False) as target:
        holder = read_holder(target.db, config.settings.prefix)
        if holder is None:
            return None
        if not (holder.expired or force):
            raise Locked(
                f"The lock is alive ({holder.describe()}): let that run end, or if it hangs, add --force, "
                "which makes it stop before its next write."
            )
        return holder if remove_lock(target.db, config.settings.prefix, holder) else None


def validate(config: MigrateConfig, *, files_only: bool = False) -> list[MigrationError]:
    """Problems of the files, and of the history of the database; an empty list is good."""
    problems: list[MigrationError] = []
    for file in read_folder(config.script_location):
        try:
            migration = file.load()
            file.checksum()
        except MigrationError as exc:
            problems.append(exc)
            continue
        if migration.upgrade is BaseMigration.upgrade:
            problems.append(
                MigrationError(f"The step {file.label} has no upgrade: write one, or remove the file.")
            )
    if problems:
        return problems
    if files_only:
        return [MigrationError(f"{complaint}.") for complaint in misnamed(config.script_location)]
    with opened(config, creates=False) as target:
        return _survey(target).problems()


def _survey(target: Target) -> Survey:
    return survey(plain_ledger(target), target.config.script_location)


def _sound(survey: Survey, out_of_order: bool) -> Survey:
    """The survey, unless something is wrong; the first problem decides the exit code, all are named."""
    problems = survey.problems(out_of_order_allowed=out_of_order)
    if problems:
        raise type(problems[0])(" ".join(str(problem) for problem in problems))
    return survey
