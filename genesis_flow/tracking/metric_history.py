"""Reading metric histories.

Round trips: one (the head) for a history that still fits its tail, two with blocks. A page reads only the
blocks it needs: they are ordered by their first timestamp. Reading head before blocks matters: a point on
its way from one to the other is then seen twice, which is once in a set, and never missed.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

from mlflow.entities import Metric
from mlflow.entities.metric import MetricWithRunId
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

from genesis_flow.core.errors import invalid
from genesis_flow.database.operation import Area, operation
from genesis_flow.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.documents.binding import BATCH
from genesis_flow.documents.keys import children_of, head_id
from genesis_flow.documents.points import Point, distinct, history_order, step_order, unpack
from genesis_flow.query.tokens import create_token, parse_token

# Histories read side by side when several runs are asked for.
_AT_ONCE = 8


class MetricHistory(Area):
    @operation
    async def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        if max_results is not None and max_results < 1:
            raise invalid(
                f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive "
                "integer."
            )
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
        return PagedList([_metric(metric_key, point) for point in points], token)

    @operation
    async def get_metric_history_bulk(
        self, run_ids: list[str], metric_key: str, max_results: int
    ) -> list[MetricWithRunId]:
        found: list[MetricWithRunId] = []
        limit = _limit(max_results)
        async for run_id, points in self._histories(sorted(set(run_ids)), metric_key):
            room = limit - len(found)
            found += [_with_run(run_id, metric_key, point) for point in islice(points, room)]
            if len(found) >= limit:
                break
        return found

    @operation
    async def get_metric_history_bulk_interval_from_steps(
        self, run_id: str, metric_key: str, steps: list[int], max_results: int
    ) -> list[MetricWithRunId]:
        wanted = set(steps)
        points = [point for point in await self._history(run_id, metric_key) if point[1] in wanted]
        points.sort(key=step_order)
        return [_with_run(run_id, metric_key, point) for point in points[: _limit(max_results)]]

    @operation
    async def get_metric_history_bulk_interval(
        self,
        run_ids: list[str],
        metric_key: str,
        max_results: int,
        start_step: int | None,
        end_step: int | None,
    ) -> list[MetricWithRunId]:
        if (start_step is None) != (end_step is None):
            raise MlflowException.invalid_parameter_value(
                "Both start_step and end_step must be specified together, or neither may be specified."
            )
        found: list[MetricWithRunId] = []
        async for run_id, points in self._histories(run_ids, metric_key):
            if start_step is not None and end_step is not None:
                points = [point for point in points if start_step <= point[1] <= end_step]
            points.sort(key=step_order)
            found += [_with_run(run_id, metric_key, point) for point in evenly(points, max(1, max_results))]
        return found

    async def _histories(self, run_ids: list[str], metric_key: str) -> AsyncIterator[tuple[str, list[Point]]]:
        """The histories of several runs in the order asked for, a few read side by side."""
        for start in range(0, len(run_ids), _AT_ONCE):
            some = run_ids[start : start + _AT_ONCE]
            histories = await asyncio.gather(*(self._history(run_id, metric_key) for run_id in some))
            for run_id, points in zip(some, histories, strict=True):
                yield run_id, points

    async def _history(self, run_id: str, metric_key: str) -> list[Point]:
        return [point async for batch in self._batches(run_id, metric_key, None) for point in batch]

    async def _batches(self, run_id: str, metric_key: str, after: Point | None) -> AsyncIterator[list[Point]]:
        """The history behind ``after`` in order, in pieces, each as soon as no block can add to it."""
        identity = head_id(run_id, metric_key)
        head = await self.database.collection(MetricHeadFields).find_one(
            {"_id": identity}, {"tail": 1, "packed": 1}
        )
        if head is None:
            return
        pending: list[Point] = [(int(t), int(s), v) for t, s, v in head["tail"]]
        if head["packed"]:
            query: dict[str, Any] = {"_id": children_of(identity)}
            if after is not None:
                query["last_timestamp"] = {"$gte": after[0]}
            blocks = self.database.collection(MetricBlockFields).find(
                query, sort=[("_id", 1)], batch_size=BATCH
            )
            async for block in blocks:
                first = block["first_timestamp"]
                ready = [point for point in pending if point[0] < first]
                if ready:
                    pending = [point for point in pending if point[0] >= first]
                    yield _behind(ready, after)
                pending += unpack(block)
        yield _behind(pending, after)


def evenly(points: list[Point], count: int) -> list[Point]:
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


def _behind(points: list[Point], after: Point | None) -> list[Point]:
    ordered = distinct(points)
    if after is None:
        return ordered
    return [point for point in ordered if history_order(point) > history_order(after)]


def _position(position: list[Any] | None) -> Point | None:
    if position is None:
        return None
    timestamp, step, value = position
    return timestamp, step, value


def _metric(key: str, point: Point) -> Metric:
    timestamp, step, value = point
    return Metric(key, value, timestamp, step)


def _with_run(run_id: str, key: str, point: Point) -> MetricWithRunId:
    return MetricWithRunId(run_id=run_id, metric=_metric(key, point))
