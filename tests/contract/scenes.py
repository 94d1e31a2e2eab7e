"""Small things that the scenarios need again and again."""

import itertools

from mlflow.entities import RunTag

from tests.contract.pair import Pair

_start_times = itertools.count(1_700_000_000_000)

UNKNOWN_RUN = "0" * 32


class Clock:
    """The time of both stores, so that times and the orders by them are the same."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def tick(self) -> None:
        self.now += 1

    def read(self) -> int:
        return self.now


def new_run(
    pair: Pair,
    experiment_id: str = "0",
    *,
    start_time: int | None = None,
    tags: list[RunTag] | None = None,
    name: str | None = None,
) -> str:
    """A run, by default a millisecond younger than the one before; its id."""
    start = next(_start_times) if start_time is None else start_time
    run_id: str = pair.create_run(experiment_id, "someone", start, tags or [], name).info.run_id
    return run_id
