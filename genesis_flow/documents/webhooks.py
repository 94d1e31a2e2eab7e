"""Webhooks."""

from typing import ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel


class WebhookFields(BaseModel):
    id: str = Field(alias="_id")
    workspace: str
    name: str
    url: str
    description: str | None = None
    status: str
    # As MLflow writes them: "registered_model.created".
    events: list[str]
    # Encrypted.
    secret: str | None = None
    creation_time: int
    last_updated_time: int

    class Settings:
        name = "webhooks"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [("workspace", ASCENDING), ("creation_time", DESCENDING), ("_id", ASCENDING)],
                name="by_creation_time",
            ),
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("events", ASCENDING),
                    ("creation_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_event",
            ),
        ]
        keep_nulls = False
