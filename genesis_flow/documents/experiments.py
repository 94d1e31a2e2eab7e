"""Experiments, and the counters that number them."""

from typing import Any, ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel


class ExperimentFields(BaseModel):
    id: int = Field(alias="_id")
    workspace: str
    name: str
    artifact_location: str | None = None
    lifecycle_stage: str
    creation_time: int
    last_update_time: int
    tags: dict[str, str | None] = Field(default_factory=dict)
    # Set while a delete or restore is carried to the runs, so that a killed one can be finished.
    pending: str | None = None

    class Settings:
        name = "experiments"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("creation_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_creation_time",
            ),
        ]
        keep_nulls = False


class CounterFields(BaseModel):
    """The last number given out for a kind of thing."""

    id: str = Field(alias="_id")
    last: int

    class Settings:
        name = "counters"
        indexes: ClassVar[list[Any]] = []
