"""The heads of metrics and the blocks behind them: what becomes of points that are written.

A point is appended to the tail of its metric's head. A tail that has grown to TAIL_LIMIT points is packed
into a block; many points of one metric at once go to a block directly. Each SETTLE_EVERY times that points of
a metric went to blocks, its blocks are settled (settling.py).
"""

import zlib
from collections.abc import Iterable
from typing import Any

from genesis_flow.areas.experiments.guards import STAYS
from genesis_flow.areas.metrics.documents import (
    BLOCK_FROM,
    SETTLE_EVERY,
    TAIL_LIMIT,
    MetricBlockFields,
    MetricHeadFields,
)
from genesis_flow.areas.metrics.points import Point, latest, pack
from genesis_flow.areas.metrics.settling import settle
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.keys import head_id
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import current_workspace

FULL = f"tail.{TAIL_LIMIT - 1}"
# Of a head only that, to see whether its tail is full.
LAST_OF_TAIL = {"$slice": [TAIL_LIMIT - 1, 1]}

Points = dict[str, list[Point]]
"""Points by the name of their metric."""


def appends(run_id: str, points: Points) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Updates that match only heads of an active run whose tails have room."""
    return [
        (
            {
                "_id": head_id(run_id, key),
                "active": True,
                "workspace": current_workspace(),
                FULL: {"$exists": False},
            },
            append(each),
        )
        for key, each in points.items()
    ]


def append(points: list[Point], *, heal: bool = False) -> dict[str, Any]:
    """Add points to a head; ``heal`` when the run was found active, whatever its head says."""
    change: dict[str, Any] = {"$max": {"latest": latest(points)}}
    if len(points) >= BLOCK_FROM:
        change["$inc"] = {"packed": 1}
    else:
        change["$addToSet"] = {"tail": {"$each": [list(point) for point in points]}}
    if heal:
        change["$set"] = {"active": True}
    return change


def blocks_of(run_id: str, points: Points) -> list[dict[str, Any]]:
    """The blocks of a batch: metrics with so many points that they do not go to a tail."""
    return [pack(run_id, key, each) for key, each in points.items() if len(each) >= BLOCK_FROM]


def new_heads(run_id: str, points: Points, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Heads of new metrics, but for what they copy from their run."""
    workspace = current_workspace()
    heads = []
    for key in keys:
        each = points[key]
        packed = len(each) >= BLOCK_FROM
        heads.append(
            {
                "_id": head_id(run_id, key),
                "workspace": workspace,
                "run_uuid": run_id,
                "key": key,
                "experiment_id": None,
                "start_time": None,
                "active": True,
                "latest": latest(each),
                "tail": [] if packed else [list(point) for point in each],
                "packed": int(packed),
            }
        )
    return heads


def of_run(heads: list[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """New heads with what they copy from their run."""
    for head in heads:
        head |= {"experiment_id": run["experiment_id"], "start_time": run.get("start_time")}
    return heads


async def take_back_from_erased(
    database: Database, run_id: str, keys: Iterable[str], blocks: list[str]
) -> None:
    """Remove what was written to a run that was deleted for good meanwhile, or is being deleted so."""
    # In whichever workspace: one command repacks the histories of all.
    stays = await database.everywhere(RunFields).find_one({"_id": run_id, **STAYS}, {"_id": 1})
    if stays is None:
        heads = [head_id(run_id, key) for key in keys]
        await database.collection(MetricHeadFields).delete_many({"_id": {"$in": heads}})
        await database.collection(MetricBlockFields).delete_many({"_id": {"$in": blocks}})


def may_settle(key: str, packed: int) -> bool:
    """Whether a metric is to be settled when its points have gone to blocks so often.

    The metrics of a wide step go to blocks together: they do not settle in one call, too.
    """
    return packed >= SETTLE_EVERY and (packed + zlib.crc32(key.encode())) % SETTLE_EVERY == 0


async def tidy(database: Database, run_id: str, key: str) -> None:
    """Move a full tail into a block, and blocks that have become many to settled ones."""
    identity = head_id(run_id, key)
    head = await database.collection(MetricHeadFields).find_one({"_id": identity}, {"tail": 1, "packed": 1})
    if head is None:
        return
    packed = head["packed"]
    if len(head["tail"]) >= TAIL_LIMIT:
        await _pack_tail(database, run_id, key, head)
        packed += 1
    if may_settle(key, packed) and not database.settings.portable:
        settled = await settle(database.collection(MetricBlockFields), identity)
        if settled.written:
            await take_back_from_erased(database, run_id, [], [block["_id"] for block in settled.written])


async def _pack_tail(database: Database, run_id: str, key: str, head: dict[str, Any]) -> None:
    """Move a tail into a block. First the block, then the tail: a crash between leaves both."""
    block = pack(run_id, key, [(t, s, v) for t, s, v in head["tail"]])
    await database.collection(MetricBlockFields).replace_one({"_id": block["_id"]}, block, upsert=True)
    # Tails only grow until they are packed: the same count of both is the tail that was read.
    unchanged = {"_id": head["_id"], "packed": head["packed"], "tail": {"$size": len(head["tail"])}}
    packed = await database.collection(MetricHeadFields).update_one(
        unchanged, {"$set": {"tail": []}, "$inc": {"packed": 1}}
    )
    if not packed.matched_count:  # another client was first, or there is no head any more
        await take_back_from_erased(database, run_id, [], [block["_id"]])
