"""Insert once, find or refuse, change or refuse, page: one round trip each.

An error to raise is given as a function, because most calls do not need it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.documents.plain import Document, value_at
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.writes import insert_once
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import Kinds, create_token, parse_token

Refusal = Callable[[], MlflowException]
Sort = list[tuple[str, int]]


def unknown(text: str) -> Refusal:
    return lambda: MlflowException(text, RESOURCE_DOES_NOT_EXIST)


def taken(text: str) -> Refusal:
    return lambda: MlflowException(text, RESOURCE_ALREADY_EXISTS)


async def insert(collection: Collection, document: Document, refusal: Refusal) -> Document:
    """``document``, once it is stored; refused if something else that must be unique is taken."""
    try:
        await insert_once(collection, document)
    except DuplicateKeyError as error:
        raise refusal() from error
    return document


async def find(
    collection: Collection, query: Document, refusal: Refusal, projection: Document | None = None
) -> Document:
    document = await collection.find_one(scoped(query), projection)
    if document is None:
        raise refusal()
    return document


async def change(
    collection: Collection,
    query: Document,
    update: Document | list[Document],
    refusal: Refusal,
    name_taken: Refusal | None = None,
) -> Document:
    """The document after the change; refused if there is none, or if its new name is taken."""
    try:
        document = await collection.find_one_and_update(
            scoped(query), update, return_document=ReturnDocument.AFTER
        )
    except DuplicateKeyError as error:
        if name_taken is None:
            raise
        raise name_taken() from error
    if document is None:
        raise refusal()
    return document


async def page(
    collection: Collection,
    query: Document,
    order: Sort,
    limit: int,
    page_token: str | None,
    kinds: Sequence[Kinds],
    projection: Document | None = None,
    question: Any = None,
) -> tuple[list[Document], str | None]:
    """A page in ``order`` and the token of the next one; ``kinds`` are those of the sorted fields.

    A token belongs to its ``question``, which is the whole query unless a caller says otherwise.
    """
    question = question or [collection.name, query, order]
    position = parse_token(page_token, question, kinds)
    query = scoped(query)
    if position is not None:
        # The whole query in each branch: the server then enters the index behind the position, once for each
        # branch, instead of reading up to it from the first page on.
        later = behind(order, position, nullable(order, kinds))
        query = {"$or": [{"$and": [query, branch]} for branch in later["$or"]]}
    cursor = collection.find(query, projection, sort=order, limit=limit + 1, batch_size=limit + 1)
    documents = await cursor.to_list()
    if len(documents) <= limit:
        return documents, None
    last = documents[limit - 1]
    return documents[:limit], create_token(question, [value_at(last, field) for field, _ in order])


def nullable(order: Sort, kinds: Sequence[Kinds]) -> set[str]:
    """The fields of an order that may have no value."""
    return {field for (field, _), kind in zip(order, kinds, strict=True) if isinstance(kind, tuple)}
