"""Rewriting the histories of metrics in few bytes, while others log and read them.

Every step may be killed and is safe to repeat: a history is done when nothing is left to do in it. Blocks of
the first format that cannot settle are replaced by the same points in format 2, under the same name.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import bson

from genesis_flow.areas.metrics.documents import SETTLED_POINTS, MetricBlockFields
from genesis_flow.areas.metrics.heads import take_back_from_erased
from genesis_flow.areas.metrics.points import columns_of, packed_fields
from genesis_flow.areas.metrics.settling import Plan, doubles, last_settled, settle_blocks
from genesis_flow.core.settings import Settings
from genesis_flow.documents.imports import ImportItemFields, ImportJournalFields
from genesis_flow.documents.keys import SEPARATOR, children_of, open_block_ids
from genesis_flow.documents.plain import Document
from genesis_flow.importers.changes import hashed, told
from genesis_flow.importers.roots import item_key
from genesis_flow.mongo.operation import operation
from genesis_flow.stores.joined import AsyncTrackingStore

# So many open blocks are held at once.
_WINDOW = 16

Report = Callable[["Repacked"], None]


@dataclass
class Repacked:
    """What was done, or with ``dry_run`` would be."""

    histories: int = 0
    rewritten: int = 0
    points: int = 0
    blocks_before: int = 0
    blocks_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def count(self, before: list[Document], after: list[Document]) -> None:
        self.points += sum(block["n"] for block in after)
        self.blocks_before += len(before)
        self.blocks_after += len(after)
        self.bytes_before += sum(len(bson.encode(block)) for block in before)
        self.bytes_after += sum(len(bson.encode(block)) for block in after)

    def plain(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class _Walk:
    """One history: where its walk is, and the blocks that may settle together with the next ones."""

    head: str
    position: str | None = None
    carried: list[Document] = field(default_factory=list)
    # The last block that would have been settled.
    last: Document | None = None


class Repacker(AsyncTrackingStore):
    """A store that rewrites its histories."""

    @operation
    async def next_history(self, after: str) -> str | None:
        """The metric with blocks that comes behind another in the order of the ids."""
        behind = {"_id": {"$gte": children_of(after)["$lt"] if after else ""}}
        found = await self._everywhere.find_one(behind, {"_id": 1}, sort=[("_id", 1)])
        return None if found is None else str(found["_id"]).rpartition(SEPARATOR)[0]

    @operation
    async def needs_it(self, head: str) -> bool:
        """Whether a history has open blocks of the first format, or so many points in open ones that some may
        settle."""
        fields = {"format": 1, "n": 1}
        found = self._everywhere.find({"_id": open_block_ids(head)}, fields, batch_size=1000)
        points = 0
        async for block in found:
            points += block["n"]
            if "format" not in block or points >= SETTLED_POINTS:
                return True
        return False

    @operation
    async def next_blocks(self, walk: _Walk) -> list[Document]:
        ids = open_block_ids(walk.head)
        if walk.position is not None:
            ids = {"$gt": walk.position, "$lt": ids["$lt"]}
        found: list[Document] = await self._everywhere.find(
            {"_id": ids}, sort=[("_id", 1)], limit=_WINDOW
        ).to_list()
        return found

    @operation
    async def rewrite(self, walk: _Walk, found: list[Document], done: Repacked) -> None:
        """Settle what can be, and replace what is of the first format and stays open."""
        group = [*walk.carried, *found]
        settlement = await settle_blocks(self._everywhere, walk.head, group, is_thorough=True)
        written = [block["_id"] for block in settlement.written]
        run_id = walk.head.partition(SEPARATOR)[0]
        if written:
            await take_back_from_erased(self.database, run_id, [], written)
        await self._tell_imports(run_id, written, [block["_id"] for block in settlement.removed])
        left = [block for block in group if block not in settlement.removed]
        old = [block for block in left if "format" not in block]
        new = [in_newest_format(block) for block in old]
        for block in new:
            # If it is gone it has settled, or its run is gone.
            await self._everywhere.replace_one({"_id": block["_id"], "format": {"$exists": False}}, block)
        last = (
            settlement.written[-1] if settlement.written else await last_settled(self._everywhere, walk.head)
        )
        done.count([*settlement.removed, *old], [*settlement.written, *new])
        self._carry(walk, [in_newest_format(block) for block in left], last)

    @operation
    async def pretend(self, walk: _Walk, found: list[Document], done: Repacked) -> None:
        """What ``rewrite`` would do."""
        if walk.last is None:
            walk.last = await last_settled(self._everywhere, walk.head)
        group = [*walk.carried, *found]
        plan = Plan(walk.head, group, walk.last)
        removed = plan.settled_with(plan.made)
        removed += await doubles(self._everywhere, plan, removed, plan.made, is_thorough=True)
        left = [block for block in group if block not in removed]
        old = [block for block in left if "format" not in block]
        done.count([*removed, *old], [*plan.made, *map(in_newest_format, old)])
        walk.last = plan.made[-1] if plan.made else walk.last
        self._carry(walk, [in_newest_format(block) for block in left], walk.last)

    async def _tell_imports(self, run_id: str, written: list[str], removed: list[str]) -> None:
        """An import knows a run that nobody has changed by a sum over the names of its blocks, too: to keep
        them in other blocks is no change."""
        if not (written or removed):
            return
        name = MetricBlockFields.Settings.name
        more = sum(hashed(name, key, b"") for key in written) - sum(hashed(name, key, b"") for key in removed)
        items = self.database.everywhere(ImportItemFields)
        keys = [
            item_key(journal["_id"], ("runs", run_id))
            async for journal in self.database.everywhere(ImportJournalFields).find({}, {"_id": 1})
        ]
        async for item in items.find({"_id": {"$in": keys}, "state": {"$ne": None}}, {"state": 1}):
            state = told(int(item["state"], 16) + more)
            await items.update_one({"_id": item["_id"], "state": item["state"]}, {"$set": {"state": state}})

    def _carry(self, walk: _Walk, left: list[Document], last: Document | None) -> None:
        """Keep the blocks that reach behind what is settled for the next window."""
        reaching = [
            block for block in left if last is None or block["last_timestamp"] >= last["last_timestamp"]
        ]
        walk.carried = reaching[-2 * _WINDOW :]

    @property
    def _everywhere(self) -> Any:
        return self.database.everywhere(MetricBlockFields)


def in_newest_format(block: Document) -> Document:
    if "format" in block:
        return block
    return {"_id": block["_id"], **packed_fields(*columns_of(block))}


async def repack_all(
    repacker: Repacker, *, dry_run: bool, blocks_a_second: float | None, report: Report
) -> Repacked:
    done = Repacked()
    head = await repacker.next_history("")
    while head is not None:
        done.histories += 1
        if await repacker.needs_it(head):
            before = done.blocks_before
            walk = _Walk(head)
            while found := await repacker.next_blocks(walk):
                work = repacker.pretend if dry_run else repacker.rewrite
                await work(walk, found, done)
                walk.position = found[-1]["_id"]
                report(done)
                if blocks_a_second is not None:
                    await asyncio.sleep(len(found) / blocks_a_second)
            done.rewritten += done.blocks_before > before
        head = await repacker.next_history(head)
    return done


def repack(settings: Settings, *, dry_run: bool, blocks_a_second: float | None, report: Report) -> Repacked:
    """Rewrite all histories of a database."""

    async def repacked() -> Repacked:
        repacker = Repacker(settings)
        try:
            return await repack_all(repacker, dry_run=dry_run, blocks_a_second=blocks_a_second, report=report)
        finally:
            await repacker.close()

    return asyncio.run(repacked())
