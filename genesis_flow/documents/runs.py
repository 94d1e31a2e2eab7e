"""Runs: one document holds what is written a few times and read together."""

from typing import ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel


class RunInput(BaseModel):
    """A dataset that a run used; name, digest and context are copies, for searches."""

    id: str
    name: str
    digest: str
    context: str | None = None
    tags: list[tuple[str, str | None]] = Field(default_factory=list)


class RunFields(BaseModel):
    id: str = Field(alias="_id")
    workspace: str
    experiment_id: int
    name: str | None = None
    user_id: str | None = None
    status: str
    start_time: int | None = None
    end_time: int | None = None
    lifecycle_stage: str
    deleted_time: int | None = None
    artifact_uri: str | None = None
    params: dict[str, str | None] = Field(default_factory=dict)
    tags: dict[str, str | None] = Field(default_factory=dict)
    inputs: list[RunInput] = Field(default_factory=list)
    model_inputs: list[str] = Field(default_factory=list)
    model_outputs: list[tuple[str, int]] = Field(default_factory=list)
    # How many metrics the run has; see tracking/metrics.py for why it is counted.
    metric_keys: int = 0

    class Settings:
        name = "runs"
        indexes: ClassVar[list[IndexModel]] = [
            # The run table: newest first within experiments. The run id is the tie-break MLflow uses.
            IndexModel(
                [
                    ("experiment_id", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("start_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_start_time",
            ),
            # The same over so many experiments that merging one scan for each would cost more.
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("lifecycle_stage", ASCENDING),
                    ("start_time", DESCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_workspace",
            ),
            IndexModel([("params.$**", ASCENDING)], name="params"),
            IndexModel([("tags.$**", ASCENDING)], name="tags"),
            IndexModel([("inputs.name", ASCENDING)], name="by_dataset"),
            # What `mlflow gc` asks for.
            IndexModel([("deleted_time", ASCENDING)], name="by_deleted_time"),
        ]
        keep_nulls = False
