"""What the calls of training loops and of MLflow's pages cost on the wire, whatever the machine's speed.

A change that sends one more command, or many more bytes, fails here.
Who makes a call cheaper lowers its budget.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from tests.areas.test_traces import plain
from tests.commands import CommandRecorder
from tests.contract.trace_scenes import stated, trace_id

PAGE = 100
RUN_NAME = "a run"
LONG = 64_000


@dataclass(frozen=True)
class Budget:
    """The commands of a call, and kilobytes sent and received at most."""

    commands: tuple[str, ...]
    sent: float
    received: float


@dataclass
class Scene:
    """A database with enough in it that a page is a page."""

    store: MongoDBStore
    registry: MongoDBModelRegistryStore
    run: str
    wide: str = ""
    long: str = ""

    async def fill(self) -> None:
        for number in range(PAGE):
            await self.store.log_batch(
                await self.new_run(),
                [Metric(f"m{index}", number / 7, 1, 0) for index in range(5)],
                [Param(f"p{index}", str(number)) for index in range(5)],
                [],
            )
            await self.store.start_trace(stated(trace_id(1000 + number), start=number))
        self.run = await self.new_run()
        await self.store.log_batch(
            self.run, [Metric("loss", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")]
        )
        curve = [Metric("curve", 1.0, step, step) for step in range(1000)]
        await self.store.log_batch(self.run, curve, [], [])
        # In an experiment of their own, for they make pages larger.
        experiment = await self.store.create_experiment("wide")
        self.long = (await self.store.create_run(experiment, "me", 1, [], RUN_NAME)).info.run_id
        for start in range(0, LONG, 1000):
            points = [Metric("curve", step / 7, step, step) for step in range(start, start + 1000)]
            await self.store.log_batch(self.long, points, [], [])
        self.wide = (await self.store.create_run(experiment, "me", 1, [], RUN_NAME)).info.run_id
        for step in range(2):
            await _step(self, step)
        await self.registry.create_registered_model("model")
        for _ in range(5):
            await self.registry.create_model_version("model", "/models/one", self.run)
        await self.registry.set_registered_model_alias("model", "best", "3")

    async def new_run(self) -> str:
        run = await self.store.create_run("0", "me", 1_700_000_000_000, [], RUN_NAME)
        return str(run.info.run_id)


Call = Callable[[Scene], Awaitable[Any]]


async def _batch(scene: Scene) -> None:
    await scene.store.log_batch(
        scene.run,
        [Metric(f"n{index}", 1.0, 1, 0) for index in range(50)],
        [Param(f"n{index}", "value") for index in range(20)],
        [RunTag(f"n{index}", "value") for index in range(10)],
    )


def _step(scene: Scene, step: int = 2) -> Awaitable[Any]:
    metrics = [Metric(f"layer.{index}.norm", index / 7, 1_000 + step, step) for index in range(1000)]
    return scene.store.log_batch(scene.wide, metrics, [], [])


def _points(scene: Scene) -> Awaitable[Any]:
    return scene.store.log_batch(
        scene.run, [Metric("curve", 2.0, step, step) for step in range(1000)], [], []
    )


def _latency(scene: Scene) -> Awaitable[Any]:
    aggregations = [MetricAggregation(AggregationType.AVG)]
    return scene.store.query_trace_metrics(["0"], MetricViewType.TRACES, "latency", aggregations)


CALLS: dict[str, tuple[Call, Budget]] = {
    "create_run": (lambda scene: scene.new_run(), Budget(("insert", "find"), 1.2, 0.7)),
    "log_metric": (
        lambda scene: scene.store.log_metric(scene.run, Metric("loss", 0.5, 2, 1)),
        Budget(("update",), 0.7, 0.4),
    ),
    "log_param": (
        lambda scene: scene.store.log_param(scene.run, Param("q", "1")),
        Budget(("update",), 0.7, 0.4),
    ),
    "set_tag": (
        lambda scene: scene.store.set_tag(scene.run, RunTag("u", "1")),
        Budget(("update",), 0.6, 0.4),
    ),
    "update_run_info": (
        lambda scene: scene.store.update_run_info(scene.run, RunStatus.FINISHED, 2, RUN_NAME),
        Budget(("findAndModify",), 0.7, 0.8),
    ),
    "log_batch 50 metrics, 20 params, 10 tags": (
        _batch,
        Budget(("findAndModify", "insert", "commitTransaction"), 20, 1.1),
    ),
    "log_batch 1,000 points": (_points, Budget(("find", "update", "update", "commitTransaction"), 29, 1.4)),
    "log_batch, a step of 1,000 known metrics": (_step, Budget(("update",), 9, 0.4)),
    "get_run": (lambda scene: scene.store.get_run(scene.run), Budget(("aggregate",), 0.7, 8)),
    "get_experiment": (lambda scene: scene.store.get_experiment("0"), Budget(("find",), 0.6, 0.7)),
    "search newest 100": (
        lambda scene: scene.store.search_runs(["0"], "", 1, PAGE),
        Budget(("find", "aggregate"), 5.1, 109),
    ),
    "search ordered by a metric": (
        lambda scene: scene.store.search_runs(["0"], "", 1, PAGE, ["metrics.m1 DESC"]),
        Budget(("aggregate", *("find",) * 5, "aggregate"), 17, 128),
    ),
    "search by a param": (
        lambda scene: scene.store.search_runs(["0"], "params.p1 = '7'", 1, PAGE),
        Budget(("find", "aggregate"), 1, 1.5),
    ),
    "metric history": (
        lambda scene: scene.store.get_metric_history(scene.run, "curve"),
        Budget(("find", "find"), 1.1, 58),
    ),
    "30 points at given steps of a long history": (
        lambda scene: scene.store.get_metric_history_bulk_interval_from_steps(
            scene.long, "curve", list(range(500, LONG, LONG // 30)), 30
        ),
        Budget(("find",) * 4, 3.2, 28),
    ),
    "log_spans, 10 of a new trace": (
        lambda scene: scene.store.log_spans("0", plain(trace_id(1))),
        Budget(("aggregate", "insert", "findAndModify"), 9.5, 1),
    ),
    "log_spans, 10 of a trace of its own": (
        lambda scene: scene.store.log_spans("0", plain(trace_id(1000))),
        Budget(("insert", "findAndModify"), 8.5, 0.7),
    ),
    "start_trace": (
        lambda scene: scene.store.start_trace(stated(trace_id(2))),
        Budget(("aggregate", "findAndModify"), 1.5, 0.8),
    ),
    "search_traces newest 100": (
        lambda scene: scene.store.search_traces(["0"], max_results=PAGE),
        Budget(("find", "find"), 6, 41),
    ),
    "trace metrics, average": (_latency, Budget(("find", "aggregate"), 1.6, 0.6)),
    "get_registered_model": (
        lambda scene: scene.registry.get_registered_model("model"),
        Budget(("find", "find"), 1, 1.5),
    ),
    "get_model_version": (
        lambda scene: scene.registry.get_model_version("model", "3"),
        Budget(("find", "find"), 1, 1.5),
    ),
    "get_model_version_by_alias": (
        lambda scene: scene.registry.get_model_version_by_alias("model", "best"),
        Budget(("find", "find"), 1, 1.5),
    ),
    "search_model_versions": (
        lambda scene: scene.registry.search_model_versions("name = 'model'"),
        Budget(("find", "find"), 1.1, 3.2),
    ),
}


async def test_calls_stay_within_their_budgets(
    store: MongoDBStore, store_uri: str, commands: CommandRecorder
) -> None:
    scene = Scene(store, MongoDBModelRegistryStore(store_uri), "")
    await scene.fill()
    over = {}
    for name, (call, budget) in CALLS.items():
        with commands.measuring() as traffic:
            await call(scene)
        found = Budget(
            tuple(traffic.commands), round(traffic.sent / 1000, 1), round(traffic.received / 1000, 1)
        )
        if found.commands != budget.commands or found.sent > budget.sent or found.received > budget.received:
            over[name] = (budget, found)
    assert over == {}, "\n".join(
        f"{name}: {budget} allowed, {found} seen" for name, (budget, found) in over.items()
    )
