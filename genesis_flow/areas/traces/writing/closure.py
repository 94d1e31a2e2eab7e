"""Everything that belongs to traces, for those who delete.

First the traces are marked: nobody sees them any more, and nobody adds to them. Then their children go, and
they themselves last, so that what is left of a killed deletion is found by the next one (ADR 18). The mark
says whose it is: of two deletions at once one goes on, so that none removes what comes after the other.
"""

import uuid
from collections.abc import Sequence

from genesis_flow.areas.issues.counts import delete_assessments
from genesis_flow.areas.traces.documents import (
    ERASED,
    ERASING,
    KNOWN,
    SpanFields,
    SpanPayloadFields,
    TraceFields,
)
from genesis_flow.areas.traces.shared import spans_within
from genesis_flow.areas.traces.sums.departures import departing, place_of
from genesis_flow.areas.traces.sums.documents import TraceSumsFields, of_experiment
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.followers import delete_followers
from genesis_flow.mongo.scoping import current_workspace, scoped

_TRACES_AT_ONCE = 500


async def erase_traces(database: Database, trace_ids: Sequence[str]) -> int:
    """Delete traces with spans, long contents and assessments; returns how many there were."""
    erased = 0
    for portion in portions(trace_ids, _TRACES_AT_ONCE):
        mine = scoped({"erasing.by": uuid.uuid4().hex})
        going = await _mark(database, portion, mine["erasing.by"])
        if not going:
            continue
        prefixes = {"_id": spans_within(going)}
        await database.collection(SpanPayloadFields).delete_many(prefixes)
        await database.collection(SpanFields).delete_many(prefixes)
        await delete_assessments(database, {"trace_id": {"$in": going}})
        await delete_followers(database, "traces", going)
        gone = await database.collection(TraceFields).delete_many({"_id": {"$in": going}, **mine})
        erased += gone.deleted_count
    return erased


async def _mark(database: Database, trace_ids: list[str], mark: str) -> list[str]:
    """Mark traces, those too whose deletion was cut off; returns the ids of those that have this mark."""
    traces = database.collection(TraceFields)
    of_ids = scoped({"_id": {"$in": trace_ids}})
    fields = {"experiment_id": 1, "request_time": 1, "erasing": 1}
    before = await traces.find(of_ids, fields).to_list()
    async with departing(database, map(place_of, before)):
        await traces.update_many(
            {**of_ids, **KNOWN},
            {
                "$rename": {"experiment_id": "erasing.experiment_id"},
                "$set": {"spans_location": ERASED, "erasing.by": mark},
            },
        )
    if any("erasing" in trace for trace in before):
        await traces.update_many({**of_ids, **ERASING}, {"$set": {"erasing.by": mark}})
    marked = traces.find({**of_ids, "erasing.by": mark}, {"_id": 1})
    return [trace["_id"] async for trace in marked]


def within(experiment_id: int) -> Document:
    """The condition that a trace is in an experiment, or was until a deletion that was cut off."""
    return {
        "$or": [
            {"experiment_id": experiment_id},
            {**ERASING, "erasing.experiment_id": experiment_id},
        ]
    }


async def erase_assessments_of_runs(database: Database, run_ids: Sequence[str]) -> None:
    """Delete what evaluations that ran in these runs have found."""
    for portion in portions(run_ids):
        await delete_assessments(database, scoped({"source_run": {"$in": portion}}))


async def erase_traces_of_experiment(database: Database, experiment_id: int) -> None:
    """Delete all traces of an experiment."""
    traces = database.collection(TraceFields).find(scoped(within(experiment_id)), {"_id": 1})
    trace_ids = [trace["_id"] async for trace in traces]
    await erase_traces(database, trace_ids)
    sums = of_experiment(current_workspace(), experiment_id)
    await database.collection(TraceSumsFields).delete_many({"_id": sums})
