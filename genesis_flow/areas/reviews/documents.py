"""Review queues and their items.

A queue is one small document with its people and its questions in it; it may have any number of items, each a
document whose id begins with the queue's, ``queue|item``.
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR

if TYPE_CHECKING:
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueItem

# In one queue the ids of items sort as the ids of what they stand for.
PAGE_ORDER = [("created_time", DESCENDING), ("_id", ASCENDING)]


class ReviewQueueFields(Declared):
    """A queue of traces that people shall review."""

    id: str = Field(alias="_id", description="`rq-…`.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Name as it was given; that of a user's queue is the user.")
    name_key: str = Field(description="The name in lower case, which no other queue of the experiment has.")
    type: str = Field(description="`user` or `custom`.")
    users: list[str] = Field(description="Who reviews, in lower case, sorted.")
    schema_ids: list[str] = Field(
        description="The questions that are asked, sorted; empty in a user's queue, which asks all."
    )
    created_by: str | None = Field(default=None, description="Whose it is.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed; its items do not count.")
    additions: int = Field(
        default=0, description="How often items were added: questions change only while there are none."
    )

    class Settings(CollectionSettings):
        name = "review_queues"
        indexes = [
            Index(
                [("experiment_id", ASCENDING), ("name_key", ASCENDING)],
                name="name_unique",
                unique=True,
                serves="One queue of a name in an experiment; the queue by its name.",
            ),
            Index(
                [("experiment_id", ASCENDING), *PAGE_ORDER],
                name="by_creation_time",
                serves="The queues of an experiment, newest first.",
            ),
            Index(
                [("experiment_id", ASCENDING), ("users", ASCENDING), *PAGE_ORDER],
                name="by_user",
                serves="The queues that a user reviews, newest first.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments", "schema_ids": "label_schemas"}
        goes_with = {"experiment_id": "experiments"}


class ReviewQueueItemFields(Declared):
    """A trace in a review queue, and whether it was reviewed there."""

    id: str = Field(alias="_id", description="`queue|item`.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Copy of the queue's.")
    queue_id: str = Field(description="Its queue.")
    item_type: str = Field(description="`trace`.")
    item_id: str = Field(description="The trace; nobody checks that it is there.")
    status: str = Field(description="`pending`, `complete` or `declined`.")
    completed_by: str | None = Field(default=None, description="Who completed or declined it.")
    completed_time: int | None = Field(default=None, description="When.")
    created_time: int = Field(description="When it came into the queue.")
    last_update_time: int = Field(description="When its status last changed.")

    class Settings(CollectionSettings):
        name = "review_queue_items"
        indexes = [
            Index(
                [("queue_id", ASCENDING), *PAGE_ORDER],
                name="by_queue",
                serves="The items of a queue, newest first.",
            ),
            Index(
                [("queue_id", ASCENDING), ("status", ASCENDING), *PAGE_ORDER],
                name="by_status",
                serves="The items of a queue that wait, or are done, newest first.",
            ),
            Index(
                [("item_id", ASCENDING)],
                name="by_item",
                serves="The queues that a trace is in; items go with their trace.",
            ),
            Index(
                [("experiment_id", ASCENDING)],
                name="by_experiment",
                serves="Items go with their experiment.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments", "queue_id": "review_queues", "item_id": "traces"}
        goes_with = {"experiment_id": "experiments", "item_id": "traces"}


def item_key(queue_id: str, item_id: str) -> str:
    return f"{queue_id}{SEPARATOR}{item_id}"


def queue_entity(document: dict[str, Any]) -> "ReviewQueue":
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueType

    return ReviewQueue(
        queue_id=document["_id"],
        experiment_id=str(document["experiment_id"]),
        name=document["name"],
        queue_type=ReviewQueueType(document["type"]),
        created_by=document.get("created_by"),
        creation_time_ms=int(document["created_time"]),
        last_update_time_ms=int(document["last_update_time"]),
        users=document["users"],
        schema_ids=document["schema_ids"],
    )


def item_entity(document: dict[str, Any]) -> "ReviewQueueItem":
    from mlflow.genai.review_queues import ReviewItemType, ReviewQueueItem, ReviewStatus

    completed = document.get("completed_time")
    return ReviewQueueItem(
        queue_id=document["queue_id"],
        item_type=ReviewItemType(document["item_type"]),
        item_id=document["item_id"],
        status=ReviewStatus(document["status"]),
        creation_time_ms=int(document["created_time"]),
        last_update_time_ms=int(document["last_update_time"]),
        completed_by=document.get("completed_by"),
        completed_time_ms=None if completed is None else int(completed),
    )
