"""Datasets that runs used as inputs: one document for each name and digest in an experiment."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pymongo import ASCENDING, IndexModel


class DatasetFields(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(alias="_id")
    workspace: str
    experiment_id: int
    name: str
    digest: str
    source_type: str | None = None
    source: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    profile: str | None = None
    # The values of mlflow.data.context under which runs used it; None stands for a use without one.
    contexts: list[str | None] = Field(default_factory=list)

    class Settings:
        name = "datasets"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [("experiment_id", ASCENDING), ("name", ASCENDING), ("digest", ASCENDING)],
                name="name_digest_unique",
                unique=True,
            )
        ]
