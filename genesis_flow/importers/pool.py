"""Who does the loading: this process, or worker processes that each load whole units.

A worker opens the source for itself where the source allows it; else this process reads, and hands items
over. Workers end with the pipe to this process, however it ends.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import pymongo

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask
from genesis_flow.importers.artifacts import REFERENCE, Artifacts, MovedPlaces
from genesis_flow.importers.batch import BatchWriter
from genesis_flow.importers.errors import ImportConflict, ImportFailed, Stopped
from genesis_flow.importers.loader import Loader, Rules
from genesis_flow.importers.records import Item, Problem, Source, Unit
from genesis_flow.importers.roots import Ownership
from genesis_flow.importers.sources import open_source
from genesis_flow.importers.stats import Stats
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.writers import Context

UNITS_AT_ONCE = 16
ITEMS_AT_ONCE = 200
_ERRORS = {kind.__name__: kind for kind in (ImportConflict, ImportFailed, Stopped)}
_SECONDS_TO_END = 10.0
_SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to load units; may hold passwords, so it is never printed."""

    source: str = field(repr=False)
    uri: str = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    database: str
    prefix: str
    journal: str
    stable_units: bool
    context: Context
    rules: Rules


class Crew(Protocol):
    """Loads units; ``done`` of the progress is called with the sums of what was finished since."""

    def load(self, source: Source, units: list[Unit]) -> None: ...

    def note(self, problem: Problem) -> None: ...

    def settle(self) -> None: ...


Done = Callable[[Stats], None]


def loader_for(job: Job, target: ImportTarget, on_problem: Callable[[Problem], None] | None = None) -> Loader:
    dry = job.rules.dry
    ownership = Ownership(target, job.journal, stable_units=job.stable_units, dry=dry)
    writer = BatchWriter(
        target,
        job.journal,
        ownership,
        on_conflict=job.rules.on_conflict,
        stop_on_error=job.rules.stop_on_error,
        dry=dry,
        merged=frozenset(("experiments", number) for number in job.context.merged),
        on_problem=on_problem,
    )
    rules = job.rules.artifacts
    artifacts = None
    if rules.mode != REFERENCE and not dry:
        artifacts = Artifacts(rules, MovedPlaces(target, job.journal))
    return Loader(writer, job.context, job.rules, artifacts)


class Inline:
    """Loads in this process."""

    def __init__(self, loader: Loader, done: Done) -> None:
        self._loader = loader
        self._done = done
        self._reported = time.monotonic()

    def load(self, source: Source, units: list[Unit]) -> None:
        self._loader.load(source, units, self._tick)
        self._report()

    def _tick(self) -> None:
        if time.monotonic() - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._report()

    def note(self, problem: Problem) -> None:
        self._loader.note_listing(problem)

    def settle(self) -> None:
        self._loader.settle()
        self._report()

    def _report(self) -> None:
        self._reported = time.monotonic()
        stats, self._loader.stats = self._loader.stats, Stats()
        self._done(stats)


