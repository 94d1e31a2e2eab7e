"""The operations that are measured, in MLflow's own terms: the same calls for every store."""

import json
import math
import random
import struct
import uuid
from collections.abc import Callable
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag, Span, TraceInfo, TraceLocation, TraceState
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.tracing.utils import build_otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan

Call = Callable[[], object]
Between = Callable[[str, int, int], None]
EXPERIMENTS = 4
TEMPLATES = 40
START = 1_700_000_000_000
SPANS = 10
PAGES = (1, 10, 100)
# PyMongo sends the update that log_metric consists of: the difference is what the store's own code takes.
OWN_UPDATE = "log_metric beside its own update"
# In a run that was just made.
FIRST_POINT = "first point of a metric by log_metric"
# As an agent that answers one question after the other logs it, and as a server that many agents log to.
TRACE = ("trace of 10 spans", "trace of 10 spans back to back")
# A step of a training with so many metrics, all of which are there.
WIDE_STEPS = {"step of 64 known metrics": 64, "step of 1,000 known metrics": 1000}


def as_trained(step: int) -> float:
    """A loss as trainings make them: it falls, it is noisy, and it was computed with four bytes."""
    noise = math.sin(step * 12.9898) * 43758.5453 % 1
    (loss,) = struct.unpack("f", struct.pack("f", 2 * math.exp(-step / 50_000) + 0.1 * noise))
    return float(loss)


