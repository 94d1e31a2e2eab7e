"""Scorers."""

from typing import TYPE_CHECKING, Any

from mlflow.entities import ScorerVersion
from pydantic import BaseModel, Field
from pymongo import ASCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.plain import Document

if TYPE_CHECKING:
    from mlflow.genai.scorers.online.entities import OnlineScoringConfig


LATEST: Document = {"versions": {"$slice": -1}, "experiment_id": 1, "name": 1, "online": 1}
"""The projection of a scorer with its latest version alone."""
HAS_VERSIONS: Document = {"versions.0": {"$exists": True}}
"""The condition that a scorer is seen: when its last version is deleted, it keeps its id and its settings."""
NAME_ORDER = [("experiment_id", ASCENDING), ("name", ASCENDING)]


class VersionOfScorer(BaseModel):
    """A version of a scorer."""

    version: int = Field(description="Its number, from 1.")
    text: str = Field(
        description="The serialized scorer, JSON. An endpoint of the gateway goes by its id in it."
    )
    creation_time: int = Field(description="When it was registered.")
    call: str = Field(description="The call that registered it, which may be repeated.")


class ScorerFields(Declared):
    """A scorer with its versions, and whether it scores new traces by itself."""

    id: str = Field(alias="_id", description="A UUID, with its dashes.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Name, also that of the assessments it makes.")
    versions: list[VersionOfScorer] = Field(description="Its versions, ascending.")
    binding: dict[str, Any] | None = Field(
        default=None,
        description=(
            "`{endpoint_id, time, updated}`: the endpoint of the last version that was registered with one; "
            "`updated` only where it was imported with a time of its own."
        ),
    )
    online: dict[str, Any] | None = Field(
        default=None, description="`{id, sample_rate, filter_string}`: which new traces it scores by itself."
    )

    class Settings(CollectionSettings):
        name = "scorers"
        indexes = [
            Index(
                NAME_ORDER,
                name="name_unique",
                unique=True,
                serves="One scorer of a name in an experiment; the scorers of experiments by name.",
            ),
            Index(
                [("online.sample_rate", ASCENDING)],
                name="by_sample_rate",
                partialFilterExpression={"online.sample_rate": {"$gt": 0}},
                serves="The scorers that score new traces, which the scheduler asks for each minute.",
            ),
            Index(
                [("binding.endpoint_id", ASCENDING)],
                name="by_endpoint",
                sparse=True,
                serves="The scorers that use an endpoint of the gateway.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments"}
        goes_with = {"experiment_id": "experiments"}
        forgets = {"binding.endpoint_id": "gateway_endpoints"}


def scorer_version(scorer: Document, version: Document, text: str) -> ScorerVersion:
    return ScorerVersion(
        experiment_id=str(scorer["experiment_id"]),
        scorer_name=scorer["name"],
        scorer_version=version["version"],
        serialized_scorer=text,
        creation_time=int(version["creation_time"]),
        scorer_id=scorer["_id"],
    )


def online_config(scorer: Document) -> "OnlineScoringConfig":
    # Imported here: it loads what a client that logs metrics does not need.
    from mlflow.genai.scorers.online.entities import OnlineScoringConfig

    online = scorer["online"]
    return OnlineScoringConfig(
        online_scoring_config_id=online["id"],
        scorer_id=scorer["_id"],
        sample_rate=online["sample_rate"],
        experiment_id=str(scorer["experiment_id"]),
        filter_string=online.get("filter_string"),
    )
