"""Logging metrics, and batches of metrics, params and tags.

Round trips: log_metric one. log_batch with params and tags alone, or with points of one known metric: one;
with more metrics two (the points and the commit), with many and nothing else one (``wide.py``). The first
time that metrics of a run appear three (the run, the heads, the commit), if this store has made the run and
written none of them; else four to six. Blocking callers send the ways of one command and of three themselves.
Metrics that name a logged model: two more, one before (is the model there) and one behind (its points).

A point is appended to the tail of its metric's head, which also keeps the latest point and a copy of
whether the run is active, so that one update checks and writes. A tail that has grown to TAIL_LIMIT points
is packed into a block. Many points of one metric at once go to a block directly. Each SETTLE_EVERY times that
points of a metric went to blocks, its blocks are settled (settling.py).
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from pymongo import ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError

from genesis_flow.areas.experiments.guards import CHILD_FIELDS, active, find_active_run, find_run
from genesis_flow.areas.logged_models.metrics import experiments_of_models, write_model_metrics
from genesis_flow.areas.metrics.documents import (
    BLOCK_FROM,
    MetricBlockFields,
    MetricHeadFields,
)
from genesis_flow.areas.metrics.heads import (
    LAST_OF_TAIL,
    Points,
    append,
    appends,
    blocks_of,
    may_settle,
    new_heads,
    of_run,
    take_back_from_erased,
    tidy,
)
from genesis_flow.areas.metrics.points import distinct
from genesis_flow.areas.metrics.wide import WideSteps, fold_all
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.params_tags import param_update, refuse_changed_params, tag_update, within_limit
from genesis_flow.compat.validation import (
    validate_batch_log_data,
    validate_batch_log_limits,
    validate_metric,
    validate_param_keys_unique,
    validate_run_id,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import head_id
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import (
    Area,
    direct,
    direct_joined,
    is_repetition,
    long_mutation,
    mutation,
)
from genesis_flow.mongo.waiting import meanwhile
from genesis_flow.mongo.writes import only_duplicates


class Metrics(WideSteps, Area):
    @property
    def _metric_heads(self) -> Collection:
        return self.database.collection(MetricHeadFields)

    @property
    def _metric_blocks(self) -> Collection:
        return self.database.collection(MetricBlockFields)

    @direct_joined
    @mutation
    async def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one point of a metric of an active run."""
        try:
            validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
        except MlflowException:
            if metric.model_id is not None:  # of a model's metric MLflow looks at the run first
                await find_active_run(self.database, run_id)
            raise
        models = await experiments_of_models(self.database, [metric])
        points = _by_key([metric])
        (update,) = appends(run_id, points)
        if self._known_metrics.has_none(run_id, points) or not (
            await self.database.joined(MetricHeadFields).update_one(*update)
        ):
            await self._log_batch(run_id, points, [], [])
        # Behind the run's, which tells whether the run may be written; both are safe to repeat.
        await write_model_metrics(self.database, run_id, [metric], models)

    def _valid_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> tuple[list[Metric], list[Param], list[RunTag]]:
        validate_run_id(run_id)
        checked = _checked(metrics, params, tags)
        validate_batch_log_limits(*checked)
        validate_param_keys_unique(checked[1])
        return checked[0], within_limit(checked[1], self.settings.max_param_value_length), checked[2]

    @direct
    @mutation
    async def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Log metrics, params and tags of a run at once: all or, where there are transactions, none."""
        metrics, params, tags = self._valid_batch(run_id, metrics, params, tags)
        models = await experiments_of_models(self.database, metrics)
        keys = dict.fromkeys(metric.key for metric in metrics).keys()
        is_wide = not (models or params or tags) and self._is_wide(run_id, keys, len(metrics))
        if is_wide and await self._log_step(run_id, metrics, keys):
            return
        points = _by_key(metrics)
        small = all(len(each) < BLOCK_FROM for each in points.values())
        known = self._known_metrics.has_all(run_id, points)
        likely_known = points and small and not params and not tags and known
        if not (likely_known and await self._append_to_known(run_id, points)):
            await self._log_batch(run_id, points, params, tags)
        await write_model_metrics(self.database, run_id, metrics, models)

    @long_mutation
    async def _fold_wide_steps(self, run_id: str) -> None:
        """Make the wide steps of a run that wait part of its metrics, as the end of the run does."""
        await find_run(self.database, run_id, {"_id": 1})
        await fold_all(self.database, run_id)

    async def _append_to_known(self, run_id: str, points: Points) -> bool:
        """Append to heads that are believed to be there; False, and nothing written, if one is not."""
        updates = [UpdateOne(query, change) for query, change in appends(run_id, points)]

        async def write(session: Session | None) -> bool:
            result = await self._metric_heads.bulk_write(updates, ordered=False, session=session)
            if result.matched_count == len(updates):
                return True
            if session is not None:
                await session.abort_transaction()
            return False

        if len(updates) == 1:
            return await write(None)
        async with self.database.lock(run_id):
            return await self.database.atomically(write)

    async def _log_batch(self, run_id: str, points: Points, params: list[Param], tags: list[RunTag]) -> None:
        """Write everything or nothing, whatever is there already."""
        if not points:
            await self._write_run(run_id, params, tags, new_metrics=0, session=None)
            return
        due: list[str] | None = None
        alone = False

        async def write(session: Session | None) -> list[str] | None:
            nonlocal alone
            alone = session is None
            heads = [] if are_new else await self._heads_of(run_id, points, session)
            return await self._write_batch(run_id, points, heads, params, tags, session)

        async with self.database.lock(run_id):
            are_new = not is_repetition() and self._known_metrics.has_none(run_id, points)
            while due is None:
                try:
                    due = await self.database.atomically(write)
                except BulkWriteError as error:
                    if not only_duplicates(error):
                        raise
                    # Another client made the same metric's head first: it is there now.
                    are_new = False
                except MlflowException:
                    if alone:
                        blocks = [block["_id"] for block in blocks_of(run_id, points)]
                        await take_back_from_erased(self.database, run_id, points, blocks)
                    raise
            self._known_metrics.add(run_id, points)
        for key in due:
            await tidy(self.database, run_id, key)

    async def _heads_of(
        self, run_id: str, keys: Iterable[str], session: Session | None
    ) -> list[dict[str, Any]]:
        """The heads of metrics that are there, with a tail only where it is full."""
        return await self._metric_heads.find(
            {"_id": {"$in": [head_id(run_id, key) for key in keys]}},
            {"key": 1, "active": 1, "packed": 1, "tail": LAST_OF_TAIL},
            session=session,
        ).to_list()

    async def _write_batch(
        self,
        run_id: str,
        points: Points,
        heads_before: list[dict[str, Any]],
        params: list[Param],
        tags: list[RunTag],
        session: Session | None,
    ) -> list[str] | None:
        """The steps of a batch, in the order in which a repetition finds them; its heads were read before.

        Returns the metrics with a full tail or with many blocks by now, or None if it must be repeated:
        without a transaction the run may have been deleted or restored between reading the heads and writing
        them.
        """
        known = {head["key"]: head["active"] for head in heads_before}
        new = [key for key in points if key not in known]
        heads: list[dict[str, Any]] = []
        if params or tags or new:
            run, heads = await meanwhile(
                self._write_run(run_id, params, tags, new_metrics=len(new), session=session),
                lambda: new_heads(run_id, points, new),
            )
        elif not all(known.values()):
            run = await find_active_run(self.database, run_id, session=session)
        if blocks := blocks_of(run_id, points):
            await self._metric_blocks.bulk_write(
                [ReplaceOne({"_id": block["_id"]}, block, upsert=True) for block in blocks],
                ordered=False,
                session=session,
            )
        if new:
            try:
                await self._metric_heads.insert_many(of_run(heads, run), ordered=False, session=session)
            finally:
                # Without a transaction the run may have been deleted meanwhile, and its heads with it.
                if session is None:
                    await self._check_heads_of_active_run(run_id, new)
        if known:
            updates = [
                UpdateOne(
                    {"_id": head_id(run_id, key), "active": is_active},
                    append(points[key], heal=not is_active),
                )
                for key, is_active in known.items()
            ]
            result = await self._metric_heads.bulk_write(updates, ordered=False, session=session)
            if result.matched_count < len(updates):
                return None
        return [
            head["key"]
            for head in heads_before
            if head["tail"]
            or (len(points[head["key"]]) >= BLOCK_FROM and may_settle(head["key"], head["packed"] + 1))
        ]

    async def _write_run(
        self,
        run_id: str,
        params: list[Param],
        tags: list[RunTag],
        *,
        new_metrics: int,
        session: Session | None,
    ) -> dict[str, Any]:
        """Log params and tags, all of them or none; returns what a metric's head copies from the run."""
        conditions, change = _run_change(params, tags, new_metrics=new_metrics)
        if not change:
            return await find_active_run(self.database, run_id, session=session)
        runs = self.database.collection(RunFields)
        while True:
            run = await runs.find_one_and_update(
                {**active(run_id), **conditions}, change, CHILD_FIELDS, session=session
            )
            if run is not None:
                return run
            active_run = await find_active_run(
                self.database, run_id, {"lifecycle_stage": 1, "params": 1}, session=session
            )
            refuse_changed_params(run_id, active_run, params)

    async def _check_heads_of_active_run(self, run_id: str, keys: list[str]) -> None:
        try:
            await find_active_run(self.database, run_id)
        except MlflowException:
            ids = [head_id(run_id, key) for key in keys]
            await self._metric_heads.update_many({"_id": {"$in": ids}}, {"$set": {"active": False}})
            raise


