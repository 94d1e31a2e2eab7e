"""Announcing that traces are about to leave their hour: to go, or to begin at another time or elsewhere.

Sums of traces tell by the traces of a time whether they are outdated (``documents.traces.TOUCH``). A trace
that leaves takes that with it, so a note is made of the hour, before and after. Before: if the process dies
in between, sums are made anew for nothing. After: if the change took longer than ``MARGIN_SECONDS``, sums
that were made in between do not count either.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pymongo
from pymongo import UpdateOne

from genesis_flow.areas.traces.sums.documents import (
    DAY,
    HOUR,
    KEEPABLE,
    LEAVING,
    TraceSumsFields,
    costs_note_key,
    note_key,
)
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import current_workspace
from genesis_flow.mongo.writes import until_done

# An experiment and a time.
Place = tuple[int, int]

# For how long before they were made sums distrust what was announced or touched: longer than it takes from
# the moment when a command reads the server's clock to the moment when the change can be seen.
MARGIN_SECONDS = 60
_LONGEST_CHANGE_SECONDS = 30


def stays(experiment_id: int, time: int) -> Document:
    """The condition that a trace is nowhere yet, or in this experiment in the hour of this time."""
    first = time // HOUR * HOUR
    elsewhere = [{"request_time": {"$lt": first}}, {"request_time": {"$gte": first + HOUR}}]
    return {"experiment_id": {"$in": [None, experiment_id]}, "$nor": elsewhere}


def place_of(trace: Document) -> Place | None:
    """Where a trace is; a stub is nowhere."""
    return (trace["experiment_id"], trace["request_time"]) if "experiment_id" in trace else None


@asynccontextmanager
async def departing(database: Database, places: Iterable[Place | None]) -> AsyncIterator[None]:
    """Around the command with which traces leave these places."""
    hours = {(place[0], place[1] // HOUR) for place in places if place is not None}
    keepable = [(experiment_id, hour) for experiment_id, hour in hours if hour * HOUR // DAY in KEEPABLE]
    keys = {note_key(current_workspace(), *each) for each in keepable}
    # Whether it was a call of the gateway is not known here.
    keys |= {costs_note_key(hour) for _, hour in keepable}
    notes = [UpdateOne({"_id": key}, LEAVING, upsert=True) for key in sorted(keys)]
    if not notes:
        yield
        return
    sums = database.collection(TraceSumsFields)
    with pymongo.timeout(_LONGEST_CHANGE_SECONDS):
        await sums.bulk_write(notes, ordered=False)
        yield
    # Again if need be: a repetition of the call would not find the traces where they were.
    await until_done(lambda: sums.bulk_write(notes, ordered=False))
