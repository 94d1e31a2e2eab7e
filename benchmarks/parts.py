"""The parts of the benchmark: each begins with empty databases and leaves rows."""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fill import TEMPLATES
from operations import WIDE_STEPS
from pauses import STEP
from processes import BARE, OURS, POSTGRESQL, SQLITE, Subject, environment
from servers import disk_of
from timing import Timing, tell

OWN_UPDATE = "log_metric beside its own update"
FIRST_POINT = "first point of a metric by log_metric"
LAST_LINE = "last line of a program that logged, to its end"
WRITES = (
    "create_run",
    "log_metric",
    OWN_UPDATE,
    "log_metric back to back",
    FIRST_POINT,
    "log_param",
    "set_tag",
    "update_run_info",
    "get_run",
    "log_batch 3 metrics",
    "log_batch 50 params",
    "log_batch 200 metrics, 50 params, 20 tags",
    "trace of 10 spans",
    "trace of 10 spans back to back",
)
REGISTRY = (
    "get_registered_model",
    "get_model_version",
    "search_registered_models",
    "search_model_versions",
)
HISTORY = ("metric history", "bulk interval of 320 points")
SEARCHES = (
    "search newest 100",
    "search ordered by a metric",
    "search metric and param",
    "search tag, all experiments",
    "search metric > 0.999 ordered by it",
    "search metric and tag ordered by a metric",
    "page 1 by a metric",
    "page 10 by a metric",
)
RUNS = ("create_run", "log_metric", "get_run", *SEARCHES, "10 pages by a metric")
DEEP = ("page 100 by a metric",)
TRACES = (
    "search_traces newest 100",
    "search_traces of a team",
    "trace metrics: count",
    "trace metrics: count a day by status",
    "trace metrics: average latency",
    "trace metrics: p95 latency a day",
)


# Sums of traces that were made within a minute of a change are not trusted (ADR 13).
REST_SECONDS = 65


@dataclass
class Rows:
    """What a part found, but for times of operations."""

    throughput: list[dict[str, Any]] = field(default_factory=list)
    disk: list[dict[str, Any]] = field(default_factory=list)
    memory: list[dict[str, Any]] = field(default_factory=list)
    start: list[dict[str, Any]] = field(default_factory=list)
    fills: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Part:
    """A part at work."""

    name: str
    options: argparse.Namespace
    found: dict[str, Subject]
    timing: Timing
    notes: list[str]
    rows: Rows = field(default_factory=Rows)

    @property
    def stores(self) -> dict[str, Subject]:
        """All but the floor, which has no runs."""
        return {name: subject for name, subject in self.found.items() if name != BARE}

    def fill(self, what: str, size: int, unit: str) -> frozenset[str]:
        """Bring the databases to a size, all at the same time; the stores that --limit leaves out."""
        left_out = frozenset(
            name for name in self.stores if size > self.options.limit.get((self.name, name), size)
        )
        self.notes += [
            f"{name} took no part at {size:,} {unit}: --limit." for name in self.stores if name in left_out
        ]
        filled = {name: subject for name, subject in self.stores.items() if name not in left_out}
        for subject in filled.values():
            subject.send(what, total=size)
        for name, subject in filled.items():
            try:
                answer = subject.answer()
            except LookupError as error:
                left_out |= {name}
                self.notes.append(f"{name} took no part at {size:,} {unit}: {error}")
                tell(self.notes[-1])
                continue
            if isinstance(answer, dict):
                subject.made |= answer
            row = {"store": name, "size": size, "unit": unit, "seconds": subject.seconds}
            self.rows.fills.append(row)
            tell(f"{size:>9,} {unit:<8} in {name} after {subject.seconds:.1f} s")
        return left_out

    def disk_of(self, name: str) -> int:
        return disk_of(name, self.found[name].uri)


def writes(part: Part) -> None:
    for operation in WRITES:
        pause = 0.0 if operation.endswith("back to back") else STEP
        others = frozenset(part.found) - {OURS, BARE} if operation == OWN_UPDATE else frozenset[str]()
        part.timing.of(operation, 0, pause=pause, without=others)


def registry(part: Part) -> None:
    for subject in part.stores.values():
        subject.ask("fill_models", models=part.options.models, versions=10)
    for operation in REGISTRY:
        part.timing.of(operation, part.options.models, "models")


def threads(part: Part) -> None:
    for count in part.options.threads:
        for name, subject in part.found.items():
            answer = subject.ask("throughput", threads=count, seconds=part.options.seconds)
            part.rows.throughput.append({"store": name, "threads": count, "processes": 1} | answer)
            tell(str(part.rows.throughput[-1]))
    count = part.options.processes
    for name, subject in part.found.items() if count else ():
        others = [subject.another() for _ in range(count)]
        for each in others:
            each.ready().ask("prepare", **subject.made)
        for each in others:
            each.send("throughput", threads=1, seconds=part.options.seconds)
        answers = [each.answer() for each in others]
        row = {"store": name, "threads": 1, "processes": count}
        row |= {key: sum(answer[key] for answer in answers) for key in ("calls", "errors")}
        part.rows.throughput.append(row | {"cpu": statistics.mean(answer["cpu"] for answer in answers)})
        tell(str(part.rows.throughput[-1]))
        for each in others:
            each.close()


