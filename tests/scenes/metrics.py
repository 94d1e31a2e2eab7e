"""Metrics: new and known ones, and histories that fill the tail of a head and are packed into blocks."""

from mlflow.entities import Metric, Param, RunTag

from genesis_flow.areas.metrics.wide import WIDE_FROM
from tests.contract.trace_scenes import STARTED
from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call, run_id = stage.track, stage["run"]
    await call("log_metric", run_id, Metric("m", 1, STARTED, 1))
    await call("log_metric", run_id, Metric("m", 2, STARTED + 1, 2))
    await call(
        "log_batch",
        run_id,
        [*points("m", 3, 5), *points("n", 1, 5), *points("long", 1, 80)],
        [Param("q", "2"), Param("r.s", "3")],
        [RunTag("u", "x")],
    )
    await call("log_batch", run_id, points("m", 8, 3) + points("n", 6, 3), [], [])
    await call("log_batch", run_id, points("n", 9, 60), [], [])
    await call("log_batch", run_id, points("n", 69, 60), [], [])
    await call("log_metric", run_id, Metric("n", 129, STARTED + 129, 129))
    await call("log_metric", stage["second"], Metric("m", 9, STARTED, 9))
    for number in range(1, 4):
        await call("log_batch", run_id, wide(number), [], [])
    await call("log_metric", run_id, Metric("w3", 9, STARTED + 9, 9))
    await call("get_metric_history", run_id, "w3")
    await call("_fold_wide_steps", run_id)
    await call("log_batch", run_id, wide(4), [], [])
    await call("get_metric_history", run_id, "m")
    await call("get_metric_history_bulk", [run_id], "m", 10)
    await call("get_metric_history_bulk_interval", [run_id], "m", 10, 0, 5)
    await call("get_metric_history_bulk_interval_from_steps", run_id, "m", [1], 10)


def wide(step: int) -> list[Metric]:
    """A step of so many metrics that it waits, if they are there, to become part of them."""
    return [Metric(f"w{number}", number * step, STARTED + step, step) for number in range(WIDE_FROM)]


def points(key: str, start: int, count: int) -> list[Metric]:
    return [Metric(key, number, STARTED + number, number) for number in range(start, start + count)]
