"""Writes that stay single when they are repeated."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.error_edge import retry_delay
from genesis_flow.mongo.operation import is_repetition
from genesis_flow.mongo.patience import owe
from genesis_flow.mongo.waiting import pause

T = TypeVar("T")

_DUPLICATE_KEY = 11000


async def insert_once(collection: Collection, document: dict[str, Any]) -> dict[str, Any]:
    """Insert a document whose ``_id`` only this call can have, again after a passing failure.

    The ``_id`` must be the same in a repetition of the call. When an earlier try, here or of the whole call,
    did reach the server and only its answer was lost, the id is found taken: by us, so that is success, and
    what that try made is returned. A DuplicateKeyError is some other unique field.
    """
    attempt = 0
    while True:
        try:
            await collection.insert_one(document)
            return document
        except DuplicateKeyError:
            if attempt or is_repetition():
                made: dict[str, Any] | None = await collection.find_one({"_id": document["_id"]})
                if made is not None:
                    return made
            raise
        except PyMongoError as error:
            delay = retry_delay(error, attempt)
            if delay is None:
                raise
        attempt += 1
        await pause(delay)


async def until_done(write: Callable[[], Awaitable[T]]) -> T:
    """Make a write to which a repetition of the call would not come back, again after a passing failure.

    Should the time of the attempt pass before it is made, the next attempt makes it first.
    """
    made = owe(write)
    attempt = 0
    while True:
        try:
            result = await write()
            made()
            return result
        except PyMongoError as error:
            delay = retry_delay(error, attempt)
            if delay is None:
                raise
        attempt += 1
        await pause(delay)


async def insert_missing(collection: Collection, documents: list[dict[str, Any]]) -> None:
    """Insert the documents whose ``_id`` is not there; for ids that come from the content of a document."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if not only_duplicates(error):
            raise


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether all that went wrong is that something was there already."""
    failures = error.details.get("writeErrors") or []
    return (
        bool(failures)
        and all(failure.get("code") == _DUPLICATE_KEY for failure in failures)
        and not error.details.get("writeConcernErrors")
    )
