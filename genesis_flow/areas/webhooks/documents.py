"""Webhooks."""

from typing import Any

from mlflow.entities.webhook import Webhook, WebhookEvent
from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index


class WebhookFields(Declared):
    """A webhook: where to send which events of the registry."""

    id: str = Field(alias="_id", description="Webhook id.")
    workspace: str = Field(description="Workspace; every query names it.")
    name: str = Field(description="Name.")
    url: str = Field(description="Where events are sent.")
    description: str | None = Field(default=None, description="Description.")
    status: str = Field(description="`ACTIVE` or `DISABLED`.")
    events: list[str] = Field(description="Events as MLflow writes them: `registered_model.created`.")
    secret: str | None = Field(default=None, description="Secret for signatures, encrypted.")
    creation_time: int = Field(description="When it was made.")
    last_updated_time: int = Field(description="When it last changed.")

    class Settings(CollectionSettings):
        name = "webhooks"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("creation_time", DESCENDING), ("_id", ASCENDING)],
                name="by_creation_time",
                serves="The list of webhooks, newest first.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("events", ASCENDING),
                    ("creation_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_event",
                serves="The webhooks to call when something happens.",
            ),
        ]
        keep_nulls = False


def webhook_entity(document: dict[str, Any], secret: str | None = None) -> Webhook:
    return Webhook(
        webhook_id=document["_id"],
        name=document["name"],
        url=document["url"],
        events=[WebhookEvent.from_str(event) for event in document["events"]],
        creation_timestamp=int(document["creation_time"]),
        last_updated_timestamp=int(document["last_updated_time"]),
        description=document.get("description"),
        status=document["status"],
        secret=secret,
        workspace=document["workspace"],
    )