def keys(part: Part) -> None:
    for operation in WIDE_STEPS:
        part.timing.of(operation, 0, pause=STEP)
    for size in part.options.keys:
        left_out = part.fill("fill_keys", size, "keys")
        part.timing.of("log_batch 1,000 new keys", size, "keys", left_out)


def history(part: Part) -> None:
    """Every size is a new run, so that the database holds the smaller ones, too."""
    for size in part.options.points:
        before = {name: part.disk_of(name) for name in part.stores}
        left_out = part.fill("fill_points", size, "points")
        for name in part.stores:
            if size and name not in left_out:
                grown = part.disk_of(name) - before[name]
                part.rows.disk.append({"store": name, "what": "points", "count": size, "bytes": grown})
        for operation in HISTORY if size else ():
            part.timing.of(operation, size, "points", left_out)
        part.timing.of("log_batch 1,000 points", size, "points", left_out)


def runs(part: Part) -> None:
    _grow(part, "runs", part.options.sizes, RUNS)


def million(part: Part) -> None:
    """Ours alone: no other store comes there in time."""
    _grow(part, "runs", part.options.million, RUNS + DEEP)


def traces(part: Part) -> None:
    _grow(part, "traces", part.options.traces, TRACES, rest=REST_SECONDS)


def _grow(part: Part, kind: str, sizes: list[int], operations: tuple[str, ...], rest: float = 0) -> None:
    """Reads at growing numbers, and by how much the databases grow."""
    part.fill(f"fill_{kind}", 0, kind)  # templates
    before = {name: (TEMPLATES, part.disk_of(name)) for name in part.stores}
    for size in sizes:
        left_out = part.fill(f"fill_{kind}", size, kind)
        for name in part.stores:
            if name not in left_out:
                count, disk = before[name]
                before[name] = (size, part.disk_of(name))
                grown = {"count": size - count, "bytes": before[name][1] - disk}
                part.rows.disk.append({"store": name, "what": kind} | grown)
        time.sleep(rest)
        for operation in operations:
            part.timing.of(operation, size, kind, left_out)


def start(part: Part) -> None:
    """New processes, one after the other, on databases that are there; the first of each is not counted."""
    commands: dict[tuple[str, str], list[str]] = {}
    same: dict[tuple[str, str], list[str]] = {}
    for name, subject in part.found.items():
        # Both SQL stores import the same, and stores of one interpreter have the same MLflow.
        imported = SQLITE if name == POSTGRESQL and SQLITE in part.found else name
        wanted = {
            ("import mlflow", subject.python): [subject.python, "-c", "import mlflow"],
            ("import the store", imported): part.found[imported].command("import"),
            ("first call", name): subject.command("first-call", *subject.made.get("experiments", [])[:1]),
            (LAST_LINE, name): subject.command("last-line"),
        }
        for key, command in wanted.items():
            if (name, key[0]) != (BARE, "import mlflow"):
                commands.setdefault(key, command)
                same.setdefault(key, []).append(name)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in commands}
    for _ in range(part.options.starts + 1):
        for key, command in commands.items():
            log = part.found[same[key][0]].log
            begin = time.time()
            ran = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=log, env=environment(), text=True
            )
            if key[0] == LAST_LINE:
                begin = float(ran.stdout.split()[-1])
            seconds[key].append(time.time() - begin)
    for key, each in seconds.items():
        found = {"step": key[0], "p50": statistics.median(each[1:]), "most": max(each[1:])}
        part.rows.start += [{"store": name} | found for name in same[key]]
        tell(f"{found} {', '.join(same[key])}")


def memory(part: Part) -> None:
    """A process that filled nothing: its peak after each step, and the processor time of the step's calls."""
    size, points = part.options.memory
    part.fill("fill_runs", size, "runs")
    part.fill("fill_points", points, "points")
    for name, filler in part.found.items():
        subject = filler.another().ready()
        subject.ask("prepare", **filler.made)
        known = set(subject.ask("names"))
        steps = (
            ("open, read a run", "get_run", 1),
            ("1,000 log_metric", "log_metric", 1000),
            ("10 pages of 100 runs", "10 pages by a metric", 1),
            (f"history of {points:,} points", "metric history", 1),
        )
        for step, operation, times in steps:
            if operation in known:
                answer = subject.ask("time", operation=operation, times=times)
                row = {"store": name, "step": step, "peak": subject.ask("memory")}
                part.rows.memory.append(row | {"cpu": answer["cpu"] * 1000 / times})
                tell(str(part.rows.memory[-1]))
        subject.close()


@dataclass(frozen=True)
class Kind:
    """What a part measures, and which stores can take part."""

    work: Callable[[Part], None]
    about: str
    stores: tuple[str, ...] = ()


PARTS = {
    "writes": Kind(writes, "single calls on a small database, each after a pause"),
    "keys": Kind(keys, "steps of 64 and 1,000 known metrics, and 1,000 new metrics of a run that has --keys"),
    "registry": Kind(registry, "reads of a registry with --models"),
    "threads": Kind(threads, "log_metric from --threads and from --processes"),
    "history": Kind(history, "histories of --points: reading, adding 1,000, disk"),
    "runs": Kind(runs, "searches and pages over --sizes, disk"),
    "traces": Kind(traces, "searches and metrics over --traces, disk"),
    "start": Kind(start, "new processes: imports, first call and end"),
    "memory": Kind(memory, "peak memory of a client that fills nothing"),
    "million": Kind(million, "genesis_flow alone over the sizes of --million; only if named", (OURS,)),
}
