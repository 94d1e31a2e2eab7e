"""Metrics: a small head for each run and key, packed blocks for the history behind it."""

from typing import ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

# A tail of this many points is packed into a block.
TAIL_LIMIT = 128
# From this many points of one metric in one batch on, a block of their own is the better place.
BLOCK_FROM = 64


class LatestPoint(BaseModel):
    """The field order is the rule: MongoDB compares subdocuments field by field, so ``$max`` keeps the
    greatest step, then timestamp, then value, which is what MLflow calls the latest."""

    step: int
    timestamp: int
    value: float


class MetricHeadFields(BaseModel):
    """The latest point of one metric of one run, and the points not yet packed."""

    id: str = Field(alias="_id")
    workspace: str
    run_uuid: str
    key: str
    experiment_id: int
    # Copies of the run's, neither of which changes while it is active: the first makes ties between
    # equal values an index order, the second lets one command both check the run and write the point.
    start_time: int | None = None
    active: bool
    latest: LatestPoint
    # [timestamp, step, value]
    tail: list[tuple[int, int, float]] = Field(default_factory=list)
    # How many times points went to blocks; 0 tells a reader that the tail is the whole history.
    packed: int = 0

    class Settings:
        name = "latest_metrics"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [
                    ("experiment_id", ASCENDING),
                    ("key", ASCENDING),
                    ("latest.value", ASCENDING),
                    ("start_time", DESCENDING),
                    ("run_uuid", ASCENDING),
                ],
                name="by_value",
            )
        ]


class MetricBlockFields(BaseModel):
    """Packed points of one metric: parallel little-endian columns, 24 bytes a point before compression."""

    id: str = Field(alias="_id")
    n: int
    first_timestamp: int
    last_timestamp: int
    first_step: int
    last_step: int
    timestamps: bytes
    steps: bytes
    values: bytes

    class Settings:
        name = "metrics"
        indexes: ClassVar[list[IndexModel]] = []
