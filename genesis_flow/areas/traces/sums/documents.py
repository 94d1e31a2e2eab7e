"""What readers of trace metrics keep for each other: sums of traces by day.

Everything here can be made again from the traces, so the collection may be dropped at any time, as a whole.
ADR 25 says why an answer from sums is always that of the traces.

Ids are ``workspace|experiment|metric`` for the document of whoever makes sums, the same with ``|day`` for the
sums of a day, and ``workspace|experiment||hour`` for the note that a trace has left an hour.
"""

from typing import Any

from bson.timestamp import Timestamp
from pydantic import ConfigDict, Field

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.keys import SEPARATOR, children_of

HOUR = 3_600_000
DAY = 24 * HOUR
# Days that can be kept: 1970 to 2243. Others are asked of the traces.
KEEPABLE = range(100_000)

# The update of a note.
LEAVING: dict[str, Any] = {"$currentDate": {"left": {"$type": "timestamp"}}}


class TraceSumsFields(Declared):
    """Sums of traces that readers of metrics keep for each other; dropping all of them is harmless."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    id: str = Field(
        alias="_id",
        description=(
            "`workspace|experiment|metric` of whoever makes sums, with `|day` of the sums of a day; "
            "`workspace|experiment||hour` of a note that traces left that hour; `workspace||` of one that "
            "speaks of all."
        ),
    )
    began: Timestamp | None = Field(
        default=None, description="Maker's: when somebody last began to sum up, by the clock of the servers."
    )
    made: Timestamp | None = Field(
        default=None, description="Day: the `began` of whoever made or confirmed these sums."
    )
    rows: list[dict[str, Any]] | None = Field(
        default=None,
        description=(
            "Day: `key` (name, and status if the metric has it), `count`, and of values `total`, `low`, "
            "`high` and `values`: all of them in order, 4 or 8 bytes each, little-endian. Absent if there is "
            "too much to keep."
        ),
    )
    left: Timestamp | None = Field(
        default=None, description="Note: when a trace last was about to leave the hour."
    )

    class Settings(CollectionSettings):
        name = "trace_sums"
        keep_nulls = False


def maker_key(workspace: str, experiment_id: int, metric: str) -> str:
    return SEPARATOR.join((workspace, str(experiment_id), metric))


def day_key(workspace: str, experiment_id: int, metric: str, day: int) -> str:
    return SEPARATOR.join((workspace, str(experiment_id), metric, f"{day:05d}"))


def note_key(workspace: str, experiment_id: int, hour: int) -> str:
    return SEPARATOR.join((workspace, str(experiment_id), "", str(hour)))


def note_for_all(workspace: str) -> str:
    """The id of the note that speaks of all traces of all experiments."""
    return SEPARATOR.join((workspace, "", ""))


def notes_of(workspace: str, experiment_id: int) -> dict[str, str]:
    return children_of(maker_key(workspace, experiment_id, ""))


def note_everything(workspace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which document to update and how, to say that any trace may change now: for changes in bulk."""
    return {"_id": note_for_all(workspace)}, LEAVING


def of_experiment(workspace: str, experiment_id: int) -> dict[str, str]:
    """The condition on ``_id`` of all that is kept of an experiment."""
    return children_of(SEPARATOR.join((workspace, str(experiment_id))))


def number_in(key: str) -> int:
    """The day or the hour that an id ends in."""
    return int(key.rpartition(SEPARATOR)[2])
