"""Units of a source into documents of the target: read and convert here, write in batches on a thread.

A batch is written in an order that any crash leaves repeatable: first the journal notes which roots are new,
then what belongs to roots, then the roots, then the journal notes the units that are complete.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.errors import BSONError

from genesis_flow.importers.artifacts import REFERENCE, ArtifactRules, Artifacts
from genesis_flow.importers.batch import Batch, BatchWriter, UnitState
from genesis_flow.importers.errors import Stopped
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Item, Problem, Record, Series, Source, Unit
from genesis_flow.importers.stats import Stats
from genesis_flow.importers.writers import WRITERS, Context, Unwanted, Write, Writer

BATCH_BYTES = 4 * 1024 * 1024
BATCH_WRITES = 10_000
BATCH_UNITS = 1_000
LARGEST_DOCUMENT = 16 * 1024 * 1024
_TOO_LARGE = "it makes a document of {:,} bytes, more than the 16 MB that MongoDB allows"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the user wants done about trouble; and whether to write at all."""

    stop_on_error: bool = False
    on_conflict: str = "fail"
    dry: bool = False
    artifacts: ArtifactRules = field(default_factory=ArtifactRules)


@dataclass(slots=True)
class _Open:
    """The unit that is being read."""

    state: UnitState
    writers: dict[type[Writer], Writer] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)


