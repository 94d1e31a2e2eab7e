"""All stores beside each other in one run: every store in a process of its own, taking turns, on one machine.

python benchmarks/side_by_side.py --plugin PYTHON [--sizes 1000,10000] [--stores A,B] [--output DIR]

PYTHON is the interpreter of an environment in which mlflow-mongodb is installed: it claims mongodb:// as
we do, so it needs an environment of its own. Without it, that column is absent. PostgreSQL takes part where
it is installed.
"""

import argparse
import contextlib
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from report import write_report
from servers import disk_of, mongod, postgresql

HERE = Path(__file__).parent
OURS = "genesis_flow"
STORES = (OURS, "mlflow-mongodb", "sqlite", "postgresql", "pymongo")
# Calls in a turn: what costs little is called more often.
TURNS, CALLS, SLOW_CALLS = 5, 10, 1
SLOW = {
    "create_run + log_batch 200 metrics, 50 params, 20 tags": 2,
    "log_batch 1,000 points": 2,
    "log_batch 1,000 new keys": 1,
    "10 pages by a metric": 1,
    "trace of 10 spans": 5,
}
SEARCHES = {
    "runs": (
        "search newest 100",
        "search ordered by a metric",
        "search metric and param",
        "search tag, all experiments",
        "search metric > 0.999 ordered by it",
        "10 pages by a metric",
    ),
    "traces": (
        "search_traces newest 100",
        "search_traces of a team",
        "trace metrics: count",
        "trace metrics: count a day by status",
        "trace metrics: average latency",
        "trace metrics: p95 latency a day",
    ),
}
REGISTRY = (
    "get_registered_model",
    "get_model_version",
    "search_registered_models",
    "search_model_versions",
)
HISTORY = ("metric history", "bulk interval of 320 points")
WRITES = (
    "create_run",
    "log_metric",
    "log_param",
    "set_tag",
    "update_run_info",
    "get_run",
    "create_run + log_batch 200 metrics, 50 params, 20 tags",
    "log_batch 1,000 points",
    "log_batch 1,000 new keys",
    "trace of 10 spans",
)


class Subject:
    """A store in a process of its own."""

    def __init__(self, kind: str, uri: str, folder: Path, python: str) -> None:
        self.kind, self.uri, self.folder, self.python = kind, uri, folder, python
        self.log = (folder / f"{kind}.log").open("ab")
        self.process = subprocess.Popen(
            [python, str(HERE / "subject.py"), kind, uri, str(folder / "artifacts")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self._answer()

    def another(self) -> "Subject":
        return Subject(self.kind, self.uri, self.folder, self.python)

    def ask(self, what: str, **options: Any) -> Any:
        self.send(what, **options)
        return self._answer()

    def send(self, what: str, **options: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, "with": options}) + "\n")
        self.process.stdin.flush()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            log = (self.folder / f"{self.kind}.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{self.kind} ended:\n{log}")
        answer = json.loads(line)
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer.get("value")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


