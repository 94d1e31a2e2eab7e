"""Datasets that runs used as inputs: one document for each name and digest in an experiment."""

import hashlib

from pydantic import ConfigDict, Field
from pymongo import ASCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index


class DatasetFields(Declared):
    """A dataset that runs of an experiment used as input."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(alias="_id", description="Hash of experiment, name and digest.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Name.")
    digest: str = Field(description="Digest of the content, made by the client.")
    source_type: str | None = Field(default=None, description="Kind of its source, such as `local`.")
    source: str | None = Field(default=None, description="Its source, as MLflow's JSON text.")
    schema_: str | None = Field(
        default=None, alias="schema", description="Its schema, as MLflow's JSON text."
    )
    profile: str | None = Field(default=None, description="Its profile, as MLflow's JSON text.")
    contexts: list[str | None] = Field(
        default_factory=list,
        description=(
            "The values of `mlflow.data.context` under which runs used it; null stands for a use without one."
        ),
    )

    class Settings(CollectionSettings):
        name = "datasets"
        refers = {"experiment_id": "experiments"}
        indexes = [
            Index(
                [("experiment_id", ASCENDING), ("name", ASCENDING), ("digest", ASCENDING)],
                name="name_digest_unique",
                unique=True,
                serves="The datasets of an experiment, and one dataset once.",
            ),
        ]


def dataset_key(experiment_id: int, name: str, digest: str) -> str:
    """The ``_id`` of a dataset: the same for all who log it, so that those who do it at once agree."""
    return hashlib.blake2b(f"{experiment_id}\n{digest}\n{name}".encode(), digest_size=16).hexdigest()