class Loader:
    """Loads units, one after another. Used as a context manager: leaving it writes what is left."""

    def __init__(
        self, writer: BatchWriter, context: Context, rules: Rules, artifacts: Artifacts | None = None
    ) -> None:
        self.stats = Stats()
        self._writer = writer
        self._context = context
        self._rules = rules
        self._artifacts = artifacts
        self._batch = Batch()
        self._open: _Open | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="genesis-import-writer")
        self._writing: Future[Stats] | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.flush()
                self._await_writing()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def load(self, source: Source, units: list[Unit], tick: Callable[[], None] = lambda: None) -> None:
        """Read those of the units that have changed since they were last imported; tick now and then."""
        fingerprints = {unit.key: source.fingerprint(unit) for unit in units}
        unchanged = self._writer.unchanged({key: self._mark(mark) for key, mark in fingerprints.items()})
        for unit in units:
            if unit.key in unchanged:
                self.stats.units += 1
                self.stats.unchanged_units += 1
                continue
            self.begin(unit, fingerprints[unit.key])
            items = iter(source.read(unit))
            while True:
                started = time.perf_counter()
                item = next(items, None)
                self.stats.reading += time.perf_counter() - started
                if item is None:
                    break
                self.take(item)
                tick()
            self.end()
            tick()

    def begin(self, unit: Unit, fingerprint: str | None) -> None:
        self._open = _Open(UnitState(unit.key, self._mark(fingerprint)))

    def _mark(self, fingerprint: str | None) -> str | None:
        """Units are read again when their artifacts are to go elsewhere than the last time."""
        rules = self._rules.artifacts
        if fingerprint is None or rules.mode == REFERENCE:
            return fingerprint
        return f"{fingerprint} {rules.mode} {rules.root}"

    def take(self, item: Item) -> None:
        """Convert one item of the open unit."""
        started = time.perf_counter()
        opened = self._opened
        if isinstance(item, Problem):
            self._note(item)
        elif not (parent := _parent(item)) or parent not in opened.refused:
            self._count(item)
            self._convert(opened, item)
        else:
            self.stats.skipped[_kind(item)] += _size(item)
        self.stats.converting += time.perf_counter() - started
        self._flush_if_full()

    def end(self) -> None:
        started = time.perf_counter()
        opened = self._opened
        for writer in opened.writers.values():
            self._keep(writer.finish())
        self._batch.complete.append(opened.state)
        self._open = None
        self.stats.units += 1
        self.stats.converting += time.perf_counter() - started
        self._flush_if_full()

    def flush(self) -> None:
        """Hand what was converted to the writing thread, which has at most one batch to do."""
        batch, self._batch = self._batch, Batch()
        self._await_writing()
        if self._artifacts is not None:
            self._artifacts.places.flush()
        if batch:
            self._writing = self._thread.submit(self._writer.write, batch)

    def settle(self) -> None:
        """Return when everything that was loaded is written."""
        self.flush()
        self._await_writing()

    def note_listing(self, problem: Problem) -> None:
        """A problem of no unit: something that could not even be listed."""
        self._batch.complete.append(UnitState(listing_unit(problem), None, [problem]))
        self._after_problem(problem)

    @property
    def _opened(self) -> _Open:
        if self._open is None:
            raise RuntimeError("Items belong between begin and end.")
        return self._open

    def _convert(self, opened: _Open, item: Record | Series) -> None:
        kind = WRITERS["run" if isinstance(item, Series) else item.kind]
        writer = opened.writers.get(kind)
        if writer is None:
            writer = opened.writers[kind] = kind(self._context)
        try:
            if self._artifacts is not None and isinstance(item, Record):
                item = self._with_artifacts(self._artifacts, item)
            self._keep(writer.add(item))
        except Unwanted as unwanted:
            self._refuse(item, str(unwanted))

    def _with_artifacts(self, artifacts: Artifacts, record: Record) -> Record:
        of = record.body.get("experiment_id")
        record, problems = artifacts.take(record, None if of is None else self._context.experiment(of))
        for problem in problems:
            self._note(problem)
        return record

    def _refuse(self, item: Record | Series, reason: str) -> None:
        self.stats.skipped[_kind(item)] += _size(item)
        if isinstance(item, Record):
            self._opened.refused.add(item.id)
            self._note(Problem(item.kind, item.id, reason))
        else:
            self._note(Problem("metric", f"{item.run_id} {item.key}", reason, len(item)))

    def _keep(self, made: Iterable[Write | Problem]) -> None:
        for each in made:
            if isinstance(each, Problem):
                self._note(each)
                continue
            try:
                encoded = bson.encode(each.document)
            except (BSONError, OverflowError, UnicodeError) as error:
                self._note(Problem(each.collection, str(each.document["_id"]), f"cannot be stored: {error}"))
                continue
            if len(encoded) > LARGEST_DOCUMENT:
                reason = _TOO_LARGE.format(len(encoded))
                self._note(Problem(each.collection, str(each.document["_id"]), reason, len(encoded)))
                continue
            self._batch.add(self._opened.state, each, encoded)

    def _note(self, problem: Problem) -> None:
        self._opened.state.problems.append(problem)
        self._after_problem(problem)

    def _after_problem(self, problem: Problem) -> None:
        if self._rules.stop_on_error:
            raise Stopped(
                f"{problem.where}: {problem.reason} (stopped at the first problem, as --on-error stop asks; "
                "what is written stays, and the same command goes on from there)."
            )

    def _count(self, item: Record | Series) -> None:
        self.stats.read[_kind(item)] += _size(item)

    def _flush_if_full(self) -> None:
        batch = self._batch
        if (
            batch.size >= BATCH_BYTES
            or len(batch.writes) >= BATCH_WRITES
            or len(batch.complete) >= BATCH_UNITS
        ):
            self.flush()

    def _await_writing(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self.stats.add(writing.result())


def listing_unit(problem: Problem) -> str:
    """The key under which a problem of no unit is noted."""
    return f"listing {problem.kind} {problem.where}"


def _kind(item: Record | Series) -> str:
    return item.kind if isinstance(item, Record) else "metric_point"


def _size(item: Record | Series) -> int:
    return 1 if isinstance(item, Record) else len(item)


def _parent(item: Record | Series) -> Any:
    if isinstance(item, Series):
        return item.run_id
    field = KIND[item.kind].parent
    return item.body.get(field) if field else None
