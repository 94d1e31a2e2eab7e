"""Reading metric histories.

Round trips: one (the head, and what waits before it) for a history that still fits its tail, two or three
with blocks, two more for a curve of settled ones; some more when steps are looked for in it. A page reads
only the blocks it needs: they are ordered by their first timestamp. Reading what waits before the head and
the head before blocks matters: a point on its way from one to the other is then seen twice, which is once in
a set, and never missed.
"""

import asyncio
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from bson.regex import Regex
from mlflow.entities import Metric
from mlflow.entities.metric import MetricWithRunId
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

from genesis_flow.areas.experiments.guards import require_visible_runs
from genesis_flow.areas.metrics.blocks import in_time
from genesis_flow.areas.metrics.curves import SettledCurve, WholeCurve, read_curve
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE, WAITING, place_id, waiting_points
from genesis_flow.areas.metrics.points import Curve, Point, distinct, history_order, merged
from genesis_flow.core.errors import invalid
from genesis_flow.core.memory import collector_paused
from genesis_flow.documents.keys import head_id
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, direct, operation
from genesis_flow.search.tokens import create_token, parse_token

T = TypeVar("T")

# Histories read side by side when several runs are asked for.
_AT_ONCE = 8


class MetricHistory(Area):
    @direct
    @operation
    async def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        """All points of a metric of a run, or a page of them."""
        if max_results is not None and max_results < 1:
            raise invalid(
                f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive "
                "integer."
            )
        await require_visible_runs(self.database, run_id)
        question = [run_id, metric_key]
        after = _position(parse_token(page_token, question, (int, int, float)))
        points: list[Point] = []
        async for batch in self._batches(run_id, metric_key, after):
            points += batch
            if max_results is not None and len(points) > max_results:
                break
        token = None
        if max_results is not None and len(points) > max_results:
            points = points[:max_results]
            token = create_token(question, list(points[-1])) if points else page_token
        with collector_paused():
            metrics = [Metric(metric_key, value, time, step) for time, step, value in points]
        return PagedList(metrics, token)

    @operation
    async def get_metric_history_bulk(
        self, run_ids: list[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        """Points of a metric of several runs, at most so many in all."""
        history: list[MetricWithRunId] = []
        limit = _limit(max_results)
        async for run_id, points in self._of_each(sorted(set(run_ids)), metric_key, self._history):
            room = limit - len(history)
            with collector_paused():
                history += [_with_run(run_id, metric_key, point) for point in islice(points, room)]
            if len(history) >= limit:
                break
        return history

    @operation
    async def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: list[int], max_results: int
    ) -> list[MetricWithRunId]:
        """The points of a metric of a run at given steps."""
        await require_visible_runs(self.database, run_id)
        curve = await self._curve(run_id, metric_key)
        at_steps = await curve.between([(step, step) for step in sorted(set(steps))])
        chosen = islice(chain.from_iterable(at_steps), _limit(max_results))
        return [_with_run(run_id, metric_key, point) for point in await curve.points(chosen)]

    @operation
    async def get_metric_history_bulk_interval(
        self,
        run_ids: list[str],
        metric_key: str,
        max_results: int,
        start_step: int | None,
        end_step: int | None,
    ) -> list[MetricWithRunId]:
        """Points of a metric of each run between two steps, evenly thinned where there are too many."""
        if (start_step is None) != (end_step is None):
            raise MlflowException.invalid_parameter_value(
                "Both start_step and end_step must be specified together, or neither may be specified."
            )
        await require_visible_runs(self.database, *run_ids)

        async def thinned(run_id: str, key: str) -> list[Point]:
            curve = await self._curve(run_id, key)
            indexes = range(len(curve))
            if start_step is not None and end_step is not None:
                (indexes,) = await curve.between([(start_step, end_step)])
            return await curve.points(evenly(indexes, max(1, max_results)))

        return [
            _with_run(run_id, metric_key, point)
            async for run_id, points in self._of_each(run_ids, metric_key, thinned)
            for point in points
        ]

    async def _of_each(
        self, run_ids: list[str], metric_key: str, read: Callable[[str, str], Awaitable[T]]
    ) -> AsyncIterator[tuple[str, T]]:
        """What is read of several runs, in the order asked for, a few side by side."""
        for start in range(0, len(run_ids), _AT_ONCE):
            portion = run_ids[start : start + _AT_ONCE]
            for run_id, made in zip(
                portion, await asyncio.gather(*(read(run_id, metric_key) for run_id in portion)), strict=True
            ):
                yield run_id, made

    async def _history(self, run_id: str, metric_key: str) -> list[Point]:
        return [point async for batch in self._batches(run_id, metric_key, None) for point in batch]

    async def _curve(self, run_id: str, metric_key: str) -> WholeCurve | SettledCurve:
        identity = head_id(run_id, metric_key)
        tail, has_blocks = await self._tail(run_id, metric_key)
        if not has_blocks:
            return WholeCurve(Curve([], tail))
        return await read_curve(self.database.reading(MetricBlockFields), identity, tail)

    async def _batches(self, run_id: str, metric_key: str, after: Point | None) -> AsyncIterator[list[Point]]:
        """The history behind ``after`` in order, in pieces, each as soon as no block can add to it."""
        identity = head_id(run_id, metric_key)
        tail, has_blocks = await self._tail(run_id, metric_key)
        pending = distinct(tail)
        if has_blocks:
            blocks = self.database.reading(MetricBlockFields)
            async for begin, points in in_time(blocks, identity, None if after is None else after[0]):
                ready = bisect_left(pending, begin, key=_time)
                if ready:
                    yield _behind(pending[:ready], after)
                pending = merged(pending[ready:], points)
        yield _behind(pending, after)

    async def _tail(self, run_id: str, metric_key: str) -> tuple[list[Point], bool]:
        """The points that are not packed, and whether others are."""
        query: dict[str, Any] = {"_id": head_id(run_id, metric_key)}
        if not self.database.documents.portable:
            # One walk along the index, which comes by places first: branches of an $or have no order.
            query = {
                "_id": {"$in": [Regex("^" + re.escape(place_id(run_id, ""))), query["_id"]]},
                "$or": [{"key": metric_key}, {"keys": metric_key}],
            }
        found = self.database.reading(MetricHeadFields).find(
            query, {"key": 1, "tail": 1, "packed": 1, **WAITING}, sort=[("_id", 1)], batch_size=BATCH
        )
        points: list[Point] = []
        has_blocks = False
        for document in await found.to_list():
            if document["key"] == PLACE:
                points += waiting_points(document, metric_key)
            else:
                points += [(int(time), int(step), value) for time, step, value in document["tail"]]
                has_blocks = bool(document["packed"])
        return points, has_blocks


def evenly(points: Sequence[T], count: int) -> Sequence[T]:
    """At most ``count`` of the ordered ``points``: the first of each of ``count`` even groups, and the last.

    As SQL's NTILE the first groups are the larger ones where they cannot all be the same.
    """
    if len(points) <= count:
        return points
    size, larger = divmod(len(points), count)
    starts = [group * size + min(group, larger) for group in range(count)]
    # The first point of the last group gives way to the last point of all, the end of the curve.
    return [points[start] for start in starts[:-1]] + [points[-1]]


def _limit(max_results: int | None) -> int:
    return sys.maxsize if max_results is None else max(0, max_results)


def _time(point: Point) -> int:
    return point[0]


def _behind(points: list[Point], after: Point | None) -> list[Point]:
    if after is None:
        return points
    return points[bisect_right(points, history_order(after), key=history_order) :]


def _position(position: list[Any] | None) -> Point | None:
    if position is None:
        return None
    timestamp, step, value = position
    return timestamp, step, value


def _with_run(run_id: str, key: str, point: Point) -> MetricWithRunId:
    timestamp, step, value = point
    return MetricWithRunId(run_id=run_id, metric=Metric(key, value, timestamp, step))
