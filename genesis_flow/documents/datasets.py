"""Datasets that runs used as inputs: one document for each name and digest in an experiment."""

import hashlib
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


def dataset_key(experiment_id: int, name: str, digest: str) -> str:
    """The ``_id`` of a dataset: the same for all who log it, so that those who do it at once agree."""
    return hashlib.blake2b(f"{experiment_id}\n{digest}\n{name}".encode(), digest_size=16).hexdigest()
