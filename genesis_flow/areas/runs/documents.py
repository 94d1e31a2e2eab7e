"""Runs: one document holds what is written a few times and read together."""

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.sharding import ShardKey


class RunInput(BaseModel):
    """A dataset that a run used; name, digest and context are copies, for searches."""

    id: str = Field(description="The dataset's `_id` in `datasets`.")
    name: str = Field(description="The dataset's name.")
    digest: str = Field(description="The dataset's digest.")
    context: str | None = Field(
        default=None, description="Value of the tag `mlflow.data.context`, such as `training`."
    )
    tags: list[tuple[str, str | None]] = Field(
        default_factory=list, description="All tags of the input, as pairs."
    )


class RunFields(Declared):
    """A run: what is written a few times and read together. Its metrics are in collections of their own."""

    id: str = Field(alias="_id", description="Run id.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str | None = Field(default=None, description="Run name; the tag `mlflow.runName` says the same.")
    user_id: str | None = Field(default=None, description="Who started it.")
    status: str = Field(description="`RUNNING`, `SCHEDULED`, `FINISHED`, `FAILED` or `KILLED`.")
    start_time: int | None = Field(default=None, description="Start.")
    end_time: int | None = Field(default=None, description="End.")
    lifecycle_stage: str = Field(description="`active` or `deleted`.")
    deleted_time: int | None = Field(
        default=None,
        description="When it was deleted; `mlflow gc --older-than` compares with it.",
    )
    artifact_uri: str | None = Field(default=None, description="Folder of its artifacts.")
    params: dict[str, str | None] = Field(
        default_factory=dict, description="Values by escaped key; a param never changes."
    )
    tags: dict[str, str | None] = Field(default_factory=dict, description="Values by escaped key.")
    inputs: list[RunInput] = Field(default_factory=list, description="Datasets that it used.")
    model_inputs: list[str] = Field(default_factory=list, description="Ids of logged models that it used.")
    model_outputs: list[tuple[str, int]] = Field(
        default_factory=list, description="Logged models that it made: pairs of id and step."
    )
    metric_keys: int = Field(
        default=0,
        description="How many metrics it has; `areas/metrics/methods.py` says why it is counted.",
    )
    places: int | None = Field(
        default=None,
        description="How many places its wide steps got; without any, its end has nothing to fold; ADR 36.",
    )
    erasing: bool | None = Field(
        default=None, description="Set while it is deleted for good: it cannot be restored any more; ADR 18."
    )

    class Settings(CollectionSettings):
        name = "runs"
        derived = ("places",)
        shard = ShardKey("_id", "A run is written by its id alone, in every call of a training.")
        refers = {
            "experiment_id": "experiments",
            "inputs": "datasets",
            "model_inputs": "logged_models",
            "model_outputs": "logged_models",
        }
        indexes = [
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("start_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_start_time",
                serves=(
                    "The run table: newest first within experiments. The run id is the tie-break MLflow uses."
                ),
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("start_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_workspace",
                serves="The same over so many experiments that merging one scan for each would cost more.",
            ),
            Index([("params.$**", ASCENDING)], name="params", serves="Filters by a param, whatever its key."),
            Index(
                [("tags.$**", ASCENDING)],
                name="tags",
                serves="Filters by a tag, whatever its key, such as `tags.mlflow.parentRunId`.",
            ),
            Index(
                [("inputs.name", ASCENDING)],
                name="by_dataset",
                serves="Filters by the name of a dataset input.",
            ),
            Index([("deleted_time", ASCENDING)], name="by_deleted_time", serves="What `mlflow gc` asks for."),
        ]
        keep_nulls = False
