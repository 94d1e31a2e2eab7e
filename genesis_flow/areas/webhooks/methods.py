"""Webhooks. MLflow's server delivers them; this is where they are kept.

Every call is one round trip, create and update included.

A secret is stored encrypted. Nothing lists it or hands it back to the one who set it: only ``get_webhook``
and ``list_webhooks_by_event`` carry it, in the process, because MLflow signs deliveries with what these
return. MLflow's REST answers leave it out.
"""

import logging
import uuid
from typing import NoReturn

from mlflow.entities.webhook import Webhook, WebhookEvent, WebhookStatus, WebhookTestResult
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.time import get_current_time_millis
from pymongo import ASCENDING, DESCENDING, ReturnDocument

from genesis_flow.areas.webhooks.documents import WebhookFields, webhook_entity
from genesis_flow.areas.webhooks.secrets import decrypt, encrypt
from genesis_flow.compat.validation import (
    validate_webhook_events,
    validate_webhook_name,
    validate_webhook_url,
)
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import create_token, parse_token

_logger = logging.getLogger("genesis_flow")

_DEFAULT_PAGE_SIZE = 100
_LARGEST_PAGE = 1_000
_ORDER = [("creation_time", DESCENDING), ("_id", ASCENDING)]


class Webhooks(Area):
    @property
    def _webhooks(self) -> Collection:
        return self.database.collection(WebhookFields)

    @mutation
    async def create_webhook(
        self,
        name: str,
        url: str,
        events: list[WebhookEvent],
        description: str | None = None,
        secret: str | None = None,
        status: WebhookStatus | None = None,
    ) -> Webhook:
        """Make a webhook; its secret is kept encrypted."""
        validate_webhook_name(name)
        await _check_url(url)
        validate_webhook_events(events)
        now = get_current_time_millis()
        fields = WebhookFields(
            _id=str(uuid.UUID(call_token())),
            workspace=current_workspace(),
            name=name,
            url=url,
            description=description,
            status=WebhookStatus(status or WebhookStatus.ACTIVE).value,
            events=_event_names(events),
            secret=None if secret is None else encrypt(secret),
            creation_time=now,
            last_updated_time=now,
        )
        document = fields.model_dump(by_alias=True, exclude_none=True)
        return webhook_entity(await insert_once(self._webhooks, document))

    @operation
    async def get_webhook(self, webhook_id: str) -> Webhook:
        """A webhook, by its id."""
        document = await self._webhooks.find_one(scoped({"_id": webhook_id}))
        if document is None:
            _refuse_unknown(webhook_id)
        return webhook_entity(document, _secret(document))

    @operation
    async def list_webhooks(
        self, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Webhook]:
        """The newest first, without their secrets."""
        webhooks, token = await self._page_of({}, max_results, page_token)
        return PagedList([webhook_entity(document) for document in webhooks], token)

    @operation
    async def list_webhooks_by_event(
        self, event: WebhookEvent, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Webhook]:
        """The webhooks to deliver an event to.

        One whose secret cannot be read is left out: its deliveries would not be signed, and it must not keep
        those of the others from being made.
        """
        found, token = await self._page_of({"events": str(event)}, max_results, page_token)
        webhooks = []
        for document in found:
            try:
                webhooks.append(webhook_entity(document, _secret(document)))
            except MlflowException as error:
                _logger.error("Webhook %s gets no deliveries. %s", document["_id"], error)
        return PagedList(webhooks, token)

    async def _page_of(
        self, query: Document, max_results: int | None, page_token: str | None
    ) -> tuple[list[Document], str | None]:
        limit = max_results or _DEFAULT_PAGE_SIZE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise MlflowException(
                f"max_results must be between 1 and {_LARGEST_PAGE}.", INVALID_PARAMETER_VALUE
            )
        question = ["webhooks", query]
        position = parse_token(page_token, question, (int, str))
        if position is not None:
            query = {**query, **behind(_ORDER, position)}
        cursor = self._webhooks.find(scoped(query), sort=_ORDER, limit=limit + 1, batch_size=limit + 1)
        webhooks = await cursor.to_list()
        if len(webhooks) <= limit:
            return webhooks, None
        last = webhooks[limit - 1]
        return webhooks[:limit], create_token(question, [last[field] for field, _ in _ORDER])

    @mutation
    async def update_webhook(
        self,
        webhook_id: str,
        name: str | None = None,
        description: str | None = None,
        url: str | None = None,
        events: list[WebhookEvent] | None = None,
        secret: str | None = None,
        status: WebhookStatus | None = None,
    ) -> Webhook:
        """Change those fields of a webhook that are given."""
        if name is not None:
            validate_webhook_name(name)
        if url is not None:
            await _check_url(url)
        if events is not None:
            validate_webhook_events(events)
        change = {
            "name": name,
            "description": description,
            "url": url,
            "events": None if events is None else _event_names(events),
            "secret": None if secret is None else encrypt(secret),
            "status": None if status is None else WebhookStatus(status).value,
            "last_updated_time": get_current_time_millis(),
        }
        document = await self._webhooks.find_one_and_update(
            scoped({"_id": webhook_id}),
            {"$set": {field: value for field, value in change.items() if value is not None}},
            return_document=ReturnDocument.AFTER,
        )
        return webhook_entity(document or _refuse_unknown(webhook_id))

    @mutation
    async def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook."""
        result = await self._webhooks.delete_one(scoped({"_id": webhook_id}))
        if not result.deleted_count and not is_repetition():
            _refuse_unknown(webhook_id)

    @operation
    async def test_webhook(self, webhook_id: str, event: WebhookEvent | None = None) -> WebhookTestResult:
        """Deliver MLflow's example of ``event``, or of the webhook's first one, and tell what came back."""
        from mlflow.webhooks.delivery import test_webhook

        return await in_thread(test_webhook, await self.get_webhook(webhook_id), event)


async def _check_url(url: str) -> None:
    """In a thread, because the check resolves the host name."""
    await in_thread(validate_webhook_url, url)


def _event_names(events: list[WebhookEvent]) -> list[str]:
    return list(dict.fromkeys(str(event) for event in events))


def _secret(document: Document) -> str | None:
    stored = document.get("secret")
    return None if stored is None else decrypt(stored)


def _refuse_unknown(webhook_id: str) -> NoReturn:
    raise MlflowException(f"Webhook with ID {webhook_id} not found.", RESOURCE_DOES_NOT_EXIST)
