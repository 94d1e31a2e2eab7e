"""What several areas of traces need: finding a trace, its children, and keeping their copies right."""

import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from bson.regex import Regex
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.tracing.constant import SpansLocation
from mlflow.utils.uri import append_to_uri_path

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import refuse_unknown_experiment
from genesis_flow.areas.traces.documents import KNOWN, AssessmentFields, SpanFields, TraceFields
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.error_edge import Meanwhile
from genesis_flow.mongo.scoping import current_workspace, scoped, workspaces_enabled
from genesis_flow.mongo.waiting import both

# Traces whose spans are here; those of others lie in artifacts and must not get new ones.
HERE: Document = {"spans_location": {"$in": [None, SpansLocation.TRACKING_STORE.value]}}

# Fields of its experiment that a new trace needs.
_EXPERIMENT = {"lifecycle_stage": 1, "artifact_location": 1}


def known(trace_id: str) -> Document:
    return scoped({"_id": trace_id, **KNOWN})


async def find_trace(database: Database, trace_id: str, projection: Document | None = None) -> Document:
    """The trace's document, or MLflow's error for a trace that is not there."""
    trace = await database.collection(TraceFields).find_one(known(trace_id), projection)
    if trace is None:
        refuse_unknown_trace(trace_id)
    return trace


def check_new_id(trace_id: str) -> None:
    """Raise if the id of a new trace cannot be a folder of artifacts, or changes what their URI means."""
    is_folder = trace_id and trace_id.rstrip(" .") == trace_id and "/" not in trace_id
    if not is_folder or any(each in "%?#" or ord(each) < 32 or ord(each) == 127 for each in trace_id):
        raise MlflowException.invalid_parameter_value(
            f"Invalid trace ID {trace_id!r:.300}: it names a folder, so it must not contain '/', '%', '?', "
            "'#' or control characters, nor end with a space or a period."
        )


def refuse_foreign_trace(trace_id: str) -> NoReturn:
    raise MlflowException.invalid_parameter_value(
        f"Trace with ID '{trace_id}' already exists in another experiment."
    )


async def refuse_traces_of_others(database: Database, trace_ids: Sequence[str]) -> None:
    """Refuse ids that another workspace has taken: nothing must be written below them."""
    if not workspaces_enabled():
        return
    traces, other = database.everywhere(TraceFields), {"$ne": current_workspace()}
    for some in portions(trace_ids):
        found = await traces.find_one({"_id": {"$in": some}, "workspace": other}, {"_id": 1})
        if found is not None:
            refuse_foreign_trace(found["_id"])


def refuse_unknown_trace(trace_id: str) -> NoReturn:
    raise MlflowException(f"Trace with ID '{trace_id}' not found.", RESOURCE_DOES_NOT_EXIST)


def refuse_erased(trace_id: str) -> NoReturn:
    raise Meanwhile(
        f"Trace '{trace_id}' is being deleted. Log it again in a moment, and it starts anew; if its deletion "
        "was interrupted, delete it again first.",
        TEMPORARILY_UNAVAILABLE,
    )


async def find_experiment(database: Database, number: int) -> Document | None:
    return await database.collection(ExperimentFields).find_one(scoped({"_id": number}), _EXPERIMENT)


async def experiment_and(
    database: Database,
    number: int,
    declared: type[Declared],
    query: Document,
    projection: Document | None = None,
) -> tuple[Document | None, list[Document]]:
    """An experiment, if it is there, and what ``query`` finds in another collection: in one command."""
    other = database.collection(declared)
    if database.documents.portable:  # its server has no $unionWith
        return await both(
            find_experiment(database, number), other.find(query, projection, batch_size=BATCH).to_list()
        )
    beside = [{"$match": query}, *([{"$project": projection}] if projection else [])]
    found = await database.collection(ExperimentFields).aggregate(
        [
            {"$match": scoped({"_id": number})},
            {"$project": _EXPERIMENT},
            {"$unionWith": {"coll": other.name, "pipeline": beside}},
        ],
        batchSize=BATCH,
    )
    rows = await found.to_list()
    # Only ids of experiments are numbers.
    experiment = next((row for row in rows if row["_id"] == number), None)
    return experiment, [row for row in rows if row is not experiment]


async def experiment_of(database: Database, number: int) -> Document:
    experiment = await find_experiment(database, number)
    if experiment is None:
        refuse_unknown_experiment(number)
    return experiment


def artifact_location(experiment: Document, trace_id: str) -> str:
    """Where artifacts of a trace go: in a folder of their own, apart from those of runs."""
    location: str = append_to_uri_path(experiment["artifact_location"], "traces", trace_id, "artifacts")
    return location


async def assessments_of(database: Database, trace_ids: Iterable[str]) -> dict[str, list[Document]]:
    """The assessments of traces, oldest first."""
    assessments = database.collection(AssessmentFields)
    by_trace: dict[str, list[Document]] = {}
    for portion in portions(trace_ids):
        documents = assessments.find({"trace_id": {"$in": portion}}, batch_size=BATCH)
        async for assessment in documents.sort([("created_time", 1), ("_id", 1)]):
            by_trace.setdefault(assessment["trace_id"], []).append(assessment)
    return by_trace


async def move_children(database: Database, trace_id: str, experiment_id: int, trace_time: int) -> None:
    """Bring the copies that spans and assessments hold in line with their trace."""
    stale = {"$or": [{"experiment_id": {"$ne": experiment_id}}, {"trace_time": {"$ne": trace_time}}]}
    change = {"$set": {"experiment_id": experiment_id, "trace_time": trace_time}}
    await both(
        database.collection(SpanFields).update_many({"_id": children_of(trace_id), **stale}, change),
        database.collection(AssessmentFields).update_many({"trace_id": trace_id, **stale}, change),
    )


async def make_children_earlier(database: Database, trace_id: str, trace_time: int) -> None:
    """Move the copies back when spans show that a trace began earlier; many calls may do so at once."""
    change = {"$min": {"trace_time": trace_time}}
    later = {"trace_time": {"$gt": trace_time}}
    await both(
        database.collection(SpanFields).update_many({"_id": children_of(trace_id), **later}, change),
        database.collection(AssessmentFields).update_many({"trace_id": trace_id, **later}, change),
    )


def spans_within(trace_ids: Sequence[str]) -> Document:
    """The condition on the ids of spans: those of these traces. A prefix is a range of the index."""
    if len(trace_ids) == 1:
        return dict(children_of(trace_ids[0]))
    # Not re.compile: its Unicode flag would make the server walk the whole index.
    return {"$in": [Regex("^" + re.escape(trace_id + SEPARATOR)) for trace_id in trace_ids]}
