"""What readers of traces keep for each other: sums for metrics by day, and what calls of the gateway cost.

Everything here can be made again from the traces, so the collection may be dropped at any time, as a whole.
ADR 25 says why an answer from sums is always that of the traces.

Ids are ``workspace|experiment|metric`` for the document of whoever makes sums, the same with ``|day`` for the
sums of a day, and ``workspace|experiment||hour`` for the note that a trace has left an hour. Costs are those
of all workspaces: ``|gateway`` for their maker, ``|gateway|slot`` for costs since then, ``|gateway||hour``.
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

# What begins the ids of all that is kept of costs: no workspace has an empty name.
COSTS = f"{SEPARATOR}gateway"

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
            "speaks of all. Of what calls of the gateway have cost, in all workspaces: `|gateway`, "
            "`|gateway|` and the first five minutes, counted since 1970; notes are `|gateway||hour` and "
            "`|gateway|`."
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
    until: int | None = Field(default=None, description="Costs: the five minutes that they end before.")
    costs: dict[str, list[dict[str, Any]]] | None = Field(
        default=None,
        description=(
            "Costs: for `all`, by `endpoint`, by `user` and by `both`, in each workspace, the sum over the "
            "traces. Absent if there is too much to keep."
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


def costs_key(slot: int) -> str:
    return SEPARATOR.join((COSTS, f"{slot:09d}"))


def costs_note_key(hour: int) -> str:
    return SEPARATOR.join((COSTS, "", str(hour)))


# The note that speaks of all costs.
COSTS_OF_ALL = COSTS + SEPARATOR
COSTS_NOTES = children_of(COSTS_OF_ALL)


def notes_of_everything(workspace: str) -> list[str]:
    """The ids of the notes that say that any trace of a workspace may change now: for changes in bulk."""
    return [note_for_all(workspace), COSTS_OF_ALL]


def of_experiment(workspace: str, experiment_id: int) -> dict[str, str]:
    """The condition on ``_id`` of all that is kept of an experiment."""
    return children_of(SEPARATOR.join((workspace, str(experiment_id))))


def number_in(key: str) -> int:
    """The day or the hour that an id ends in."""
    return int(key.rpartition(SEPARATOR)[2])
