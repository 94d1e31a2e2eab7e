"""An MLflow database as a source of units.

Units are cut by the beginnings of ids, about a hundred runs each, so that most of them stay the same when
runs are added. One process reads them all: the snapshot belongs to its connection.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.kind import Kind
from genesis_flow.importers.kinds import PHASES, PLAIN
from genesis_flow.importers.records import Filters, Item, Problem, Unit
from genesis_flow.importers.sql import entities, genai, registry, runs
from genesis_flow.importers.sql.leftovers import left_behind, orphans, unsupported, workspaces_in
from genesis_flow.importers.sql.plain import read_plain
from genesis_flow.importers.sql.reading import Reading
from genesis_flow.importers.sql.snapshot import DEFAULT, Condition, Snapshot

# The average number in a unit, and the most.
RUNS, TRACES = 100, 50
_MOST = 500
# What is listed by one query.
_LISTED = 10_000
_CHUNK = 500
SAID_OF_WORKSPACES = (
    *("description", "default_artifact_root"),
    *("trace_archival_location", "trace_archival_retention"),
)


class SqlSource:
    parallel = False
    stable_units = False

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._reading = Reading(snapshot)
        self.name = snapshot.name
        # Sentences for the user.
        self.notes = [*snapshot.notes, *left_behind(snapshot)]

    def close(self) -> None:
        self._snapshot.close()

    def workspaces(self) -> dict[str, dict[str, Any]]:
        """What is said of each workspace, by its name; the default one is always there."""
        names = ("name", *SAID_OF_WORKSPACES)
        rows = self._snapshot.rows("workspaces", names) if self._snapshot.has("workspaces") else []
        said = {
            str(name): {
                field: value
                for field, value in zip(SAID_OF_WORKSPACES, values, strict=True)
                if isinstance(value, str) and value
            }
            for name, *values in rows
        }
        named: dict[str, dict[str, Any]] = {str(name): {} for name in workspaces_in(self._snapshot)}
        found: dict[str, dict[str, Any]] = {DEFAULT: {}} | named | said
        return dict(sorted(found.items()))

    def of_workspace(self, name: str) -> "SqlSource":
        """The part of it that is one workspace, as it is at the same moment. It must not be closed."""
        return SqlSource(self._snapshot.of_workspace(name))

    def check(self, filters: Filters) -> None:
        """Refuse experiments that are in no workspace."""
        self._wanted(filters.experiments)

    def unsupported(self, filters: Filters) -> dict[str, int]:
        """The tables with rows that a target has no place for, and how many rows are wanted of them."""
        return unsupported(self._snapshot, self._wanted(filters.experiments))

    def size(self, filters: Filters) -> int | None:
        return sum(isinstance(each, Unit) for phase in PHASES for each in self._units_of(phase, filters))

    def units(self, filters: Filters, phases: Collection[str] = PHASES) -> Iterator[Unit | Problem]:
        for phase in PHASES:
            if phase in phases:
                yield from self._units_of(phase, filters)
                if not filters.experiments:
                    yield from orphans(self._snapshot, phase)

    def _units_of(self, phase: str, filters: Filters) -> Iterator[Unit | Problem]:
        wanted = self._wanted(filters.experiments)

        def where(table: str, *columns: str, **options: Any) -> list[Condition]:
            return [*self._within(table, wanted), *self._since(table, filters.since, columns, **options)]

        match phase:
            case "experiment":
                yield from self._numbered(phase, "experiments", "experiment_id", where("experiments"))
            case "dataset":
                yield from self._numbered(phase, "datasets", "dataset_uuid", where("datasets"))
            case "run":
                changed = where("runs", "start_time", "end_time", "deleted_time", running="end_time")
                yield from self._by_prefix(phase, "runs", "run_uuid", RUNS, changed)
            case "logged_model":
                changed = where("logged_models", "creation_timestamp_ms", "last_updated_timestamp_ms")
                yield from self._by_prefix(phase, "logged_models", "model_id", RUNS, changed)
            case "trace":
                changed = where("trace_info", "timestamp_ms", assessed=True)
                yield from self._by_prefix(phase, "trace_info", "request_id", TRACES, changed)
            case "evaluation_dataset":
                yield from self._evaluation(wanted)
            case "registered_model" if wanted is None:
                yield from self._one_each(phase, "registered_models", ("name",))
            case _ if phase in PLAIN and PLAIN[phase].of_experiment:
                kind = PLAIN[phase]
                changed = where(kind.table, *kind.times)
                yield from self._numbered(phase, kind.table, kind.key[0], changed)
            case _ if phase in PLAIN and wanted is None:
                yield from self._of_workspaces(PLAIN[phase])

    def _evaluation(self, wanted: list[int] | None) -> Iterator[Unit]:
        phase, tied = "evaluation_dataset", self._datasets_of(wanted)
        for unit in self._numbered(phase, "evaluation_datasets", "dataset_id", tied, size=20):
            yield replace(unit, payload=genai.EvaluationPart(unit.payload, wanted))
        in_default = self._snapshot.workspace in (None, DEFAULT)
        if wanted is None and in_default and self._snapshot.has("entity_associations"):
            yield Unit(phase, genai.ASSOCIATIONS, genai.ASSOCIATIONS)

    def fingerprint(self, unit: Unit) -> str | None:
        if unit.phase == "run":
            return runs.fingerprint(self._reading, unit.payload)
        return None

    def read(self, unit: Unit) -> Iterable[Item]:
        return _READERS[unit.phase](self._reading, unit.payload)

    def _wanted(self, experiments: tuple[str, ...]) -> list[int] | None:
        """The numbers of the experiments that the user named."""
        if not experiments:
            return None
        numbers: dict[str, list[int]] = {name: [] for name in experiments}
        own = self._snapshot.own("experiments")
        for number, name in self._snapshot.rows("experiments", ("experiment_id", "name"), *own):
            for key in (str(number), name):
                if key in numbers:
                    numbers[key].append(number)
        for name, found in numbers.items():
            if not found and self._snapshot.workspace is None:
                raise ImportFailed(f"{self.name} has no experiment with the id or name {name!r}.")
        return sorted({number for found in numbers.values() for number in found})

    def _within(self, table: str, wanted: list[int] | None) -> list[Condition]:
        if wanted is None or not self._snapshot.has(table):
            return []
        return [self._snapshot.column(table, "experiment_id").in_(wanted)]

    def _since(
        self,
        table: str,
        since: int | None,
        columns: tuple[str, ...],
        running: str | None = None,
        assessed: bool = False,
    ) -> list[Condition]:
        """What began or changed since then, as far as the table tells; what still goes on may have."""
        if since is None or not self._snapshot.has(table):
            return []
        condition: Any = None
        for column in columns:
            if self._snapshot.has(table, column):
                later = self._snapshot.column(table, column) >= since
                condition = later if condition is None else condition | later
        if running is not None:
            condition = condition | self._snapshot.column(table, running).is_(None)
        if assessed and self._snapshot.has("assessments"):
            changed = self._snapshot.ids_where(
                "assessments",
                "trace_id",
                self._snapshot.column("assessments", "last_updated_timestamp") >= since,
            )
            condition = condition | self._snapshot.column(table, "request_id").in_(changed)
        return [] if condition is None else [condition]

    def _datasets_of(self, wanted: list[int] | None) -> list[Condition]:
        if wanted is None or not self._snapshot.has("evaluation_datasets"):
            return []
        column = self._snapshot.column
        tied = self._snapshot.ids_where(
            "entity_associations",
            "source_id",
            (column("entity_associations", "source_type") == genai.DATASET)
            & column("entity_associations", "destination_id").in_([str(number) for number in wanted]),
        )
        return [column("evaluation_datasets", "dataset_id").in_(tied)]

    def _numbered(
        self, phase: str, table: str, key: str, where: list[Condition], size: int = _CHUNK
    ) -> Iterator[Unit]:
        for page in self._snapshot.pages(table, (key,), *where, order=(key,), size=size):
            ids = [each for (each,) in page]
            yield Unit(phase, f"{table}:{ids[0]}", ids)

    def _by_prefix(
        self, phase: str, table: str, key: str, average: int, where: list[Condition]
    ) -> Iterator[Unit]:
        """Units of the ids that begin alike; as many beginnings as make units of the size wanted."""
        total = self._snapshot.count(table, *where)
        digits = math.ceil(math.log(total / average, 16)) if total > average else 0
        seen: set[str] = set()
        held: list[Any] = []
        prefix = ""
        for page in self._snapshot.pages(table, (key,), *where, order=(key,), size=_LISTED):
            for (each,) in page:
                of_each = _prefix(each, digits)
                if held and (of_each != prefix or len(held) >= _MOST):
                    yield _unit(phase, prefix, held, seen)
                    held = []
                prefix = of_each
                held.append(each)
        if held:
            yield _unit(phase, prefix, held, seen)

    def _of_workspaces(self, kind: Kind) -> Iterator[Unit | Problem]:
        """Things that belong to no experiment; of those of one name in several workspaces the first."""
        if kind.named:
            yield from self._one_each(kind.name, kind.table, kind.key)
            return
        (key,) = kind.key
        others: list[Any] = []
        if kind.unique and self._snapshot.has(kind.table, "workspace"):
            (name,) = (column.name for column in kind.columns if column.field == kind.unique)
            before = None
            for value, workspace, identifier in self._snapshot.rows(
                kind.table,
                (name, "workspace", key),
                *self._snapshot.own(kind.table),
                order=(name, "workspace", key),
            ):
                if value is not None and value == before:
                    others.append(identifier)
                    yield _of_another(kind.name, f"{identifier} ({value})", workspace)
                before = value
        taken: list[Condition] = [self._snapshot.column(kind.table, key).not_in(others)] if others else []
        yield from self._numbered(kind.name, kind.table, key, taken)

    def _one_each(self, phase: str, table: str, names: tuple[str, ...]) -> Iterator[Unit | Problem]:
        """One thing with all it has each; of those of one name in several workspaces the first."""
        keys = (*names, "workspace") if self._snapshot.has(table, "workspace") else names
        before = None
        for page in self._snapshot.pages(table, keys, order=keys, size=_CHUNK):
            for row in page:
                named = tuple(row[: len(names)])
                workspace = row[len(names)] if len(row) > len(names) else None
                name = "/".join(str(part) for part in named)
                if named == before:
                    yield _of_another(phase, name, workspace)
                    continue
                before = named
                yield Unit(phase, f"{table}:{workspace or ''}/{name}", (workspace, *named))


def _of_another(kind: str, name: str, workspace: Any) -> Problem:
    what = kind.replace("_", " ").removeprefix("registered ")
    article = "an" if what[0] in "aeiou" else "a"
    reason = f"another workspace has {article} {what} of this name, which is imported instead"
    return Problem(kind, f"{name} of workspace {workspace}", reason)


def _prefix(identifier: Any, digits: int) -> str:
    text = str(identifier)
    known = 3 if text.startswith("tr-") else 2 if text.startswith("m-") else 0
    return text[: known + digits]


def _unit(phase: str, prefix: str, ids: list[Any], seen: set[str]) -> Unit:
    key = f"{phase}:{prefix}"
    if key in seen:
        key = f"{phase}:{prefix}:{ids[0]}"
    seen.add(key)
    return Unit(phase, key, ids)


_READERS: dict[str, Callable[[Reading, Any], Iterable[Item]]] = {
    "experiment": entities.read_experiments,
    "dataset": entities.read_datasets,
    "run": runs.read_runs,
    "logged_model": entities.read_logged_models,
    "trace": genai.read_traces,
    "evaluation_dataset": genai.read_evaluation,
    "registered_model": registry.read_model,
    **{name: read_plain(name) for name, kind in PLAIN.items() if not kind.within},
}
