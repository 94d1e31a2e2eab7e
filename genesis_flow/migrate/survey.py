"""Compare the files with the ledger, and find what is wrong before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from genesis_flow.migrate.errors import ChangedFile, HistoryMismatch, MigrationError
from genesis_flow.migrate.files import MigrationFile, misnamed, read_folder, replacements
from genesis_flow.migrate.ledger import Entry, Ledger, State

_BY_TOOL = "recorded by mongodb-migrations"


@dataclass(frozen=True, slots=True)
class Survey:
    """The files, the entries, and how they relate; lists are oldest first."""

    files: tuple[MigrationFile, ...]
    entries: dict[str, Entry]
    adoptable: list[str] = field(default_factory=list)
    """Applied versions without an entry: mongodb-migrations has one, or the steps that they replace have."""
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The steps that stand in place of others, with the versions of those."""
    complaints: list[str] = field(default_factory=list)
    """What is wrong with the names in the folder."""

    def file(self, version: str) -> MigrationFile | None:
        return next((file for file in self.files if file.version == version), None)

    def is_applied(self, version: str) -> bool:
        entry = self.entries.get(version)
        return version in self.adoptable if entry is None else entry.state is State.APPLIED

    @property
    def head(self) -> str | None:
        return self.files[-1].version if self.files else None

    @property
    def current(self) -> str | None:
        """The newest applied version."""
        return max((version for version in self._recorded() if self.is_applied(version)), default=None)

    def adopted_from(self, version: str) -> str:
        """Whose entries say that an adoptable step was applied."""
        return "applied as the steps that it replaces" if version in self.replaced else _BY_TOOL

    def applied_in_part(self, version: str) -> list[str]:
        """What the ledger has of the steps that this one replaces, where it is not applied itself."""
        replaced = () if self.is_applied(version) else self.replaced.get(version, ())
        return [version for version in replaced if version in self.entries]

    def _recorded(self) -> set[str]:
        return {*self.entries, *self.adoptable}

    @property
    def _superseded(self) -> set[str]:
        return {version for replaced in self.replaced.values() for version in replaced}

    @property
    def pending(self) -> list[MigrationFile]:
        """What ``up`` would run: steps never applied, and steps that were interrupted."""
        return [file for file in self.files if not self.is_applied(file.version)]

    @property
    def unfinished(self) -> list[Entry]:
        return [entry for _, entry in sorted(self.entries.items()) if entry.state is not State.APPLIED]

    @property
    def changed(self) -> list[MigrationFile]:
        """Files of applied steps with another checksum than when they were applied."""
        return [
            file
            for file in self.files
            if (entry := self.entries.get(file.version))
            and entry.state is State.APPLIED
            and entry.checksum not in (None, file.checksum())
        ]

    @property
    def unknown(self) -> list[Entry]:
        """Entries without a file."""
        known = {file.version for file in self.files} | self._superseded
        return [entry for version, entry in sorted(self.entries.items()) if version not in known]

    @property
    def out_of_order(self) -> list[MigrationFile]:
        """Files never applied that are older than an applied one."""
        newest = self.current
        return [
            file
            for file in self.files
            if newest and file.version < newest and file.version not in self._recorded()
        ]

    def problems(self, *, out_of_order_allowed: bool = False) -> list[MigrationError]:
        """What keeps a run from beginning, the most telling first."""
        problems: list[MigrationError] = [MigrationError(f"{text}.") for text in self.complaints]
        problems.extend(self._unknown_problem(entry) for entry in self.unknown)
        problems.extend(
            ChangedFile(
                f"The file {file.path.name} is not the one that was applied: restore it, or if the change "
                "does not matter, accept it with `genesis-migrate repair`."
            )
            for file in self.changed
        )
        if not out_of_order_allowed:
            problems.extend(
                HistoryMismatch(
                    f"The step {file.label} was never applied, and newer ones were: give the file a version "
                    "above the newest, or apply it late with `genesis-migrate up --out-of-order`."
                )
                for file in self.out_of_order
            )
        return problems

    def _unknown_problem(self, entry: Entry) -> HistoryMismatch:
        label = f"{entry.version}_{entry.name}" if entry.name else entry.version
        if self.head is None or entry.version > self.head:
            return HistoryMismatch(
                f"The database has the step {label}, newer than {self.head}, the newest one here: "
                "install the genesis_flow that the others use."
            )
        return HistoryMismatch(
            f"The database has the step {label}, whose file is missing: restore the file, or correct "
            "script_location."
        )


def survey(ledger: Ledger, location: Path) -> Survey:
    """Look at the folder and the ledger; reads only."""
    files = read_folder(location)
    if not files:
        raise MigrationError(f"There are no migrations in {location}: correct script_location.")
    entries = ledger.entries()
    replaced = replacements(files)
    known = {file.version for file in files}.union(*replaced.values())
    applied = {*ledger.recorded_by_tool(known)}
    applied -= entries.keys()
    applied.update(version for version, entry in entries.items() if entry.state is State.APPLIED)
    applied.update(version for version, steps in replaced.items() if applied.issuperset(steps))
    adoptable = applied - entries.keys()
    # Of one that was taken over, the rest: the run ended before it had removed the entries.
    adoptable.update(
        version
        for version, steps in replaced.items()
        if version in applied and not entries.keys().isdisjoint(steps)
    )
    return Survey(
        files=files,
        entries=entries,
        adoptable=[file.version for file in files if file.version in adoptable],
        replaced=replaced,
        complaints=misnamed(location),
    )


def find_revision(files: tuple[MigrationFile, ...], text: str) -> MigrationFile:
    """The step that a version, the beginning of one, or a name means."""
    if text == "head":
        return files[-1]
    matches = [file for file in files if text in (file.name, file.label)] or [
        file for file in files if text.isdigit() and file.version.startswith(text)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        labels = ", ".join(file.label for file in matches)
        raise MigrationError(f"{text!r} could mean {labels}: write more of the version.")
    raise MigrationError(f"There is no step {text!r}: `genesis-migrate history` lists them.")


def up_to(
    files: tuple[MigrationFile, ...], pending: list[MigrationFile], revision: str
) -> list[MigrationFile]:
    """The pending steps that ``up REVISION`` means."""
    if revision.startswith("+"):
        return pending[: _count(revision)]
    last = find_revision(files, revision)
    return [file for file in pending if file.version <= last.version]


def down_to(survey: Survey, revision: str) -> list[MigrationFile]:
    """The steps that ``down REVISION`` means, newest first; interrupted ones are undone as well."""
    recorded = [
        file
        for file in reversed(survey.files)
        if file.version in survey.entries
        or file.version in survey.adoptable
        or survey.applied_in_part(file.version)
    ]
    if revision == "base":
        return recorded
    if revision.startswith("-"):
        return recorded[: _count(revision)]
    last = find_revision(survey.files, revision)
    if not survey.is_applied(last.version):
        raise MigrationError(f"The step {last.label} is not applied, so `down` cannot go back to it.")
    return [file for file in recorded if file.version > last.version]


def _count(revision: str) -> int:
    if not revision[1:].isdigit() or int(revision[1:]) == 0:
        raise MigrationError(f"{revision!r} is not a number of steps: write for example {revision[0]}1.")
    return int(revision[1:])
