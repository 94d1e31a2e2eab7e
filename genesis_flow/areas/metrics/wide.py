"""Steps of many metrics: one update of a place, in which they wait; see ADR 36.

Round trips: one. Five the first time that metrics which are there come together (what places the run has,
three for the transaction that makes one, the step), six if another store wrote them. Nine when the place
is full (the step does not fit; the place is read, its rows go to blocks and heads, these are looked at, it is
emptied; the step).

A row is appended to a place with the update that checks whether the run is active, as a point is to a head.
Rows become part of the blocks and heads of their metrics, in this order, before they leave the place:
whatever is cut short, or done by several at once, is done again and changes nothing.
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from uuid import uuid4

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from genesis_flow.areas.experiments.guards import CHILD_FIELDS, active, find_active_run
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.heads import LAST_OF_TAIL, may_settle, take_back_from_erased, tidy
from genesis_flow.areas.metrics.places import (
    KEYS,
    PLACE,
    ROWS,
    fold_of,
    place_id,
    places_of,
    row_of,
)
from genesis_flow.areas.metrics.remembered import KnownPlace, MetricMemory
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.keys import head_id
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database, Session
from genesis_flow.mongo.operation import Area
from genesis_flow.mongo.scoping import current_workspace
from genesis_flow.mongo.waiting import prefer_loop
from genesis_flow.mongo.writes import insert_missing

# From so many metrics on a step is a wide one, unless it has many points of each.
WIDE_FROM = 16
_POINTS_OF_EACH = 8
# Metrics that are tidied side by side.
_AT_ONCE = 8


class WideSteps(MetricMemory, Area):
    def _is_wide(self, run_id: str, keys: AbstractSet[str], points: int) -> bool:
        """Whether points of these metrics make a wide step of metrics that may all be there."""
        return (
            len(keys) >= WIDE_FROM
            and points <= _POINTS_OF_EACH * len(keys)
            and not self.settings.portable
            and not self._known_metrics.has_none(run_id, keys)
        )

    def _append_to_place(
        self, run_id: str, metrics: Sequence[Metric], keys: AbstractSet[str]
    ) -> tuple[Document, Document] | None:
        """The update that appends a wide step to the place that is known to have its metrics."""
        place = self._known_places.having(run_id, keys)
        row = row_of(place.indexes, metrics) if place else None
        if place is None or row is None:
            return None
        room = {
            "_id": place.id,
            "active": True,
            "workspace": current_workspace(),
            f"rows.{ROWS - 1}": {"$exists": False},
        }
        return room, {"$push": {"rows": row}, "$currentDate": {"written": True}}

    async def _log_step(self, run_id: str, metrics: Sequence[Metric], keys: AbstractSet[str]) -> bool:
        """Log a wide step; False, and nothing written, if it is none of metrics that are there."""
        if await self._is_appended(run_id, metrics, keys):
            return True
        if row_of(dict.fromkeys(keys, 0), metrics) is None:
            return False
        async with self.database.lock(run_id):
            while not await self._is_appended(run_id, metrics, keys):
                places = await self._read_places(run_id)
                place = next((each for each in places if keys <= {*each["keys"]}), None)
                if place is None:
                    if not await self._make_place(run_id, keys, places):
                        return False
                elif place["rows"]:
                    await fold(self.database, place["_id"], at_least=ROWS)
            return True

    async def _is_appended(self, run_id: str, metrics: Sequence[Metric], keys: AbstractSet[str]) -> bool:
        update = self._append_to_place(run_id, metrics, keys)
        if update is None:
            return False
        heads = self.database.collection(MetricHeadFields)
        return bool((await heads.update_one(*update)).matched_count)

    async def _read_places(self, run_id: str) -> list[Document]:
        """The places of an active run, with a row only where they are full. They alone are remembered."""
        query = {"_id": places_of(run_id), "active": True, "workspace": current_workspace()}
        fields = {"keys": 1, "rows": {"$slice": [ROWS - 1, 1]}}
        heads = self.database.collection(MetricHeadFields)
        places = await heads.find(query, fields, batch_size=BATCH).to_list()
        self._remember(run_id, places)
        return places

    def _remember(self, run_id: str, places: list[Document]) -> None:
        known = [KnownPlace(each["_id"], {key: n for n, key in enumerate(each["keys"])}) for each in places]
        self._known_places.replace(run_id, known)

    async def _make_place(self, run_id: str, keys: AbstractSet[str], places: list[Document]) -> bool:
        """Make a place for metrics, or widen one; False if some of them are new.

        The run must be active, but whoever widens a place of others may find it gone: the caller looks again.
        """
        if not (self._known_metrics.has_all(run_id, keys) or await self._are_there(run_id, keys)):
            return False
        for place in places:
            if len(keys | {*place["keys"]}) <= KEYS:
                await self._widen(place, keys)
                break
        else:
            self._remember(run_id, [*places, await self._open(run_id, keys)])
        self._known_metrics.add(run_id, keys)
        return True

    async def _are_there(self, run_id: str, keys: AbstractSet[str]) -> bool:
        ids = [head_id(run_id, key) for key in keys]
        heads = self.database.collection(MetricHeadFields).find(
            {"_id": {"$in": ids}, "workspace": current_workspace()}, {"_id": 1}, batch_size=BATCH
        )
        return len(await heads.to_list()) == len(ids)

    async def _widen(self, place: Document, keys: AbstractSet[str]) -> None:
        """Add metrics to a place, unless others have added some since it was read."""
        unchanged = {"_id": place["_id"], "active": True, "keys": {"$size": len(place["keys"])}}
        others = [key for key in keys if key not in {*place["keys"]}]
        await self.database.collection(MetricHeadFields).update_one(
            unchanged, {"$push": {"keys": {"$each": others}}}
        )

    async def _open(self, run_id: str, keys: AbstractSet[str]) -> Document:
        """Make a place in an active run, or raise what MLflow says of a run that is not."""
        heads = self.database.collection(MetricHeadFields)
        runs = self.database.collection(RunFields)

        async def write(session: Session | None) -> Document:
            # The count makes this conflict with a deletion of the run, as new metrics do.
            count = {"$inc": {"places": 1}}
            while not (
                run := await runs.find_one_and_update(active(run_id), count, CHILD_FIELDS, session=session)
            ):
                # Says what is wrong, unless the run was restored just now.
                await find_active_run(self.database, run_id, session=session)
            place = _new_place(run, keys)
            await heads.insert_one(place, session=session)
            if session is None:
                await self._check_place_of_active_run(run_id, place)
            return place

        return await self.database.atomically(write)

    async def _check_place_of_active_run(self, run_id: str, place: Document) -> None:
        """Without a transaction the run may have been deleted meanwhile, and its heads with it."""
        try:
            await find_active_run(self.database, run_id)
        except MlflowException:
            heads = self.database.collection(MetricHeadFields)
            await heads.update_one({"_id": place["_id"]}, {"$set": {"active": False}})
            # Others may have found it, and written to it, in the moment that it was there.
            await heads.delete_one({"_id": place["_id"], "rows": {"$size": 0}})
            raise


def _new_place(run: Document, keys: AbstractSet[str]) -> Document:
    return {
        "_id": place_id(run["_id"], uuid4().hex),
        "workspace": current_workspace(),
        "run_uuid": run["_id"],
        "key": PLACE,
        "experiment_id": run["experiment_id"],
        "start_time": run.get("start_time"),
        "active": True,
        "keys": list(keys),
        "rows": [],
        "folded": 0,
        "written": datetime.now(UTC),
    }


async def fold(database: Database, place: str, *, at_least: int = 1) -> None:
    """Make the rows of a place part of heads and blocks, if it has so many.

    Others may do the same, or add rows, meanwhile: what they add is folded as well.
    """
    prefer_loop()
    heads = database.collection(MetricHeadFields)
    this: Document = {"_id": place}
    found, moved = await heads.find_one(this), 0
    if found is None or len(found["rows"]) < at_least:
        return
    this["folded"] = found["folded"]
    while found is not None and len(found["rows"]) > moved:
        await _move(database, found["run_uuid"], found["keys"], found["rows"][moved:])
        moved = len(found["rows"])
        emptied = await heads.update_one(
            {**this, "rows": {"$size": moved}}, {"$set": {"rows": []}, "$inc": {"folded": 1}}
        )
        found = None if emptied.matched_count else await heads.find_one(this)


async def fold_all(database: Database, run_id: str) -> None:
    """Fold all places of a run, and remove those to which nobody adds rows meanwhile."""
    heads = database.collection(MetricHeadFields)
    query = {"_id": places_of(run_id), "workspace": current_workspace()}
    async for place in heads.find(query, {"_id": 1}):
        await fold(database, place["_id"])
        await heads.delete_one({"_id": place["_id"], "rows": {"$size": 0}})


async def _move(database: Database, run_id: str, keys: Sequence[str], rows: Sequence[Document]) -> None:
    """First blocks, then heads: a reader who finds a head packed finds its blocks."""
    folded, blocks, updates = fold_of(run_id, keys, rows)
    if blocks:
        await insert_missing(database.collection(MetricBlockFields), blocks)
    heads = database.collection(MetricHeadFields)
    result = await heads.bulk_write(updates, ordered=False)
    if result.matched_count < len(updates):
        await take_back_from_erased(database, run_id, [], [block["_id"] for block in blocks])
    of_keys = {"_id": {"$in": [head_id(run_id, key) for key in folded]}}
    found = heads.find(of_keys, {"key": 1, "packed": 1, "tail": LAST_OF_TAIL}, batch_size=BATCH)
    due = [
        head["key"]
        for head in await found.to_list()
        if head["tail"] or may_settle(head["key"], head["packed"])
    ]
    for portion in portions(due, _AT_ONCE):
        await asyncio.gather(*(tidy(database, run_id, key) for key in portion))
