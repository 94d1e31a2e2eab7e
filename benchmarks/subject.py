"""One store in a process of its own: takes orders as lines of JSON, answers with times.

``side_by_side.py`` starts it, with the interpreter of the environment in which the store is installed; it
therefore imports nothing of this project but the store itself.
"""

import contextlib
import functools
import gc
import importlib
import importlib.metadata
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pauses import work

KINDS = {
    "genesis_flow": ("genesis_flow", "MongoDBStore", "MongoDBModelRegistryStore"),
    "mlflow-mongodb": (
        "mlflow_mongodb.tracking.store:mlflow_mongodb.model_registry.store",
        "MongoDBTrackingStore",
        "MongoDBModelRegistryStore",
    ),
    "sqlite": (
        "mlflow.store.tracking.sqlalchemy_store:mlflow.store.model_registry.sqlalchemy_store",
        "SqlAlchemyStore",
        "SqlAlchemyStore",
    ),
}
KINDS["postgresql"] = KINDS["sqlite"]


def open_stores(kind: str, uri: str, artifacts: str) -> tuple[Any, Any]:
    """The tracking store and the registry."""
    modules, tracking, registry = KINDS[kind]
    first, _, second = modules.partition(":")
    store = getattr(importlib.import_module(first), tracking)(uri, artifacts)
    return store, getattr(importlib.import_module(second or first), registry)(uri)


class Answers:
    """What the process is asked to do, one method each."""

    def __init__(self, kind: str, uri: str, artifacts: str) -> None:
        self.kind = kind
        self.uri = uri
        if kind == "pymongo":
            from operations import Bare

            self.operations: Any = Bare(uri)
            return
        from operations import Operations

        store, registry = open_stores(kind, uri, artifacts)
        self.operations = Operations(store, registry)

    def names(self) -> list[str]:
        return list(self.operations.calls())

    def prepare(self, **options: Any) -> dict[str, Any]:
        """Make experiments and templates, or join those that another process made."""
        made: dict[str, Any] = self.operations.prepare(**options)
        return made

    def fill_runs(self, total: int) -> int:
        self.operations.tokens.clear()
        return int(self.filler.fill_runs(self.operations, total))

    def fill_traces(self, total: int) -> int:
        return int(self.filler.fill_traces(self.operations, total))

    def fill_points(self, total: int) -> dict[str, Any]:
        self.filler.fill_points(self.operations, total)
        return {"history": self.operations.history, "points": total}

    def fill_keys(self, total: int) -> None:
        self.operations.fill_keys(total)

    def fill_models(self, models: int, versions: int) -> None:
        self.operations.fill_models(models, versions)

    @functools.cached_property
    def filler(self) -> Any:
        import fill

        return fill.filler(self.kind, self.uri)

    def time(self, operation: str, times: int, pause: float = 0.0) -> dict[str, Any]:
        """Milliseconds of each call, processor seconds of all of them, and how much the last one found.

        Each call comes after ``pause`` milliseconds of other work, which count for nothing.
        """
        call: Callable[[], object] = self.operations.calls()[operation]
        before: Callable[[], object] | None = self.operations.before().get(operation)
        gc.collect()
        milliseconds, cpu, found = [], 0.0, None
        for _ in range(times):
            if before:
                before()
            work(pause)
            begin_cpu, begin = time.process_time(), time.perf_counter()
            found = call()
            milliseconds.append((time.perf_counter() - begin) * 1000)
            cpu += time.process_time() - begin_cpu
        return {"ms": milliseconds, "cpu": cpu, "found": len(found) if isinstance(found, list) else None}

    def throughput(self, threads: int, seconds: float) -> dict[str, float]:
        """Calls of log_metric a second, each thread with a run of its own, and calls that failed."""
        counts, errors = [0] * threads, [0] * threads
        runs = [self.operations.new_run() for _ in range(threads)]
        barrier = threading.Barrier(threads + 1)

        def work(number: int) -> None:
            barrier.wait()
            while time.perf_counter() < deadline:
                try:
                    self.operations.log_point(runs[number], counts[number])
                    counts[number] += 1
                except Exception as error:  # noqa: BLE001 - whatever a store loses a call with is counted
                    errors[number] += 1
                    print(f"{self.kind}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)

        workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(threads)]
        deadline = float("inf")
        for worker in workers:
            worker.start()
        begin, cpu = time.perf_counter(), time.process_time()
        deadline = begin + seconds
        barrier.wait()
        for worker in workers:
            worker.join()
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
        each = cpu * 1000 / max(1, sum(counts))
        return {"calls": sum(counts) / elapsed, "errors": sum(errors), "cpu": each}

    def memory(self) -> float:
        """Megabytes of this process at its peak."""
        status = Path("/proc/self/status")
        if (
            status.exists()
        ):  # what getrusage says there begins with the peak of the process that started this one
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def versions(self) -> dict[str, str]:
        """What this store runs with."""
        wanted = {
            "genesis_flow": ("mlflow-skinny", "pymongo", "beanie"),
            "mlflow-mongodb": ("mlflow-mongodb", "pymongo"),
            "sqlite": ("mlflow-skinny", "sqlalchemy"),
            "postgresql": ("mlflow-skinny", "sqlalchemy", "psycopg"),
            "pymongo": ("pymongo",),
        }[self.kind]
        return {name: importlib.metadata.version(name) for name in wanted}


def first_call(kind: str, uri: str, artifacts: str, experiment: str = "") -> None:
    """What a new process does before its first answer."""
    if kind == "pymongo":
        from pymongo import MongoClient

        if MongoClient(uri).get_default_database()["floor"].find_one({"_id": "read"}) is None:
            raise LookupError("the floor is empty")
        return
    store, _ = open_stores(kind, uri, artifacts)
    store.get_experiment(experiment)


def last_line(kind: str, uri: str) -> None:
    """A program that logs and leaves the end of its run to MLflow; that of pymongo only imports MLflow."""
    import mlflow

    if kind != "pymongo":
        mlflow.set_tracking_uri(uri)
        mlflow.start_run()
        mlflow.log_param("p", "1")
        for step in range(5):
            mlflow.log_metric("loss", 1.0, step=step)
    print(time.time(), flush=True)


def import_only(kind: str) -> None:
    if kind == "pymongo":
        importlib.import_module("pymongo")
        return
    modules, tracking, registry = KINDS[kind]
    first, _, second = modules.partition(":")
    getattr(importlib.import_module(first), tracking)
    getattr(importlib.import_module(second or first), registry)


def main() -> None:
    kind, uri, artifacts, what, *rest = sys.argv[1:]
    if what == "import":
        import_only(kind)
    elif what == "first-call":
        first_call(kind, uri, artifacts, *rest)
    elif what == "last-line":
        last_line(kind, uri)
    else:
        serve(kind, uri, artifacts)


def serve(kind: str, uri: str, artifacts: str) -> None:
    # Stores print progress; what goes to the driver must be answers only.
    answers_to = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        subject = Answers(kind, uri, artifacts)
        print(json.dumps({"ready": True}), file=answers_to, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            begin = time.perf_counter()
            try:
                answer = {"value": getattr(subject, order["do"])(**order.get("with", {}))}
            except Exception as error:  # noqa: BLE001 - a store that cannot do it is a result
                answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            answer["seconds"] = time.perf_counter() - begin
            print(json.dumps(answer), file=answers_to, flush=True)


if __name__ == "__main__":
    main()
