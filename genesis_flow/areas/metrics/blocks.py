"""Blocks in the order of time, while others settle them.

Open blocks are read before settled ones, see settling.py. A history with many open blocks is read in windows
of them, so that a page reads no more than it needs.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator

from genesis_flow.areas.metrics.points import Point, unpack
from genesis_flow.documents.keys import children_of, is_open, settled_block_ids
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection

# So many open blocks are held at once, unless more of them begin at one moment.
WINDOW = 64


async def in_time(blocks: Collection, head: str, since: int | None) -> AsyncIterator[tuple[int, list[Point]]]:
    """The points from ``since`` on, block by block, each with the first timestamp of its block.

    Blocks may come again, without the points before the first timestamp of the block that came last: whoever
    passes points on up to these timestamps passes each point on once.
    """
    window = WINDOW
    while True:
        query = {"_id": children_of(head), **_since(since)}
        found = await blocks.find(query, sort=[("_id", 1)], limit=window).to_list()
        opened = deque(sorted((block for block in found if is_open(block["_id"])), key=_begin))
        horizon = _begin(opened[-1]) if len(opened) == window else None
        if horizon is not None and since is not None and horizon <= since:
            window *= 2
            continue
        settled = found[len(opened) :]
        async for block in _settled(blocks, head, since, horizon, settled, len(found) == window):
            while opened and _begin(opened[0]) <= _begin(block):
                yield _behind(opened.popleft(), since)
            yield _behind(block, since)
        while opened:
            yield _behind(opened.popleft(), since)
        if horizon is None:
            return
        since = horizon


async def _settled(
    blocks: Collection,
    head: str,
    since: int | None,
    horizon: int | None,
    found: list[Document],
    there_may_be_more: bool,
) -> AsyncIterator[Document]:
    """The settled blocks that are found already, and those behind them that begin before the horizon."""
    for block in found:
        yield block
    if not there_may_be_more:
        return
    query = {"_id": settled_block_ids(head), **_since(since)}
    if found:
        query["_id"] = {**query["_id"], "$gt": found[-1]["_id"]}
        query["_id"].pop("$gte")
    if horizon is not None:
        query["first_timestamp"] = {"$lte": horizon}
    async for block in blocks.find(query, sort=[("_id", 1)], batch_size=BATCH):
        yield block


def _since(since: int | None) -> Document:
    return {} if since is None else {"last_timestamp": {"$gte": since}}


def _begin(block: Document) -> int:
    begin: int = block["first_timestamp"]
    return begin


def _behind(block: Document, since: int | None) -> tuple[int, list[Point]]:
    points = unpack(block)
    if since is not None:
        points = points[bisect_left(points, since, key=_time) :]
    return _begin(block), points


def _time(point: Point) -> int:
    return point[0]
