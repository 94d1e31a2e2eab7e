"""Pages of what documents have in an array, such as the versions of a registered thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genesis_flow.documents.plain import Document, value_at
from genesis_flow.kit.entities import Sort, nullable
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import Kinds, create_token, parse_token


@dataclass(frozen=True, slots=True)
class Elements:
    """An array of some documents, and the fields of these that go with each of its elements."""

    array: str
    of: Document
    fields: Sequence[str]

    async def page(
        self,
        collection: Collection,
        conditions: list[Document],
        order: Sort,
        limit: int,
        page_token: str | None,
        question: Any,
        kinds: Sequence[Kinds],
    ) -> tuple[list[Document], str | None]:
        """Documents with one element each in the place of the array, and the token of the next page."""
        position = parse_token(page_token, question, kinds)
        if position is not None:
            conditions = [*conditions, behind(order, position, nullable(order, kinds))]
        rows = await collection.aggregate(
            [
                {"$match": scoped(self.of)},
                {"$project": dict.fromkeys((self.array, *self.fields), 1)},
                {"$unwind": f"${self.array}"},
                *([{"$match": {"$and": conditions}}] if conditions else []),
                {"$sort": dict(order)},
                {"$limit": limit + 1},
            ],
            batchSize=limit + 1,
        )
        elements = [row async for row in rows]
        if len(elements) <= limit:
            return elements, None
        last = elements[limit - 1]
        return elements[:limit], create_token(question, [value_at(last, field) for field, _ in order])
