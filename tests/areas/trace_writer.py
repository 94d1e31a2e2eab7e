"""Somebody who changes traces in every way that there is, at random."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from mlflow.entities.trace_state import TraceState
from mlflow.entities.trace_status import TraceStatus
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from tests.contract.test_trace_ingest import tokens
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import SINCE_3_18

HOUR = 3_600_000
DAY = 24 * HOUR
NAME = "mlflow.traceName"

Step = Callable[[], Awaitable[Any]]


class TraceWriter:
    """Changes traces in every way that there is."""

    def __init__(self, store: MongoDBStore, dice: random.Random, days: int = 0) -> None:
        self.store = store
        self.dice = dice
        self.ids: list[str] = []
        self.next = 1
        self.days = days
        self.homes: dict[str, str] = {}

    def steps(self) -> list[Step]:
        return [
            *(self.log_new,) * 4,
            *(self.log_late,) * 3,
            *(self.state,) * 3,
            self.rename,
            self.unname,
            self.second_version,
            self.delete_one,
            self.delete_oldest,
        ]

    async def step(self) -> str:
        step = self.dice.choice(self.steps())
        await step()
        return step.__name__

    def new_id(self) -> str:
        self.ids.append(trace_id(self.next))
        self.next += 1
        return self.ids[-1]

    def any_id(self) -> str:
        return self.dice.choice(self.ids) if self.ids and self.dice.random() < 0.9 else self.new_id()

    def experiment(self) -> str:
        return self.dice.choice(["0", "0", "1"])

    def experiment_for(self, identifier: str) -> str:
        """Until MLflow 3.17 any; since then traces stay where they were made, perhaps by somebody else."""
        if not SINCE_3_18 or self.dice.random() < 0.1:
            return self.experiment()
        return self.homes.setdefault(identifier, self.experiment())

    def time(self) -> int:
        if self.days:
            return self.dice.randrange(self.days * DAY)
        return self.dice.choice([0, 1, 90]) * HOUR + self.dice.randrange(3 * HOUR)

    async def log(self, identifier: str) -> None:
        start = self.time()
        attributes = tokens(self.dice.randint(1, 99)) if self.dice.random() < 0.5 else {}
        spans = [
            span(
                identifier,
                self.dice.randint(1, 9),
                self.dice.choice([None, 1]),
                start=start,
                end=start + self.dice.choice([7, 2 * HOUR]),
                status=self.dice.choice(["OK", "ERROR"]),
                attributes=attributes,
            )
        ]
        await self.allowed(lambda: self.store.log_spans(self.experiment_for(identifier), spans))

    async def log_new(self) -> None:
        await self.log(self.new_id())

    async def log_late(self) -> None:
        await self.log(self.any_id())

    async def state(self) -> None:
        tags = {NAME: self.dice.choice(["alpha", "beta"])} if self.dice.random() < 0.6 else {}
        identifier = self.any_id()
        info = stated(
            identifier,
            self.experiment_for(identifier),
            start=self.time(),
            duration=self.dice.choice([None, 5, 10**10]),
            state=self.dice.choice([TraceState.OK, TraceState.ERROR]),
            tags=tags,
        )
        await self.allowed(lambda: self.store.start_trace(info))

    async def rename(self) -> None:
        await self.allowed(lambda: self.store.set_trace_tag(self.any_id(), NAME, self.dice.choice("ab")))

    async def unname(self) -> None:
        await self.allowed(lambda: self.store.delete_trace_tag(self.any_id(), NAME))

    async def second_version(self) -> None:
        begin = STARTED + self.time()
        info = await self.store.deprecated_start_trace_v2(self.experiment(), begin, {}, {})
        self.ids.append(info.request_id)
        await self.store.deprecated_end_trace_v2(
            info.request_id, begin + self.dice.randrange(99), TraceStatus.ERROR, {}, {NAME: "v2"}
        )

    async def delete_one(self) -> None:
        await self.store.delete_traces(self.experiment(), trace_ids=[self.any_id()])

    async def delete_oldest(self) -> None:
        await self.store.delete_traces(
            self.experiment(), max_timestamp_millis=STARTED + 2 * DAY, max_traces=self.dice.randint(1, 3)
        )

    async def allowed(self, call: Step) -> None:
        """A trace may be gone by now, or be elsewhere."""
        try:
            await call()
        except MlflowException as error:
            is_elsewhere = SINCE_3_18 and "already exists in another experiment" in error.message
            if not is_elsewhere and error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
