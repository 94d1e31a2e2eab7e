"""The import as a whole: plan, load phase by phase, and leave a journal that says what is done."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from pymongo.asynchronous.mongo_client import AsyncMongoClient

from genesis_flow.compat.crypto import PASSPHRASE, VERSION
from genesis_flow.importers import journal as states
from genesis_flow.importers.artifacts import rules_for
from genesis_flow.importers.changes import note_merged, watch_merged
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.journal import Journal
from genesis_flow.importers.loader import Rules, listing_unit
from genesis_flow.importers.plan import Plan, Planner, free_names, raise_counter, refuse_conflicts
from genesis_flow.importers.pool import Crew, Job, crew
from genesis_flow.importers.progress import Progress
from genesis_flow.importers.records import Filters, Problem, Source, Unit
from genesis_flow.importers.sources import open_source
from genesis_flow.importers.stats import Stats
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.workspaces import Part, make_workspace, parts_of, target_workspace
from genesis_flow.migrate.config import MigrateConfig, Target, opened
from genesis_flow.migrate.runner import locked, require_rights
from genesis_flow.mongo.schema import ready_schema

UNITS_LISTED = 256
PROBLEMS_SHOWN = 1_000
_PASSPHRASE = (
    "The gateway's secrets ({:,}) come as they are encrypted: servers need the same "
    f"{PASSPHRASE} and {VERSION} as those of the source."
)


@dataclass(frozen=True, slots=True)
class Options:
    filters: Filters = field(default_factory=Filters)
    workers: int = 1
    stop_on_error: bool = False
    on_conflict: str = "fail"
    artifacts: str = "reference"
    # Where the target keeps artifacts, if not where its settings say.
    artifact_root: str | None = None
    # Where every problem is written, a JSON object on each line.
    report: Path | None = None

    def plain(self) -> dict[str, Any]:
        return {
            "experiments": list(self.filters.experiments),
            "since": self.filters.since,
            "workers": self.workers,
            "on_error": "stop" if self.stop_on_error else "skip",
            "on_conflict": self.on_conflict,
            "artifacts": self.artifacts,
        }


@dataclass(slots=True)
class Outcome:
    """What an import did; with ``analyzed`` what it would do."""

    source: str
    target: str
    journal: str
    analyzed: bool
    workspace: str
    stats: Stats = field(default_factory=Stats)
    seconds: float = 0.0
    # How many problems there are by now, and the first of them.
    problems: int = 0
    first_problems: list[Problem] = field(default_factory=list)
    conflicts: list[Problem] = field(default_factory=list)
    # Rows of the source that the target has no place for, by kind; and what else there is to know.
    unsupported: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the target has everything that was asked for."""
        return not (self.problems or self.conflicts or self.unsupported)


def run_import(
    config: MigrateConfig, source_uri: str, options: Options, progress: Progress | None = None
) -> Outcome:
    """Bring over what the source has and the target has not, into one workspace."""
    with _source(source_uri) as source:
        return _imported(config, source_uri, options, progress, Part(target_workspace(), source))


def analyze(
    config: MigrateConfig, source_uri: str, options: Options, progress: Progress | None = None
) -> Outcome:
    """Read everything, write nothing: what an import would bring and what would be in its way."""
    with _source(source_uri) as source:
        return _analyzed(config, source_uri, options, progress, Part(target_workspace(), source))


def import_parts(
    config: MigrateConfig,
    source_uri: str,
    options: Options,
    progress: Callable[[], Progress] = Progress,
    *,
    analyzes: bool = False,
) -> list[Outcome]:
    """Import or analyze workspace by workspace where they are kept: all of them as they are at one moment."""
    do = _analyzed if analyzes else _imported
    with _source(source_uri) as source:
        return [
            do(config, source_uri, options, progress(), part) for part in parts_of(source, options.filters)
        ]


def _imported(
    config: MigrateConfig, source_uri: str, options: Options, progress: Progress | None, part: Part
) -> Outcome:
    with opened(config) as connected:
        make_ready(config, connected)
        require_rights(connected)
        with locked(connected) as run:
            target = ImportTarget(connected.db, config.settings.prefix, part.workspace, check=run.lease.check)
            engine = _Engine(
                config, connected, target, part.source, source_uri, options, progress or Progress()
            )
            return engine.run(part.said)


def _analyzed(
    config: MigrateConfig, source_uri: str, options: Options, progress: Progress | None, part: Part
) -> Outcome:
    with opened(config) as connected:
        target = ImportTarget(connected.db, config.settings.prefix, part.workspace)
        engine = _Engine(config, connected, target, part.source, source_uri, options, progress or Progress())
        return engine.analyze()