class Operations:
    """A tracking store and a registry with experiments to write to and to search."""

    START = START

    def __init__(self, store: Any, registry: Any) -> None:
        self.store = store
        self.registry = registry
        self.random = random.Random(1)
        self.numbers = random.Random(uuid.uuid4().int)
        self.step = 0
        self.tokens: dict[int, str | None] = {}
        self.trainings: dict[int, str] = {}

    def prepare(
        self, experiments: list[str] | None = None, history: str = "", points: int = 0
    ) -> dict[str, Any]:
        """Make what calls need, or join what another process of this store made."""
        self.experiments = experiments or [
            self.store.create_experiment(f"e{number}", None, []) for number in range(EXPERIMENTS)
        ]
        self.history, self.points = history, points
        # Of its own, so that what is written while others are timed does not grow what they search.
        self.scratch = self.store.create_experiment(f"scratch {uuid.uuid4().hex}", None, [])
        self.run = self.new_run()
        self.store.log_metric(self.run, Metric("loss", 0.0, 0, 0))
        return {"experiments": self.experiments}

    def new_run(self) -> str:
        tags = [RunTag("mlflow.source.name", "train.py"), RunTag("mlflow.user", "me")]
        run = self.store.create_run(self.scratch, "me", START, tags, "a run")
        run_id: str = run.info.run_id
        return run_id

    def log_point(self, run: str, step: int) -> None:
        self.store.log_metric(run, Metric("loss", step / 7, START + step, step))

    # What the sizes below are made of: filler modules copy templates in bulk.

    def run_template(self, number: int) -> tuple[str, int]:
        """A run with ten params, ten metrics and five tags; its id and start."""
        begin = START + number * 1000
        tags = [RunTag(f"tag{index}", f"v{number % (index + 5)}") for index in range(5)]
        run = self.store.create_run(
            self.experiments[number % EXPERIMENTS], "me", begin, tags, f"run {number}"
        )
        metrics = [Metric(f"m{index}", self.random.random(), begin, 0) for index in range(10)]
        params = [Param(f"p{index}", str(self.random.randrange(10))) for index in range(10)]
        self.store.log_batch(run.info.run_id, metrics, params, [])
        return run.info.run_id, begin

    def trace_template(self, number: int) -> tuple[str, int]:
        trace_id = f"tr-{uuid.uuid4().hex}"
        begin = START + number * 1000
        self.store.start_trace(self._trace_info(trace_id, begin, self.experiments[0]))
        return trace_id, begin

    def _trace_info(self, trace_id: str, begin: int, experiment: str) -> TraceInfo:
        return TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=begin,
            execution_duration=self.random.randrange(10, 5000),
            state=TraceState.OK,
            request_preview="a question of some length",
            response_preview="an answer of some length",
            tags={
                "mlflow.traceName": f"agent {self.random.randrange(5)}",
                "team": f"t{self.random.randrange(7)}",
            },
            trace_metadata={"mlflow.trace.session": f"s{self.random.randrange(1000)}"},
        )

    def fill_points(self, total: int, between: Between | None = None) -> None:
        """A new run whose metric has ``total`` points; ``between`` makes all but the ends."""
        self.history, self.points = self.new_run(), total
        starts = range(0, total, 1000)
        if between is not None and len(starts) > 2:
            between(self.history, 1000, starts[-1])
            starts = range(0, starts[-1] + 1, starts[-1])
        for first in starts:
            self._log_points(self.history, "loss", first, min(first + 1000, total))

    def _log_points(self, run: str, key: str, first: int, last: int) -> None:
        points = [Metric(key, as_trained(step), START + step, step) for step in range(first, last)]
        self.store.log_batch(run, points, [], [])

    def fill_keys(self, total: int) -> None:
        """A new run with ``total`` metrics."""
        self.wide, self.keys = self.new_run(), total
        for first in range(0, total, 1000):
            metrics = [Metric(f"key {number}", 1.0, START, 0) for number in range(first, first + 1000)]
            self.store.log_batch(self.wide, metrics, [], [])

    def fill_models(self, models: int, versions: int) -> None:
        for number in range(models):
            self.registry.create_registered_model(f"model {number}")
            for _ in range(versions):
                self.registry.create_model_version(f"model {number}", "/models/one", self.run)

    def calls(self) -> dict[str, Call]:
        return self._writes() | self._reads() | self._traces() | self._registry()

    def before(self) -> dict[str, Call]:
        """What has to be there before each call, and takes no part in its time."""

        def fresh_run() -> None:
            self.fresh = self.new_run()

        def few_keys() -> None:
            if self.keys == 0:
                self.wide = self.new_run()

        def make_trace() -> None:
            number = self.numbers.getrandbits(120)
            trace_id = f"tr-{number:032x}"
            self.made = spans_of(number, trace_id), self._trace_info(trace_id, START, self.scratch)

        def make_step(count: int) -> Call:
            def make() -> None:
                if count not in self.trainings:
                    self.trainings[count] = self.new_run()
                self.step += 1
                self.wide_step = [
                    Metric(f"w{index}", as_trained(self.step + index), START + self.step, self.step)
                    for index in range(count)
                ]

            return make

        def find_page(number: int) -> Call:
            def find() -> None:
                if number not in self.tokens:
                    self.tokens[number] = self._pages(number - 1)

            return find

        return {
            FIRST_POINT: fresh_run,
            "log_batch 50 params": fresh_run,
            "log_batch 200 metrics, 50 params, 20 tags": fresh_run,
            "log_batch 1,000 new keys": few_keys,
            **{name: make_step(count) for name, count in WIDE_STEPS.items()},
            **dict.fromkeys(TRACE, make_trace),
            **{f"page {number} by a metric": find_page(number) for number in PAGES},
        }

    def _writes(self) -> dict[str, Call]:
        store = self.store

        def next_step() -> int:
            self.step += 1
            return self.step

        def batch(metrics: int, params: int, tags: int) -> None:
            mark = self.numbers.randrange(10**9)
            store.log_batch(
                self.fresh,
                [Metric(f"m{index}", float(mark), START, 0) for index in range(metrics)],
                [Param(f"p{index}", str(mark)) for index in range(params)],
                [RunTag(f"t{index}", str(mark)) for index in range(tags)],
            )

        def step() -> None:
            number = next_step()
            metrics = [Metric(f"m{index}", number / 7, START + number, number) for index in range(3)]
            store.log_batch(self.run, metrics, [], [])

        def points() -> None:
            self._log_points(self.history, "loss", self.points, self.points + 1000)
            self.points += 1000

        def keys() -> None:
            mark = self.numbers.randrange(10**9)
            metrics = [Metric(f"k{mark} {index}", 1.0, START, 0) for index in range(1000)]
            store.log_batch(self.wide, metrics, [], [])

        return {
            "create_run": self.new_run,
            **dict.fromkeys(
                ("log_metric", "log_metric back to back", OWN_UPDATE),
                lambda: self.log_point(self.run, next_step()),
            ),
            FIRST_POINT: lambda: store.log_metric(self.fresh, Metric("loss", 1.0, START, 0)),
            "log_param": lambda: store.log_param(self.run, Param(f"p{next_step() % 100}", "value")),
            "set_tag": lambda: store.set_tag(self.run, RunTag(f"t{next_step() % 100}", f"{self.step}")),
            "update_run_info": lambda: store.update_run_info(self.run, RunStatus.RUNNING, None, "a run"),
            "log_batch 3 metrics": step,
            "log_batch 50 params": lambda: batch(0, 50, 0),
            "log_batch 200 metrics, 50 params, 20 tags": lambda: batch(200, 50, 20),
            "log_batch 1,000 points": points,
            "log_batch 1,000 new keys": keys,
            **{
                name: lambda count=count: store.log_batch(self.trainings[count], self.wide_step, [], [])
                for name, count in WIDE_STEPS.items()
            },
        }

    def _search(self, filter_string: str, order_by: list[str], everywhere: bool = False) -> Any:
        experiments = self.experiments if everywhere else self.experiments[:1]
        return self.store.search_runs(experiments, filter_string, 1, 100, order_by)

    def _page(self, token: str | None) -> Any:
        return self.store.search_runs(self.experiments, "", 1, 100, ["metrics.m3 DESC"], token)

    def _pages(self, count: int) -> str | None:
        """Turn pages; the token of the one after."""
        token = None
        for _ in range(count):
            token = self._page(token).token
        return token

    def _reads(self) -> dict[str, Call]:
        store = self.store

        def page(number: int) -> Call:
            return lambda: self._page(self.tokens[number])

        def interval() -> None:
            steps = list(range(0, self.points, max(1, self.points // 320)))[:320]
            store.get_metric_history_bulk_interval_from_steps(self.history, "loss", steps, 320)

        return {
            "get_run": lambda: store.get_run(self.run),
            "search newest 100": lambda: self._search("", []),
            "search ordered by a metric": lambda: self._search("", ["metrics.m3 DESC"]),
            "search metric and param": lambda: self._search("metrics.m1 > 0.9 and params.p2 = '7'", []),
            "search tag, all experiments": lambda: self._search("tags.tag4 = 'v3'", [], everywhere=True),
            "search metric > 0.999 ordered by it": lambda: self._search(
                "metrics.m3 > 0.999", ["metrics.m3 DESC"]
            ),
            "search metric and tag ordered by a metric": lambda: self._search(
                "metrics.m1 > 0.5 and tags.tag4 = 'v3'", ["metrics.m3 DESC"]
            ),
            "10 pages by a metric": lambda: self._pages(10),
            **{f"page {number} by a metric": page(number) for number in PAGES},
            "metric history": lambda: store.get_metric_history(self.history, "loss"),
            "bulk interval of 320 points": interval,
        }

    def _traces(self) -> dict[str, Call]:
        store, first = self.store, self.experiments[:1] if hasattr(self, "experiments") else []

        def ingest() -> None:
            spans, info = self.made
            store.log_spans(self.scratch, spans)
            store.start_trace(info)

        def metric(name: str, how: AggregationType, percent: float | None = None, **options: Any) -> Call:
            return lambda: store.query_trace_metrics(
                first, MetricViewType.TRACES, name, [MetricAggregation(how, percent)], **options
            )

        day = {"time_interval_seconds": 86_400, "start_time_ms": START, "end_time_ms": START + 10**10}
        return {
            **dict.fromkeys(TRACE, ingest),
            "search_traces newest 100": lambda: store.search_traces(first, max_results=100),
            "search_traces of a team": lambda: store.search_traces(
                first, filter_string="tags.team = 't3'", max_results=100
            ),
            "trace metrics: count": metric("trace_count", AggregationType.COUNT),
            "trace metrics: count a day by status": metric(
                "trace_count", AggregationType.COUNT, dimensions=["trace_status"], **day
            ),
            "trace metrics: average latency": metric("latency", AggregationType.AVG),
            "trace metrics: p95 latency a day": metric("latency", AggregationType.PERCENTILE, 95.0, **day),
        }

    def _registry(self) -> dict[str, Call]:
        registry = self.registry
        return {
            "get_registered_model": lambda: registry.get_registered_model("model 7"),
            "get_model_version": lambda: registry.get_model_version("model 7", "3"),
            "search_registered_models": lambda: registry.search_registered_models(max_results=100),
            "search_model_versions": lambda: registry.search_model_versions("name = 'model 7'"),
        }


def spans_of(number: int, trace_id: str) -> list[Span]:
    """A root and its children, as a client exports them."""
    found = []
    for index in range(SPANS):
        begin = (START + index) * 1_000_000
        attributes = {
            "mlflow.traceRequestId": json.dumps(trace_id),
            "mlflow.spanType": json.dumps("TOOL" if index else "AGENT"),
            "mlflow.spanInputs": json.dumps({"question": "why " * 20}),
            "mlflow.spanOutputs": json.dumps({"answer": "because " * 20}),
        }
        found.append(
            Span(
                ReadableSpan(
                    name=f"step {index}",
                    context=build_otel_context(number, index + 1),
                    parent=build_otel_context(number, 1) if index else None,
                    start_time=begin,
                    end_time=begin + 1_000_000,
                    attributes=attributes,
                    status=otel.Status(otel.StatusCode.OK),
                )
            )
        )
    return found


class Bare:
    """What a write costs at least: one acknowledged command of PyMongo's."""

    def __init__(self, uri: str) -> None:
        import pymongo

        client: Any = pymongo.MongoClient(uri, w="majority")
        database = client.get_default_database()
        self.collection, self.heads = database["floor"], database["floor_heads"]
        self.step = 0

    def before(self) -> dict[str, Call]:
        return {}

    def prepare(self, **_: Any) -> dict[str, Any]:
        read = {"params": {f"p{index}": "value" for index in range(10)}}
        for _id, document in ((0, {"value": 0}), ("read", read)):
            self.collection.replace_one({"_id": _id}, document, upsert=True)
        self.heads.create_index(
            {"experiment_id": 1, "key": 1, "latest.value": 1, "start_time": -1, "run_uuid": 1}
        )
        latest = {"step": 0, "timestamp": START, "value": 0.0}
        head = {
            "experiment_id": 1,
            "key": "loss",
            "run_uuid": "r",
            "start_time": START,
            "workspace": "default",
        }
        self.heads.replace_one({"_id": 0}, head | {"active": True, "latest": latest, "tail": []}, upsert=True)
        return {}

    def calls(self) -> dict[str, Call]:
        def update() -> None:
            self.step += 1
            self.collection.update_one({"_id": 0}, {"$set": {"value": self.step}})

        def own_update() -> None:
            """What genesis_flow sends for log_metric, to a document like its own."""
            self.step += 1
            latest = {"step": self.step, "timestamp": START + self.step, "value": self.step / 7}
            point = [latest["timestamp"], self.step, latest["value"]]
            self.heads.update_one(
                {"_id": 0, "active": True, "workspace": "default", "tail.127": {"$exists": False}},
                {"$max": {"latest": latest}, "$addToSet": {"tail": {"$each": [point]}}},
            )

        def insert() -> None:
            self.collection.insert_one({"value": 1, "tags": {"a": "b"}})

        updates = (
            "log_metric",
            "log_metric back to back",
            FIRST_POINT,
            "log_param",
            "set_tag",
            "update_run_info",
        )
        return {
            "create_run": insert,
            **dict.fromkeys(updates, update),
            OWN_UPDATE: own_update,
            "get_run": lambda: self.collection.find_one({"_id": "read"}),
        }

    def new_run(self) -> str:
        return uuid.uuid4().hex

    def log_point(self, run: str, step: int) -> None:
        self.collection.update_one({"_id": run}, {"$set": {"value": step}}, upsert=not step)
