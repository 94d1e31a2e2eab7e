"""Reads along an index that ends in ``start_time`` descending and the run id ascending.

Every read returns the entries right behind a place, at most as many as asked for and fewer only at the
end. There are no open cursors in between, so a failover or a slow reader costs nothing.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.search.order import START_TIME

Place = tuple[int | None, str]
"""Start time and run id: where a read goes on among entries that are equal otherwise."""


# Comparing with a number leaves out null and NaN, so this means "any number".
ANY_NUMBER = {"$gte": float("-inf")}


def all_of(*conditions: Document) -> Document:
    given = [condition for condition in conditions if condition]
    return given[0] if len(given) == 1 else {"$and": given} if given else {}


@dataclass(frozen=True, slots=True)
class Scan:
    collection: Collection
    query: Document
    id_field: str
    projection: Document | None
    hint: str | None = None

    async def newest_first(
        self, after: Place | None, limit: int, within: Document | None = None
    ) -> list[Document]:
        """Newest first, entries without a start time last; ``within`` narrows to one value of the index."""
        within = within or {}
        if after is None:
            return await self._find(within, self._ties, limit)
        start, run_id = after
        rows = await self._same_start(start, run_id, limit, within)
        if start is not None and len(rows) < limit:
            # "Not at or after", because "before" would leave out nulls, which come last as they should.
            older = all_of(within, {START_TIME: {"$not": {"$gte": start}}})
            rows += await self._find(older, self._ties, limit - len(rows))
        return rows

    async def oldest_first(self, after: Place | None, limit: int) -> list[Document]:
        """Oldest first, entries without a start time last all the same."""
        start, run_id = after or (None, None)
        rows: list[Document] = []
        if after is None or start is not None:
            bound = ANY_NUMBER if start is None else {"$gt": start}
            if start is not None:
                rows += await self._same_start(start, run_id, limit)
            if len(rows) < limit:
                sort = [(START_TIME, ASCENDING), (self.id_field, DESCENDING)]
                rows += await self._backwards(START_TIME, bound, sort, limit - len(rows))
            run_id = None
        if len(rows) < limit:
            rows += await self._same_start(None, run_id, limit - len(rows))
        return rows

    async def by_number(
        self, field: str, ascending: bool, after: tuple[float, Place | None] | None, limit: int
    ) -> list[Document]:
        """By the numbers in ``field``, equal ones newest first; NaN is not among them.

        Behind a number without a place nothing with the same number is left.
        """
        rows: list[Document] = []
        bound: Document = ANY_NUMBER
        if after is not None:
            number, place = after
            if place is not None:
                rows += await self.newest_first(place, limit, {field: number})
            bound = {"$gt" if ascending else "$lt": number}
        if len(rows) >= limit:
            return rows
        if ascending:
            sort = [(field, ASCENDING), *self._ties]
            return rows + await self._find({field: bound}, sort, limit - len(rows))
        sort = [(field, DESCENDING), (START_TIME, ASCENDING), (self.id_field, DESCENDING)]
        return rows + await self._backwards(field, bound, sort, limit - len(rows))

    @property
    def _ties(self) -> list[tuple[str, int]]:
        return [(START_TIME, DESCENDING), (self.id_field, ASCENDING)]

    async def _same_start(
        self, start: int | None, after_id: str | None, limit: int, within: Document | None = None
    ) -> list[Document]:
        """Entries of one start time. To sort by it as well would keep the server from merging scans."""
        behind = {} if after_id is None else {self.id_field: {"$gt": after_id}}
        same = all_of(within or {}, {START_TIME: start, **behind})
        return await self._find(same, [(self.id_field, ASCENDING)], limit)

    async def _backwards(
        self, field: str, bound: Document, sort: list[tuple[str, int]], limit: int
    ) -> list[Document]:
        """By ``field`` against the direction of the index, yet equal entries in its direction.

        The index read backwards turns each group of equal entries around, so the groups are turned back.
        The last group may be cut off by the limit and then lacks its first entries: it is read by itself.
        """
        rows = await self._find({field: bound}, sort, limit + 1)
        steps = field.split(".")

        def value_of(row: Document) -> Any:
            value: Any = row
            for step in steps:
                value = value[step]
            return value

        if len(set(map(value_of, rows))) == len(rows):
            return rows[:limit]  # as it mostly is
        groups = [list(group) for _, group in groupby(rows, key=value_of)]
        cut = groups.pop() if len(rows) > limit else []
        ordered = [row for group in groups for row in reversed(group)]
        missing = limit - len(ordered)
        if cut and missing:
            value = value_of(cut[0])
            if field == START_TIME:
                return ordered + await self._same_start(value, None, missing)
            return ordered + await self.newest_first(None, missing, {field: value})
        return ordered

    async def _find(self, condition: Document, sort: list[tuple[str, int]], limit: int) -> list[Document]:
        query = all_of(self.query, condition)
        return await self.collection.find(
            query, self.projection, sort=sort, limit=limit, hint=self.hint, batch_size=BATCH
        ).to_list()
