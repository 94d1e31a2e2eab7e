"""Metrics: a small head for each run and key, packed blocks for the history behind it."""

from datetime import datetime

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.sharding import ShardKey

# A tail of this many points is packed into a block.
TAIL_LIMIT = 128
# From this many points of one metric in one batch on, a block of their own is the better place.
BLOCK_FROM = 64
# Points of a settled block. Never changed: the place of a point is computed from it.
SETTLED_POINTS = 1024
# When points have gone to blocks so many times, it is tried to settle them.
SETTLE_EVERY = 8
# With more open blocks a history is left to `genesis-migrate repack`, and its curve is read as a whole.
MOST_OPEN = 64


class LatestPoint(BaseModel):
    """The field order is the rule: MongoDB compares subdocuments field by field, so ``$max`` keeps the
    greatest step, then timestamp, then value, which is what MLflow calls the latest."""

    step: int = Field(description="Step.")
    timestamp: int = Field(description="Time.")
    value: float = Field(description="Value; NaN and infinities as they are.")


class WaitingRow(BaseModel):
    """The points of one step of many metrics; `areas/metrics/places.py` reads it."""

    n: int = Field(description="Number of points.")
    timestamps: int | bytes = Field(
        description="Times, signed 64-bit and little-endian; one number if all are the same."
    )
    steps: int | bytes = Field(description="Steps, likewise.")
    values: bytes = Field(description="Values, IEEE doubles.")
    keys: bytes | None = Field(
        default=None,
        description="Positions in `keys`, unsigned 32-bit; absent if they are the first ones in their order.",
    )


class MetricHeadFields(Declared):
    """The latest point of one metric of one run, and the points not yet packed.

    Or a place, in which wide steps of a run wait until they become part of heads and blocks (ADR 36).
    """

    id: str = Field(alias="_id", description="`run|key`; of a place `run|` + tab + `|...`, before all heads.")
    workspace: str = Field(description="Workspace; every query names it.")
    run_uuid: str = Field(description="Its run.")
    key: str = Field(description="Name of the metric, not escaped; of a place a tab.")
    experiment_id: int = Field(description="Copy of the run's.")
    start_time: int | None = Field(
        default=None,
        description=(
            "Copy of the run's, which never changes while it is active; makes ties between equal "
            "values an index order."
        ),
    )
    active: bool = Field(
        description="Copy of the run's lifecycle: one command both checks the run and writes the point."
    )
    latest: LatestPoint | None = Field(
        default=None,
        description="The point with the greatest step, then timestamp, then value; `$max` keeps it.",
    )
    tail: list[tuple[int, int, float]] = Field(
        default_factory=list, description="Points not yet packed: `[timestamp, step, value]`, at most 128."
    )
    packed: int = Field(
        default=0,
        description=(
            "How many times points went to blocks; 0 tells a reader that the tail is the whole history."
        ),
    )

    keys: list[str] | None = Field(
        default=None, description="Of a place: its metrics; only ever more, and all with a head."
    )
    rows: list[WaitingRow] | None = Field(
        default=None, description="Of a place: the steps that wait, at most 128."
    )
    folded: int | None = Field(
        default=None, description="Of a place: how many times its rows became part of heads and blocks."
    )
    folds: int | None = Field(
        default=None,
        description=(
            "How many times points came to it from a place; such changes tell no new points to followers."
        ),
    )
    written: datetime | None = Field(
        default=None, description="Of a place: when its last row came, by the server's clock."
    )

    class Settings(CollectionSettings):
        name = "latest_metrics"
        shard = ShardKey("_id", "The heads of a run lie together: one shard answers what it logged.")
        refers = {"run_uuid": "runs", "experiment_id": "experiments"}
        indexes = [
            Index(
                [
                    ("experiment_id", ASCENDING),
                    ("key", ASCENDING),
                    ("latest.value", ASCENDING),
                    ("start_time", DESCENDING),
                    ("run_uuid", ASCENDING),
                ],
                name="by_value",
                serves=(
                    "Filters and orders by a metric: the best runs of an experiment, without looking at "
                    "other runs."
                ),
            ),
        ]


class MetricBlockFields(Declared):
    """Packed points of one metric. Blocks are open, named after their content, or settled: numbered pieces of
    equal size of the curve, so that the place of a point is known by its number."""

    id: str = Field(
        alias="_id",
        description=(
            "Open: `run|key|first timestamp-hash of the points`, packing twice makes one block. Settled: "
            "`run|key|s` and its number in eight hexadecimal digits."
        ),
    )
    n: int = Field(description="Number of points; 1,024 in a settled block.")
    first_timestamp: int = Field(description="Least timestamp.")
    last_timestamp: int = Field(description="Greatest timestamp.")
    first_step: int | None = Field(default=None, description="Least step; of settled blocks.")
    last_step: int | None = Field(default=None, description="Greatest step; of settled blocks.")
    format: int | None = Field(default=None, description="2; absent in blocks of the first format.")
    data: bytes | None = Field(
        default=None, description="Points of format 2, see `areas/metrics/packing.py`."
    )
    timestamps: bytes | None = Field(
        default=None, description="First format: timestamps, little-endian and signed, eight bytes each."
    )
    steps: bytes | None = Field(default=None, description="First format: steps, as the timestamps.")
    values: bytes | None = Field(default=None, description="First format: values, IEEE doubles.")
    folded: bool | None = Field(
        default=None, description="Whether its points come from a place, where followers saw them first."
    )

    class Settings(CollectionSettings):
        name = "metrics"
        shard = ShardKey("_id", "The blocks of a history lie together and are read by their beginning.")
