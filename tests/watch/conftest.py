"""A store to write with, and watches of which a test takes what it expects."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from mlflow.entities import Metric

from genesis_flow.aio import MongoDBStore
from genesis_flow.watching import Event, MetricLogged, RunChanged, Watch

# Only guards against hanging.
PATIENCE = 150.0

Points = Counter[tuple[str, str, int, int, float]]


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


async def until(watch: Watch, is_last: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first that is the last."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        async for event in watch:
            events.append(event)
            if is_last(event):
                return events
    raise AssertionError(f"the watch ended after {events[-3:]}")


def logs(key: str) -> Callable[[Event], bool]:
    """Whether an event has points of this metric, which a test logs last of all."""
    return lambda event: isinstance(event, MetricLogged) and event.key == key


def tags(key: str, value: str) -> Callable[[Event], bool]:
    """Whether an event says that a run got this tag."""
    return lambda event: isinstance(event, RunChanged) and event.tags.get(key) == value


def points_of(events: Iterable[Event]) -> Points:
    """How often each point was told."""
    return Counter(
        (event.run_id, event.key, *point)
        for event in events
        if isinstance(event, MetricLogged)
        for point in event.points
    )


async def stored(store: MongoDBStore, run_id: str, *keys: str) -> Points:
    """Each point that was logged, once."""
    histories = {key: await store.get_metric_history(run_id, key) for key in keys}
    return Counter(
        (run_id, key, point.timestamp, point.step, point.value)
        for key, points in histories.items()
        for point in points
    )


async def new_run(store: MongoDBStore, name: str = "a run", experiment: str = "0") -> str:
    return str((await store.create_run(experiment, run_name=name)).info.run_id)


async def log(store: MongoDBStore, run_id: str, key: str, steps: Iterable[int], **more: Any) -> None:
    for step in steps:
        await store.log_metric(run_id, Metric(key, float(step), step, step))