class Processes:
    """Loads in worker processes."""

    def __init__(self, job: Job, workers: int, check: Callable[[], None], done: Done) -> None:
        self._done = done
        self._check = check
        self._idle: list[Connection] = []
        self._busy: list[Connection] = []
        self._children: list[Any] = []
        spawn = multiprocessing.get_context("spawn")
        for _ in range(workers):
            ours, theirs = spawn.Pipe()
            child = spawn.Process(target=_work, args=(theirs, job), daemon=True)
            child.start()
            theirs.close()
            self._children.append(child)
            self._idle.append(ours)

    def load(self, source: Source, units: list[Unit]) -> None:
        if source.parallel:
            for start in range(0, len(units), UNITS_AT_ONCE):
                self._send(self._worker(), ("load", units[start : start + UNITS_AT_ONCE]))
            return
        for unit in units:
            self._hand_over(source, unit)

    def note(self, problem: Problem) -> None:
        self._send(self._worker(), ("note", problem))

    def settle(self) -> None:
        self._await_all()
        for worker in list(self._idle):
            self._idle.remove(worker)
            self._send(worker, ("settle",))
        self._await_all()

    def close(self, *, killed: bool) -> None:
        for worker in (*self._idle, *self._busy):
            worker.close()
        for child in self._children:
            if killed:
                child.terminate()
            child.join(_SECONDS_TO_END)
            if child.is_alive():
                child.kill()
                child.join()

    def _hand_over(self, source: Source, unit: Unit) -> None:
        """Read a unit here and let one worker write it, part by part."""
        worker = self._worker()
        fingerprint = source.fingerprint(unit)
        begin: tuple[Any, ...] | None = (unit, fingerprint)
        items: list[Item] = []
        points = 0
        for item in source.read(unit):
            items.append(item)
            points += len(item) if hasattr(item, "__len__") else 0
            if len(items) >= ITEMS_AT_ONCE or points >= 4 * 65_536:
                self._send(worker, ("part", begin, items, False))
                begin, items, points = None, [], 0
                self._await(worker)
        self._send(worker, ("part", begin, items, True))

    def _worker(self) -> Connection:
        """A worker that has nothing to do."""
        while not self._idle:
            self._receive()
        return self._idle.pop()

    def _send(self, worker: Connection, message: tuple[Any, ...]) -> None:
        self._check()
        try:
            worker.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ImportFailed(_GONE) from error
        self._busy.append(worker)

    def _await(self, worker: Connection) -> None:
        while worker in self._busy:
            self._receive()
        self._idle.remove(worker)

    def _await_all(self) -> None:
        while self._busy:
            self._receive()

    def _receive(self) -> None:
        for ready in wait(self._busy, timeout=1.0):
            assert isinstance(ready, Connection)
            try:
                kind, answer = ready.recv()
            except (EOFError, ConnectionResetError) as error:
                raise ImportFailed(_GONE) from error
            self._busy.remove(ready)
            self._idle.append(ready)
            if kind != "done":
                raise _ERRORS.get(kind, ImportFailed)(answer)
            self._done(answer)
        self._check()


_GONE = (
    "A worker process died (killed, or out of memory). What is written stays: run the same command again, "
    "perhaps with fewer --workers."
)


@contextmanager
def crew(
    job: Job,
    target: ImportTarget,
    workers: int,
    done: Done,
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Crew]:
    """The loader of this process, or as many worker processes; only the first tells of each problem."""
    if workers <= 1:
        with loader_for(job, target, on_problem) as loader:
            yield Inline(loader, done)
        return
    processes = Processes(job, workers, target.check, done)
    try:
        yield processes
        processes.settle()
    except BaseException:
        processes.close(killed=True)
        raise
    processes.close(killed=False)


def _work(pipe: Connection, job: Job) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent says what to do
    try:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(job.uri, **job.options)
        target = ImportTarget(client.get_database(job.database), job.prefix, job.context.workspace)
        source: Source | None = None
        with client, loader_for(job, target) as loader:
            while True:
                message = pipe.recv()
                if message[0] == "load":
                    source = source or open_source(job.source)
                _do(loader, source, message)
                stats, loader.stats = loader.stats, Stats()
                pipe.send(("done", stats))
    except EOFError:
        return  # the parent is done, or gone
    except (GenesisFlowError, pymongo.errors.PyMongoError) as error:
        pipe.send((type(error).__name__, mask(str(error))))
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent tells the user
        pipe.send(("ImportFailed", f"{type(error).__name__}: {mask(str(error))}"))


def _do(loader: Loader, source: Source | None, message: tuple[Any, ...]) -> None:
    match message:
        case ("load", units):
            assert source is not None
            loader.load(source, units)
        case ("note", problem):
            loader.note_listing(problem)
        case ("part", begin, items, last):
            if begin is not None:
                loader.begin(*begin)
            for item in items:
                loader.take(item)
            if last:
                loader.end()
        case ("settle",):
            loader.settle()