def _run_change(
    params: list[Param], tags: list[RunTag], *, new_metrics: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must hold for a batch to be logged, and how it changes the run.

    Counting the new metrics makes a transaction that adds one conflict with one that deletes the run.
    """
    conditions, fields = param_update(params)
    change: dict[str, Any] = {"$inc": {"metric_keys": new_metrics}} if new_metrics else {}
    if fields := {**fields, **tag_update(tags)}:
        change["$set"] = fields
    return conditions, change


def _checked(
    metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
) -> tuple[list[Metric], list[Param], list[RunTag]]:
    """What MLflow makes of a batch, or its error.

    It looks at the name of each point anew: most of the time of a batch of many points of a few metrics.
    """
    if all(map(_is_plain, metrics)) and all(map(_is_name, {metric.key for metric in metrics})):
        _, checked_params, checked_tags = validate_batch_log_data([], params, tags)
        return [*metrics], checked_params, checked_tags
    checked: tuple[list[Metric], list[Param], list[RunTag]] = validate_batch_log_data(metrics, params, tags)
    return checked


def _is_plain(metric: Metric) -> bool:
    return (
        type(metric.key) is str
        and (isinstance(metric.value, float) or type(metric.value) is int)
        and type(metric.timestamp) is int
        and metric.timestamp >= 0
        and type(metric.step) is int
    )


@functools.lru_cache(maxsize=4096)
def _is_name(key: str) -> bool:
    try:
        validate_metric(key, 0.0, 0, 0)
    except MlflowException:
        return False
    return True


def _by_key(metrics: list[Metric]) -> Points:
    points: Points = {}
    for metric in metrics:
        try:
            point = (int(metric.timestamp), int(metric.step), float(metric.value))
        except (ArithmeticError, TypeError, ValueError) as error:  # MLflow lets infinite times pass, for one
            raise invalid(
                f"Metric '{metric.key}' cannot be logged: {error}. Its value must be a real number, its "
                "timestamp and step whole ones."
            ) from error
        if (known := points.get(metric.key)) is None:
            points[metric.key] = [point]
        else:
            known.append(point)
    return {key: distinct(each) if len(each) > 1 else each for key, each in points.items()}