class _Engine:
    def __init__(
        self,
        config: MigrateConfig,
        connected: Target,
        target: ImportTarget,
        source: Source,
        source_uri: str,
        options: Options,
        progress: Progress,
    ) -> None:
        self._connected = connected
        self._config = config
        self._target = target
        self._source = source
        self._source_uri = source_uri
        self._options = options
        self._progress = progress
        self._journal = Journal.of_source(target, source.name)
        self._outcome = Outcome(source.name, config.where, self._journal.id, False, target.workspace)
        self._outcome.notes += getattr(source, "notes", [])
        self._rules = Rules(
            options.stop_on_error,
            options.on_conflict,
            artifacts=rules_for(options.artifacts, options.artifact_root, config.settings, source_uri),
        )

    def run(self, said: dict[str, Any] | None) -> Outcome:
        """``said``: what the source says of the workspace, if that is kept."""
        journal, outcome = self._journal, self._outcome
        journal.begin(self._options.plain())
        if said is not None and not journal.made_workspace:
            journal.note_workspace(make_workspace(self._target, said))
        started = time.monotonic()
        state = states.STOPPED
        try:
            plan = self._plan()
            if self._options.on_conflict == "fail":
                refuse_conflicts(plan)
            watch_merged(self._target, plan.context)
            journal.map_names(plan.context)
            free_names(self._target, journal.id, plan)
            solved = set() if self._options.filters else self._journal.units_with_problems()
            self._load(plan, self._rules, seen=solved.discard)
            self._journal.forget_units(solved)
            raise_counter(self._target, plan.context.experiments.values())
            note_merged(self._target, plan.context)
            journal.map_names(plan.context)
            state = states.DONE
        finally:
            outcome.seconds = time.monotonic() - started
            self._progress.end()
            self._end(state)
        return outcome

    def analyze(self) -> Outcome:
        outcome = self._outcome
        outcome.analyzed = True
        started = time.monotonic()
        with ExitStack() as stack:
            report = self._options.report
            file = stack.enter_context(report.open("w", encoding="utf-8")) if report else None

            def collect(problem: Problem) -> None:
                outcome.problems += 1
                if len(outcome.first_problems) < PROBLEMS_SHOWN:
                    outcome.first_problems.append(problem)
                if file is not None:
                    file.write(json.dumps(asdict(problem)) + "\n")

            plan = self._plan()
            outcome.conflicts = plan.conflicts
            self._load(plan, Rules(False, "skip", dry=True), collect)
        self._progress.end()
        outcome.seconds = time.monotonic() - started
        self._say_more()
        return outcome

    def _end(self, state: str) -> None:
        outcome = self._outcome
        try:
            outcome.problems = self._journal.count_problems()
            outcome.first_problems = list(self._journal.problems(PROBLEMS_SHOWN))
            if self._options.report:
                with self._options.report.open("w", encoding="utf-8") as file:
                    file.writelines(json.dumps(asdict(each)) + "\n" for each in self._journal.problems())
            if state == states.DONE:
                self._say_more()
                state = state if outcome.complete else states.INCOMPLETE
            did = {**outcome.stats.plain(), "unsupported": outcome.unsupported}
            self._journal.end(state, {"seconds": round(outcome.seconds, 3), "did": did})
        except Exception as error:
            if state != states.STOPPED:
                raise
            # The import has failed already, perhaps because the server is away: that is what to tell.
            self._config.report(f"The end of the import could not be noted ({type(error).__name__}).")

    def _say_more(self) -> None:
        if secrets := self._outcome.stats.read["gateway_secret"]:
            self._outcome.notes.append(_PASSPHRASE.format(secrets))
        unsupported = getattr(self._source, "unsupported", None)
        if unsupported is not None:
            self._outcome.unsupported = unsupported(self._options.filters)

    def _plan(self) -> Plan:
        return Planner(self._target, self._journal, self._options.on_conflict).plan(
            self._source, self._options.filters
        )

    def _load(
        self,
        plan: Plan,
        rules: Rules,
        on_problem: Callable[[Problem], None] | None = None,
        seen: Callable[[str], None] = lambda unit: None,
    ) -> None:
        """``seen`` gets the key of each unit that the source has, and of what could not be listed."""
        filters = self._options.filters
        self._progress.begin(self._source.size(filters))
        workers = 1 if rules.dry else self._options.workers
        with crew(self._job(plan, rules), self._target, workers, self._done, on_problem) as loaders:
            for problem in plan.problems:
                seen(listing_unit(problem))
                loaders.note(problem)
            self._load_units(loaders, seen)

    def _load_units(self, loaders: Crew, seen: Callable[[str], None]) -> None:
        """A phase begins when all of the one before is written: children find their parents' numbers."""
        units: list[Unit] = []
        phase = ""
        for each in self._source.units(self._options.filters):
            if isinstance(each, Problem):
                seen(listing_unit(each))
                loaders.note(each)
                continue
            seen(each.key)
            if units and (each.phase != phase or len(units) >= UNITS_LISTED):
                loaders.load(self._source, units)
                units = []
            if each.phase != phase:
                if phase:
                    loaders.settle()
                phase = each.phase
                self._progress.phase(phase)
            units.append(each)
        loaders.load(self._source, units)
        loaders.settle()

    def _done(self, stats: Stats) -> None:
        self._outcome.stats.add(stats)
        self._progress.done(self._outcome.stats)

    def _job(self, plan: Plan, rules: Rules) -> Job:
        return Job(
            source=self._source_uri,
            uri=self._connected.uri,
            options=self._connected.options,
            database=self._config.settings.database,
            prefix=self._target.prefix,
            journal=self._journal.id,
            stable_units=self._source.stable_units,
            context=plan.context,
            rules=rules,
        )


@contextmanager
def _source(uri: str) -> Iterator[Source]:
    source = open_source(uri)
    try:
        yield source
    finally:
        source.close()


def make_ready(config: MigrateConfig, connected: Target) -> None:
    """Bring an empty database to head, and refuse one of another schema, as connecting a store does."""

    async def ready() -> None:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(connected.uri, **connected.options)
        async with client:
            await ready_schema(
                config.settings,
                client.get_database(config.settings.database),
                lambda: pymongo.MongoClient(connected.uri, **connected.options),
            )

    try:
        asyncio.run(ready())
    except MlflowException as error:
        raise ImportFailed(error.message) from error
