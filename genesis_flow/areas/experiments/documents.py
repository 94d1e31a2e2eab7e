"""Experiments, and the counters that number them."""

from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index


class ExperimentFields(Declared):
    """An experiment with its tags."""

    id: int = Field(
        alias="_id",
        description=(
            "Number of the experiment, from `counters`; `0` is the default experiment. MLflow shows "
            "it as text."
        ),
    )
    workspace: str = Field(description="Workspace; every query names it.")
    name: str = Field(description="Name, unique in the workspace, deleted experiments included.")
    artifact_location: str | None = Field(default=None, description="Where artifacts of new runs go.")
    lifecycle_stage: str = Field(description="`active` or `deleted`.")
    creation_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When name, tags or lifecycle last changed.")
    tags: dict[str, str | None] = Field(default_factory=dict, description="Values by escaped key.")
    pending: str | None = Field(
        default=None,
        description=(
            "Target stage while a delete or restore is carried to the runs, so that a killed one can "
            "be finished; `erased` while it is deleted for good and cannot be restored any more."
        ),
    )

    class Settings(CollectionSettings):
        name = "experiments"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING)],
                name="name_unique",
                unique=True,
                serves="`get_experiment_by_name`, and one name once, whoever else creates it at that moment.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("creation_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_creation_time",
                serves="The list of experiments, newest first, of one lifecycle stage.",
            ),
        ]
        keep_nulls = False


class CounterFields(Declared):
    """The last number given out for a kind of thing."""

    id: str = Field(alias="_id", description="What is counted: `experiments`.")
    last: int = Field(description="Last number given out.")

    class Settings(CollectionSettings):
        name = "counters"
