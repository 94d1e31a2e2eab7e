"""Collections and indexes for servers that have less than MongoDB: Azure Cosmos DB for MongoDB (RU).

Such a server sorts only along an index of exactly the fields of the sort, knows no hints, and no indexes that
are sparse, partial or compound over nested fields. So what it cannot sort is sorted here, from the documents
that match, of which no more are kept than are asked for; and each index becomes one for each of its fields.
docs/azure.md says what that costs.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import bson
from pymongo import ASCENDING, DESCENDING, DeleteMany, DeleteOne, IndexModel, InsertOne, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DocumentTooLarge

from genesis_flow.documents.plain import Document, value_at

Sort = list[tuple[str, int]]

# A document of an RU account may have 2 MB; the service counts some bytes of its own.
LARGEST_DOCUMENT = 1_500_000

# The sorts that are served by an index, by collection: the pages of MLflow's interface in their usual order.
SORTS: Mapping[str, Sequence[Sort]] = {
    "runs": [[("start_time", DESCENDING), ("_id", ASCENDING)]],
    "experiments": [[("creation_time", DESCENDING), ("_id", ASCENDING)]],
    "traces": [[("request_time", DESCENDING), ("_id", ASCENDING)]],
    "logged_models": [[("creation_timestamp", DESCENDING), ("_id", ASCENDING)]],
    "registered_models": [[("name", ASCENDING)]],
    "model_versions": [
        [("version", DESCENDING)],
        [("last_updated_time", DESCENDING), ("name", ASCENDING), ("version", DESCENDING)],
    ],
    "evaluation_dataset_records": [[("created_time", ASCENDING), ("record_id", ASCENDING)]],
}


def portable_indexes(name: str, indexes: Iterable[IndexModel]) -> list[IndexModel]:
    """The indexes in place of ``indexes`` of the collection that is called ``name`` without its prefix."""
    kept: dict[str, IndexModel] = {}
    for index in indexes:
        keys = list(index.document["key"].items())
        if index.document.get("unique") or any("$**" in field for field, _ in keys):
            kept[index.document["name"]] = index
            continue
        for field, _ in keys:
            if field != "_id":
                kept[field] = IndexModel([(field, ASCENDING)], name=field)
    for sort in SORTS.get(name, ()):
        label = "_".join(field for field, _ in sort)
        kept[label] = IndexModel(sort, name=f"sort_{label}" if len(sort) > 1 else label)
    return list(kept.values())


class PortableCollection:
    """As much of a driver's collection as areas use; anything else goes to the driver's."""

    def __init__(self, collection: "AsyncCollection[Document]", name: str) -> None:
        self._collection = collection
        self._sorts = [*SORTS.get(name, ()), [("_id", ASCENDING)]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find(
        self,
        filter: Document | None = None,
        projection: Any = None,
        *,
        sort: Sort | None = None,
        limit: int = 0,
        batch_size: int = 0,
        hint: Any = None,
        session: None = None,
    ) -> "PortableCursor":
        return PortableCursor(self, filter or {}, projection, sort or [], limit, batch_size)

    async def find_one(
        self,
        filter: Document | None = None,
        projection: Any = None,
        *,
        sort: Any = None,
        session: None = None,
    ) -> Document | None:
        found = await self.find(filter, projection, sort=sort, limit=1).to_list()
        return found[0] if found else None

    async def aggregate(self, pipeline: list[Document], **options: Any) -> "PortableRows":
        """The pipeline up to the first sort that no index serves; the rest of it is done here."""
        here = next(
            (
                number
                for number, stage in enumerate(pipeline)
                if "$sort" in stage
                and not (
                    number == 1 and "$match" in pipeline[0] and self.serves(list(stage["$sort"].items()))
                )
            ),
            len(pipeline),
        )
        given = {name: value for name, value in options.items() if name == "batchSize"}
        cursor = await self._collection.aggregate(pipeline[:here], **given)
        return PortableRows(_finish(await cursor.to_list(), pipeline[here:]))

    def serves(self, sort: Sort) -> bool:
        return any(sort == served or sort == _turned(served) for served in self._sorts)

    async def insert_one(self, document: Document, **options: Any) -> Any:
        _check_size(document)
        return await self._collection.insert_one(document, **options)

    async def insert_many(self, documents: Sequence[Document], **options: Any) -> Any:
        for document in documents:
            _check_size(document)
        return await self._collection.insert_many(documents, **options)

    async def replace_one(self, filter: Document, replacement: Document, **options: Any) -> Any:
        _check_size(replacement)
        return await self._collection.replace_one(filter, replacement, **options)

    async def bulk_write(self, requests: Sequence[Any], **options: Any) -> Any:
        for request in requests:
            if isinstance(request, InsertOne | ReplaceOne):
                _check_size(request._doc)
            elif not isinstance(request, DeleteOne | DeleteMany):
                _check_size(dict(request._doc))
        return await self._collection.bulk_write(requests, **options)

    async def count_documents(self, filter: Document, **options: Any) -> int:
        return await self._collection.count_documents(filter, **options)


class PortableCursor:
    """The matching documents, sorted by the server if an index serves the sort and here if not."""

    def __init__(
        self,
        collection: PortableCollection,
        query: Document,
        projection: Any,
        sort: Sort,
        limit: int,
        batch_size: int,
    ) -> None:
        self._collection = collection
        self._query = query
        self._projection = projection
        self._sort = sort
        self._limit = limit
        self._batch_size = batch_size
        self._rest: AsyncIterator[Document] | None = None

    def sort(self, key: str | Sort, direction: int = ASCENDING) -> Self:
        self._sort = [(key, direction)] if isinstance(key, str) else key
        return self

    def limit(self, limit: int) -> Self:
        self._limit = limit
        return self

    async def to_list(self, length: int | None = None) -> list[Document]:
        if length is not None:
            self._rest = self._rest or aiter(self)
            return await _portion(self._rest, length)
        if not self._sort or self._collection.serves(self._sort):
            found: list[Document] = await self._plain(self._projection, self._sort, self._limit).to_list()
            return found
        kept: list[Document] = []
        # Twice as many as are asked for at most: enough to sort rarely, little to hold.
        most = 2 * self._limit + 1_000
        async for document in self._plain(_with_fields(self._projection, self._sort), [], 0):
            kept.append(document)
            if self._limit and len(kept) > most:
                kept = in_order(kept, self._sort)[: self._limit]
        ordered = in_order(kept, self._sort)
        return ordered[: self._limit] if self._limit else ordered

    async def __aiter__(self) -> AsyncIterator[Document]:
        if not self._sort or self._collection.serves(self._sort):
            async for document in self._plain(self._projection, self._sort, self._limit):
                yield document
        else:
            for document in await self.to_list():
                yield document

    def _plain(self, projection: Any, sort: Sort, limit: int) -> Any:
        return self._collection._collection.find(
            self._query, projection, sort=sort or None, limit=limit, batch_size=self._batch_size
        )


class PortableRows:
    """The result of an aggregation."""

    def __init__(self, rows: list[Document]) -> None:
        self._rows = rows
        self._rest: AsyncIterator[Document] | None = None

    async def to_list(self, length: int | None = None) -> list[Document]:
        if length is None:
            return self._rows
        self._rest = self._rest or aiter(self)
        return await _portion(self._rest, length)

    async def __aiter__(self) -> AsyncIterator[Document]:
        for row in self._rows:
            yield row


async def _portion(documents: AsyncIterator[Document], length: int) -> list[Document]:
    some: list[Document] = []
    while len(some) < length and (document := await anext(documents, None)) is not None:
        some.append(document)
    return some


def in_order(documents: list[Document], sort: Sort) -> list[Document]:
    """As MongoDB sorts values of the types that we store, apart from arrays."""
    ordered = list(documents)
    for field, direction in reversed(sort):
        ordered.sort(key=lambda document: _rank(value_at(document, field)), reverse=direction == DESCENDING)
    return ordered


def _rank(value: Any) -> tuple[Any, ...]:
    match value:
        case None:
            return (1,)
        case bool():
            return (8, value)
        case int() | float():
            return (2, value == value, value if value == value else 0)
        case str():
            return (3, value)
        case Mapping():
            return (4, *((_rank(inner)[0], key, _rank(inner)) for key, inner in value.items()))
        case bytes():
            return (6, len(value), value)
        case datetime():
            return (9, value)
    raise TypeError(f"Values of type {type(value).__name__} are not sorted here.")


def _turned(sort: Sort) -> Sort:
    return [(field, -direction) for field, direction in sort]


def _with_fields(projection: Any, sort: Sort) -> Any:
    """A projection that leaves in what the sort needs."""
    if not projection or not any(value not in (0, False) for value in projection.values()):
        return projection
    asked = {field: value for field, value in projection.items() if field != "_id" or value}
    for field, _ in sort:
        if not any(field == known or field.startswith(f"{known}.") for known in asked):
            asked[field] = 1
    return asked


def _finish(rows: list[Document], stages: list[Document]) -> list[Document]:
    """The stages that follow a sort in our pipelines."""
    for stage in stages:
        ((name, body),) = stage.items()
        match name:
            case "$sort":
                rows = in_order(rows, list(body.items()))
            case "$limit":
                rows = rows[:body]
            case "$project" if not any(body.values()):
                rows = [{field: value for field, value in row.items() if field not in body} for row in rows]
            case "$group":
                rows = _first_of_each(rows, body)
            case _:
                raise NotImplementedError(f"The stage {name} after a sort has no counterpart here.")
    return rows


def _first_of_each(rows: list[Document], group: Document) -> list[Document]:
    """``$group`` by a field, with ``$first`` of others."""
    groups: dict[Any, Document] = {}
    for row in rows:
        key = value_at(row, group["_id"].removeprefix("$"))
        if key not in groups:
            groups[key] = {"_id": key} | {
                name: value_at(row, first["$first"].removeprefix("$"))
                for name, first in group.items()
                if name != "_id"
            }
    return list(groups.values())


def _check_size(document: Mapping[str, Any]) -> None:
    if (size := len(bson.encode(document))) > LARGEST_DOCUMENT:
        raise DocumentTooLarge(
            f"A document of {size} bytes is more than the {LARGEST_DOCUMENT} of the portable profile."
        )
