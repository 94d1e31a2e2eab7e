"""Review queues.

Round trips: get one, by name one, list one (two by item), create two, get_or_create one if the queue is there
and two if it is made, update two (three with questions), delete three.

A queue's questions are fixed while it has items. A call that adds items counts that in the queue afterwards.
One that changes questions looks at the count first, then for items, and changes if the count is the same.
"""

import asyncio
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.experiments.guards import (
    experiment_number,
    find_active_experiment,
    validate_max_results,
)
from genesis_flow.areas.labels.documents import LabelSchemaFields
from genesis_flow.areas.reviews.documents import (
    PAGE_ORDER,
    ReviewQueueFields,
    ReviewQueueItemFields,
    queue_entity,
)
from genesis_flow.areas.reviews.shared import find_queue, unknown_queue
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, call_token, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped

if TYPE_CHECKING:
    from mlflow.genai.review_queues import ReviewQueue, ReviewQueueType
    from mlflow.genai.review_queues.validation import ValidatedQueue


class ReviewQueues(Area):
    @property
    def _queues(self) -> Collection:
        return self.database.collection(ReviewQueueFields)

    @property
    def _items(self) -> Collection:
        return self.database.collection(ReviewQueueItemFields)

    @mutation
    async def create_review_queue(
        self,
        experiment_id: str,
        *,
        name: str,
        queue_type: "ReviewQueueType",
        created_by: str | None = None,
        users: list[str] | None = None,
        schema_ids: list[str] | None = None,
    ) -> "ReviewQueue":
        """Make a queue of traces to review: a user's own, or one with its people and its questions."""
        from mlflow.genai.review_queues.validation import validate_queue_for_create

        valid = validate_queue_for_create(
            name=name, queue_type=queue_type, users=users, schema_ids=schema_ids
        )
        number = experiment_number(experiment_id)
        _, missing = await asyncio.gather(
            find_active_experiment(self.database, experiment_id),
            self._missing_schemas(number, valid.schema_ids),
        )
        _refuse_missing(missing, number)
        return queue_entity(await self._insert_queue(number, valid, created_by))

    async def _insert_queue(self, number: int, valid: "ValidatedQueue", created_by: str | None) -> Document:
        now = get_current_time_millis()
        document = ReviewQueueFields(
            _id=f"rq-{call_token()}",
            workspace=current_workspace(),
            experiment_id=number,
            name=valid.name,
            name_key=valid.name.lower(),
            type=str(valid.queue_type),
            users=sorted(valid.users),
            schema_ids=sorted(valid.schema_ids),
            created_by=created_by,
            created_time=now,
            last_update_time=now,
        ).model_dump(by_alias=True, exclude_none=True)
        return await entities.insert(self._queues, document, _taken(valid.name))

    @mutation
    async def get_or_create_user_queue(self, experiment_id: str, *, user: str) -> "ReviewQueue":
        """The queue of a user, made if there is none; of all who ask at once, all get the same."""
        from mlflow.genai.review_queues.validation import normalize_user, validate_queue_for_create

        name = normalize_user(user)
        valid = validate_queue_for_create(name=name, queue_type="user", users=None, schema_ids=None)
        number = experiment_number(experiment_id)
        query = scoped({"experiment_id": number, "name_key": name})
        _, queue = await asyncio.gather(
            find_active_experiment(self.database, experiment_id), self._queues.find_one(query)
        )
        if queue is None:
            try:
                queue = await self._insert_queue(number, valid, name)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
                queue = await entities.find(self._queues, query, _taken(name))
        if queue["type"] != "user":
            raise MlflowException(
                f"A queue that is no user's has the name '{name}'; rename it to make one for this user.",
                RESOURCE_ALREADY_EXISTS,
            )
        return queue_entity(queue)

    @operation
    async def get_review_queue(self, queue_id: str) -> "ReviewQueue":
        """The queue with this id, also in a deleted experiment."""
        return queue_entity(await find_queue(self.database, queue_id))

    @operation
    async def get_review_queue_by_name(self, experiment_id: str, *, name: str) -> "ReviewQueue":
        """The queue that an experiment has under this name, in upper or lower case."""
        query = {"experiment_id": experiment_number(experiment_id), "name_key": name.lower()}
        _, document = await asyncio.gather(
            find_active_experiment(self.database, experiment_id), self._queues.find_one(scoped(query))
        )
        if document is None:
            text = f"Review queue with name '{name}' not found for experiment '{experiment_id}'."
            raise entities.unknown(text)()
        return queue_entity(document)

    @operation
    async def list_review_queues(
        self,
        experiment_id: str,
        *,
        user: str | None = None,
        item_id: str | None = None,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> "PagedList[ReviewQueue]":
        """The queues of an experiment, the newest first: all, a user's, or those that have an item."""
        from mlflow.genai.review_queues.validation import normalize_user

        validate_max_results(max_results, allow_null=True)
        limit = SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results
        query: Document = {"experiment_id": experiment_number(experiment_id)}
        if user is not None:
            query["users"] = normalize_user(user)
        _, (queues, token) = await asyncio.gather(
            find_active_experiment(self.database, experiment_id),
            self._page(query, item_id, limit, page_token),
        )
        return PagedList([queue_entity(document) for document in queues], token)

    async def _page(
        self, query: Document, item_id: str | None, limit: int, page_token: str | None
    ) -> tuple[list[Document], str | None]:
        if item_id is not None:
            holding = self._items.find(scoped({"item_id": item_id}), {"queue_id": 1}, batch_size=BATCH)
            query = {**query, "_id": {"$in": sorted([item["queue_id"] async for item in holding])}}
        return await entities.page(self._queues, query, PAGE_ORDER, limit, page_token, (int, str))

    @mutation
    async def update_review_queue(
        self,
        queue_id: str,
        *,
        users: list[str] | None = None,
        schema_ids: list[str] | None = None,
        name: str | None = None,
        new_owner: str | None = None,
    ) -> "ReviewQueue":
        """Change what is given; the questions only while the queue is empty, and a user's queue never."""
        while True:
            queue = await find_queue(self.database, queue_id)
            if queue["type"] == "user":
                raise invalid(
                    "A user's queue keeps its name, user, questions and owner. Make a custom queue instead."
                )
            change = _change(users, name, new_owner)
            query: Document = {"_id": queue_id}
            if schema_ids is not None:
                change["schema_ids"] = await self._new_schemas(queue, schema_ids)
                query["additions"] = queue["additions"]
            elif not change:
                return queue_entity(queue)
            change["last_update_time"] = get_current_time_millis()
            try:
                changed = await entities.change(
                    self._queues, query, {"$set": change}, unknown_queue(queue_id), _taken(change.get("name"))
                )
            except MlflowException as error:
                # Gone, or given items meanwhile: look again.
                if "additions" in query and error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    continue
                raise
            return queue_entity(changed)

    async def _new_schemas(self, queue: Document, schema_ids: list[str]) -> list[str]:
        from mlflow.genai.review_queues.validation import normalize_schema_ids

        if await self._items.find_one(scoped({"queue_id": queue["_id"]}), {"_id": 1}) is not None:
            raise invalid(
                "The questions of a review queue are fixed while it has items. Remove its items first."
            )
        wanted = normalize_schema_ids(schema_ids)
        _refuse_missing(await self._missing_schemas(queue["experiment_id"], wanted), queue["experiment_id"])
        return sorted(wanted)

    async def _missing_schemas(self, experiment: int, schema_ids: list[str]) -> list[str]:
        """Those of the questions that the experiment does not have."""
        if not schema_ids:
            return []
        query = scoped({"_id": {"$in": schema_ids}, "experiment_id": experiment})
        schemas = self.database.collection(LabelSchemaFields).find(query, {"_id": 1}, batch_size=BATCH)
        known = {schema["_id"] async for schema in schemas}
        return [schema_id for schema_id in schema_ids if schema_id not in known]

    @mutation
    async def delete_review_queue(self, queue_id: str) -> None:
        """Remove a queue with its items, if it is there. Answers of people stay."""
        in_queue = scoped({"queue_id": queue_id})
        await self._items.delete_many(in_queue)
        await self._queues.delete_one(scoped({"_id": queue_id}))
        # Once more, for items that came in while the queue was still there.
        await self._items.delete_many(in_queue)


def _change(users: list[str] | None, name: str | None, new_owner: str | None) -> Document:
    from mlflow.genai.review_queues.validation import (
        normalize_users,
        validate_custom_queue_name,
        validate_queue_owner,
    )

    change: Document = {}
    if new_owner is not None:
        change["created_by"] = validate_queue_owner(new_owner)
    if name is not None:
        valid = validate_custom_queue_name(name)
        change |= {"name": valid, "name_key": valid.lower()}
    if users is not None:
        change["users"] = sorted(normalize_users(users))
    return change


def _refuse_missing(missing: list[str], experiment: int) -> None:
    if missing:
        raise invalid(f"Label schema id(s) {missing} not found for experiment '{experiment}'.")


def _taken(name: str | None) -> entities.Refusal:
    return entities.taken(f"Review queue with name '{name}' already exists (names are case-insensitive).")