@contextlib.contextmanager
def subjects(names: list[str], plugin: str | None) -> Iterator[dict[str, Subject]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genesis-flow-bench-")))
        server = stack.enter_context(mongod(folder))
        uris = {
            OURS: server("ours"),
            "mlflow-mongodb": server("plugin"),
            "pymongo": server("floor"),
            "sqlite": f"sqlite:///{folder}/mlflow.db",
        }
        if "postgresql" in names and (uri := stack.enter_context(postgresql(folder))):
            uris["postgresql"] = uri
        found = {}
        for name in names:
            if name not in uris or (name == "mlflow-mongodb" and plugin is None):
                print(f"{name} takes no part: it is not installed here", file=sys.stderr)
                continue
            python = plugin if name == "mlflow-mongodb" and plugin else sys.executable
            found[name] = Subject(name, uris[name], folder, python)
            stack.callback(found[name].close)
        yield found


class Measurement:
    """Medians by operation, size and store."""

    def __init__(self, found: dict[str, Subject]) -> None:
        self.found = found
        self.rows: list[dict[str, Any]] = []
        self.names = {name: set(subject.ask("names")) for name, subject in found.items()}
        self.random = random.Random(1)

    def of(self, operation: str, size: int) -> None:
        """Time an operation in all stores that have it; they take turns, in changing order."""
        times: dict[str, list[float]] = {}
        cpu: dict[str, float] = {}
        calls = SLOW.get(operation, CALLS if operation in WRITES + REGISTRY else SLOW_CALLS)
        taking_part = [name for name in self.found if operation in self.names[name]]
        with contextlib.suppress(LookupError):
            for name in taking_part:
                self._time(name, operation, 1)  # the first call opens, compiles, caches
        for _ in range(TURNS):
            self.random.shuffle(taking_part)
            for name in list(taking_part):
                answer = self._time(name, operation, calls)
                if answer is None:
                    taking_part.remove(name)
                    continue
                times.setdefault(name, []).extend(answer["ms"])
                cpu[name] = cpu.get(name, 0) + answer["cpu"]
        for name, each in times.items():
            quantiles = statistics.quantiles(each, n=20) if len(each) > 1 else [each[0]] * 19
            row = {"operation": operation, "size": size, "store": name, "calls": len(each)}
            row |= {"p50": statistics.median(each), "p95": quantiles[18]}
            self.rows.append(row | {"cpu": cpu[name] * 1000 / len(each)})
        shown = ", ".join(f"{name} {statistics.median(each):.2f}" for name, each in sorted(times.items()))
        print(f"{size:>8} {operation}: {shown}", file=sys.stderr, flush=True)

    def _time(self, name: str, operation: str, calls: int) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self.found[name].ask("time", operation=operation, times=calls)
        except LookupError as error:
            print(f"{name} cannot do '{operation}': {error}", file=sys.stderr)
            self.names[name].discard(operation)
            return None
        return answer


def stores_of(found: dict[str, Subject]) -> dict[str, Subject]:
    return {name: subject for name, subject in found.items() if name != "pymongo"}


def grow(
    measurement: Measurement, kind: str, sizes: list[int], largest: dict[str, int]
) -> list[dict[str, Any]]:
    """Reads at growing numbers of runs or traces, and what the database has grown by."""
    disk = []
    before = dict.fromkeys(measurement.found, (0, 0))
    for size in sizes:
        for name, subject in stores_of(measurement.found).items():
            if size > largest.get(name, size):
                measurement.names[name] -= {
                    each for each in measurement.names[name] if each in SEARCHES[kind]
                }
                continue
            count = subject.ask(f"fill_{kind}", total=size)
            bytes_now = disk_of(name, subject.uri)
            count_before, bytes_before = before[name]
            disk.append(
                {"store": name, kind: count - count_before, "bytes": bytes_now - bytes_before}
                if count_before
                else {"store": name, kind: 0, "bytes": 0}
            )
            before[name] = (count, bytes_now)
        for operation in SEARCHES[kind]:
            measurement.of(operation, size)
    return disk


def histories(measurement: Measurement, sizes: list[int]) -> list[dict[str, Any]]:
    disk = []
    for size in sizes:
        for name, subject in stores_of(measurement.found).items():
            before = disk_of(name, subject.uri)
            subject.ask("fill_points", total=size)
            disk.append({"store": name, "points": size, "bytes": disk_of(name, subject.uri) - before})
        for operation in HISTORY:
            measurement.of(operation, size)
    return disk


def throughput(found: dict[str, Subject], threads: list[int], seconds: float) -> list[dict[str, Any]]:
    rows = []
    for count in threads:
        for name, subject in found.items():
            rows.append({"store": name, "threads": count, "processes": 1})
            rows[-1] |= subject.ask("throughput", threads=count, seconds=seconds)
            print(rows[-1], file=sys.stderr, flush=True)
    for name, subject in found.items():
        others = [subject.another() for _ in range(4)]
        for each in others:
            each.ask("prepare", experiments=None if name == "pymongo" else subject.experiments)  # type: ignore[attr-defined]
        for each in others:
            each.send("throughput", threads=1, seconds=seconds)
        answers = [each._answer() for each in others]
        rows.append({"store": name, "threads": 1, "processes": 4})
        rows[-1] |= {key: sum(answer[key] for answer in answers) for key in ("calls", "errors")}
        print(rows[-1], file=sys.stderr, flush=True)
        for each in others:
            each.close()
    return rows


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",") if each]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plugin", metavar="PYTHON", help="an interpreter with mlflow-mongodb")
    parser.add_argument("--stores", default=",".join(STORES), help="which of the stores")
    parser.add_argument("--sizes", type=numbers, default=[1_000, 10_000], help="runs to search")
    parser.add_argument("--traces", type=numbers, default=[1_000, 10_000], help="traces to search")
    parser.add_argument("--points", type=numbers, default=[1_000, 100_000], help="points of one metric")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="STORE=SIZE", help="a store's largest size"
    )
    parser.add_argument("--threads", type=numbers, default=[1, 4, 16, 64])
    parser.add_argument("--no-writes", dest="writes", action="store_false", help="time no single writes")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a throughput measurement")
    parser.add_argument("--models", type=int, default=100, help="registered models, with ten versions each")
    parser.add_argument("--output", type=Path, help="folder for the report; else only JSON is printed")
    arguments = parser.parse_args()
    largest = {name: int(size) for name, size in (each.split("=") for each in arguments.limit)}
    with subjects(arguments.stores.split(","), arguments.plugin) as found:
        measurement = Measurement(found)
        for subject in found.values():
            subject.experiments = subject.ask("prepare").get("experiments")  # type: ignore[attr-defined]
        for subject in stores_of(found).values():
            # Templates first: they are found by looking at everything that is there.
            subject.ask("fill_runs", total=0)
            subject.ask("fill_traces", total=0)
            subject.ask("fill_models", models=arguments.models, versions=10)
        for operation in WRITES if arguments.writes else ():
            measurement.of(operation, 0)
        for operation in REGISTRY:
            measurement.of(operation, arguments.models)
        rates = throughput(found, arguments.threads, arguments.seconds)
        disk = histories(measurement, arguments.points)
        disk += grow(measurement, "runs", arguments.sizes, largest)
        disk += grow(measurement, "traces", arguments.traces, largest)
        result = {
            "machine": f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
            "command": "python " + " ".join(["benchmarks/side_by_side.py", *_public(sys.argv[1:])]),
            "operations": measurement.rows,
            "throughput": rates,
            "disk": disk,
            "memory": {name: subject.ask("memory") for name, subject in found.items()},
        }
    if arguments.output:
        write_report(result, arguments.output)
    else:
        print(json.dumps(result, indent=2))


def _public(arguments: list[str]) -> list[str]:
    """The command without folders of this machine."""
    return [Path(each).name if each.startswith("/") else each for each in arguments]


if __name__ == "__main__":
    main()
