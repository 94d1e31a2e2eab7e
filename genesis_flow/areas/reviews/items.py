"""The items of review queues.

Round trips: list one, set the status one (two if nothing changes), remove one, add three however many.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis
from pymongo import ReturnDocument

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.reviews.documents import (
    PAGE_ORDER,
    ReviewQueueFields,
    ReviewQueueItemFields,
    item_entity,
    item_key,
)
from genesis_flow.areas.reviews.shared import find_queue, unknown_queue
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_missing

if TYPE_CHECKING:
    from mlflow.genai.review_queues import ReviewItemType, ReviewQueueItem, ReviewStatus

_PENDING = "pending"


class ReviewQueueItems(Area):
    @property
    def _entries(self) -> Collection:
        return self.database.collection(ReviewQueueItemFields)

    @property
    def _item_queues(self) -> Collection:
        return self.database.collection(ReviewQueueFields)

    @mutation
    async def add_items_to_review_queue(
        self, queue_id: str, *, item_ids: list[str], item_type: "ReviewItemType | str" = "trace"
    ) -> "list[ReviewQueueItem]":
        """Put items into a queue; those that are in it stay as they are. Returns them in the order asked."""
        from mlflow.genai.review_queues.validation import coerce_item_type, validate_item_ids_for_attach

        kind = str(coerce_item_type(item_type))
        wanted = validate_item_ids_for_attach(item_ids)
        queue = await find_queue(self.database, queue_id, {"experiment_id": 1})
        now = get_current_time_millis()
        keys = {item_id: item_key(queue_id, item_id) for item_id in wanted}
        entries = [
            ReviewQueueItemFields(
                _id=key,
                workspace=current_workspace(),
                experiment_id=queue["experiment_id"],
                queue_id=queue_id,
                item_type=kind,
                item_id=item_id,
                status=_PENDING,
                created_time=now,
                last_update_time=now,
            ).model_dump(by_alias=True, exclude_none=True)
            for item_id, key in keys.items()
        ]
        await insert_missing(self._entries, entries)
        there, by_key = await asyncio.gather(self._count_addition(queue_id), self._all(list(keys.values())))
        if not there:
            # Deleted meanwhile, perhaps before these came in.
            await self._entries.delete_many(scoped({"_id": {"$in": list(keys.values())}}))
            raise unknown_queue(queue_id)()
        # Somebody may have removed some again.
        return [item_entity(by_key[key]) for key in keys.values() if key in by_key]

    async def _count_addition(self, queue_id: str) -> bool:
        """Tell who changes the questions that there are items now; whether the queue is there still."""
        counted = await self._item_queues.update_one(scoped({"_id": queue_id}), {"$inc": {"additions": 1}})
        return bool(counted.matched_count)

    async def _all(self, keys: list[str]) -> dict[str, Document]:
        entries = self._entries.find(scoped({"_id": {"$in": keys}}), batch_size=BATCH)
        return {entry["_id"]: entry async for entry in entries}

    @mutation
    async def remove_items_from_review_queue(self, queue_id: str, *, item_ids: list[str]) -> None:
        """Take items out of a queue; those that are not in it are no error."""
        from mlflow.genai.review_queues.validation import validate_item_ids_for_attach

        keys = [item_key(queue_id, item_id) for item_id in validate_item_ids_for_attach(item_ids)]
        queue, _ = await asyncio.gather(
            self._item_queues.find_one(scoped({"_id": queue_id}), {"_id": 1}),
            self._entries.delete_many(scoped({"_id": {"$in": keys}})),
        )
        if queue is None:
            raise unknown_queue(queue_id)()

    @operation
    async def list_review_queue_items(
        self,
        queue_id: str,
        *,
        status: "ReviewStatus | str | None" = None,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> "PagedList[ReviewQueueItem]":
        """The items of a queue, the newest first: all, or those of a status."""
        from mlflow.genai.review_queues.validation import coerce_status

        validate_max_results(max_results, allow_null=True)
        limit = SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results
        query: Document = {"queue_id": queue_id}
        if status is not None:
            query["status"] = str(coerce_status(status))
        entries, token = await entities.page(self._entries, query, PAGE_ORDER, limit, page_token, (int, str))
        if not entries:
            await find_queue(self.database, queue_id, {"_id": 1})
        return PagedList([item_entity(entry) for entry in entries], token)

    @mutation
    async def set_review_queue_item_status(
        self,
        queue_id: str,
        *,
        item_id: str,
        status: "ReviewStatus | str",
        completed_by: str | None = None,
    ) -> "ReviewQueueItem":
        """Complete, decline or reopen an item. A second call with the same status changes nothing."""
        from mlflow.genai.review_queues.validation import coerce_status, normalize_item_id

        new = str(coerce_status(status))
        item = normalize_item_id(item_id)
        change = _status_change(new, completed_by)
        query = scoped({"_id": item_key(queue_id, item)})
        while True:
            changed = await self._entries.find_one_and_update(
                {**query, "status": {"$ne": new}}, change, return_document=ReturnDocument.AFTER
            )
            if changed is not None:
                return item_entity(changed)
            _, entry = await asyncio.gather(
                find_queue(self.database, queue_id, {"_id": 1}), self._entries.find_one(query)
            )
            if entry is None:
                text = f"Item '{item}' is not attached to review queue '{queue_id}'."
                raise entities.unknown(text)()
            if entry["status"] == new:
                return item_entity(entry)


def _status_change(status: str, completed_by: str | None) -> Document:
    from mlflow.genai.review_queues.validation import USER_MAX_LENGTH, normalize_user

    now = get_current_time_millis()
    who = normalize_user(completed_by) if completed_by is not None else None
    if status == _PENDING:
        if who is not None:
            raise invalid("`completed_by` must not be given when an item is reopened to `pending`.")
        done: dict[str, Any] = {"completed_by": "", "completed_time": ""}
        return {"$set": {"status": status, "last_update_time": now}, "$unset": done}
    if not who:
        raise invalid(f"`completed_by` is required when setting status to `{status}`.")
    if len(who) > USER_MAX_LENGTH:
        raise invalid(f"`completed_by` must be at most {USER_MAX_LENGTH} characters; got {len(who)}.")
    return {"$set": {"status": status, "last_update_time": now, "completed_by": who, "completed_time": now}}
