"""Everything that belongs to traces, for those who delete.

Children go first, so that what is left of a killed deletion is found by the next one.
"""

from collections.abc import Sequence

from genesis_flow.database.connection import Database
from genesis_flow.database.scoping import current_workspace, scoped
from genesis_flow.documents import (
    AssessmentFields,
    SpanFields,
    SpanPayloadFields,
    TraceFields,
    TraceSumsFields,
)
from genesis_flow.documents.trace_sums import of_experiment
from genesis_flow.tracking.traces.departures import departing, place_of
from genesis_flow.tracking.traces.shared import portions, spans_within

_TRACES_AT_ONCE = 500


async def erase_traces(database: Database, trace_ids: Sequence[str]) -> int:
    """Delete traces with spans, long contents and assessments; returns how many there were."""
    erased = 0
    traces = database.collection(TraceFields)
    for some in portions(trace_ids, _TRACES_AT_ONCE):
        prefixes = {"_id": spans_within(some)}
        await database.collection(SpanPayloadFields).delete_many(prefixes)
        await database.collection(SpanFields).delete_many(prefixes)
        await database.collection(AssessmentFields).delete_many({"trace_id": {"$in": some}})
        going = scoped({"_id": {"$in": some}})
        found = await traces.find(going, {"experiment_id": 1, "request_time": 1}).to_list()
        async with departing(database, map(place_of, found)):
            result = await traces.delete_many(going)
        erased += result.deleted_count
    return erased


async def erase_assessments_of_runs(database: Database, run_ids: Sequence[str]) -> None:
    """Delete what evaluations that ran in these runs have found."""
    for some in portions(run_ids):
        await database.collection(AssessmentFields).delete_many(scoped({"source_run": {"$in": some}}))


async def erase_traces_of_experiment(database: Database, experiment_id: int) -> None:
    """Delete all traces of an experiment."""
    traces = database.collection(TraceFields).find(scoped({"experiment_id": experiment_id}), {"_id": 1})
    trace_ids = [trace["_id"] async for trace in traces]
    await erase_traces(database, trace_ids)
    sums = of_experiment(current_workspace(), experiment_id)
    await database.collection(TraceSumsFields).delete_many({"_id": sums})
