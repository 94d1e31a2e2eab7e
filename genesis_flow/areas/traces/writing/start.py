"""Traces as clients state them: created or merged into what spans have said already.

Round trips of ``start_trace``: two (the experiment with the assessments, the trace), two more to write
assessments (the second looks whether the trace is still there), and one more for copies in children that may
be stale: if the trace now begins at another time, or if more than one call has logged its spans.
"""

import asyncio
from contextlib import suppress

from mlflow.entities import TraceInfo
from mlflow.entities.trace_info_v2 import TraceInfoV2
from mlflow.entities.trace_state import TraceState
from mlflow.entities.trace_status import TraceStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey
from mlflow.tracing.utils import generate_request_id_v2
from pymongo import ReplaceOne, ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from genesis_flow.areas.experiments.guards import (
    check_experiment_active,
    experiment_number,
    milliseconds,
    refuse_unknown_experiment,
)
from genesis_flow.areas.issues.counts import changing_references, issues_in
from genesis_flow.areas.traces.documents import KNOWN, NOW, TOUCH, AssessmentFields, TraceFields
from genesis_flow.areas.traces.entities import assessment_document, trace_info_entity
from genesis_flow.areas.traces.shared import (
    HERE,
    artifact_location,
    assessments_of,
    check_new_id,
    experiment_and,
    experiment_of,
    known,
    move_children,
    refuse_erased,
    refuse_foreign_trace,
    refuse_traces_of_others,
    refuse_unknown_trace,
)
from genesis_flow.areas.traces.stated import may_be_null, put, stated_fields
from genesis_flow.areas.traces.sums.departures import departing, place_of, stays
from genesis_flow.areas.traces.writing.remembered import TraceMemory, state_of
from genesis_flow.areas.traces.writing.summary import checked_name, checked_session
from genesis_flow.compat.previews import without_nul
from genesis_flow.compat.rules import TRACES_KEEP_THEIR_EXPERIMENT
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.operation import Area, direct, drawn_once, mutation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.waiting import prefer_loop
from genesis_flow.mongo.writes import insert_once, only_duplicates

_PLACE = {"experiment_id": 1, "request_time": 1}
_TRIES = 4


class TraceStart(TraceMemory, Area):
    @direct
    @mutation
    async def start_trace(self, trace_info: TraceInfo) -> TraceInfo:
        """Write a trace's info, whether its spans have come already or not."""
        if trace_info.assessments:
            prefer_loop()
        trace_id = trace_info.trace_id
        checked_name(trace_info.tags.get(TraceTagKey.TRACE_NAME))
        checked_session(trace_info.trace_metadata.get(TraceMetadataKey.TRACE_SESSION))
        number = experiment_number(trace_info.experiment_id)
        start = milliseconds("request_time", trace_info.request_time)
        own: Document = {"trace_id": trace_id}
        named = [{"_id": each.assessment_id} for each in trace_info.assessments if each.assessment_id]
        experiment, assessments_before = await experiment_and(
            self.database, number, AssessmentFields, {"$or": [own, *named]} if named else own
        )
        if experiment is None:
            refuse_unknown_experiment(number)
        check_experiment_active(experiment)
        check_new_id(trace_id)
        _refuse_foreign_assessments(assessments_before, trace_id)
        stated: Document = {
            "experiment_id": number,
            "request_time": start,
            "end_time": _end(start, trace_info.execution_duration),
            "status": trace_info.state.value,
            "client_request_id": trace_info.client_request_id,
            "artifact_location": artifact_location(experiment, trace_id),
            "finalized": "true",
            **stated_fields(trace_info.tags, trace_info.trace_metadata),
        }
        for preview in ("request_preview", "response_preview"):
            if (text := getattr(trace_info, preview)) is not None:
                stated[preview] = without_nul(text)
        before = await self._merge_trace(trace_id, stated)
        new = {"_id": trace_id, "workspace": current_workspace()}
        trace = _changed(before or new, stated)
        self._known_traces.keep(trace_id, state_of(trace))
        if trace_info.assessments:
            documents = [
                assessment_document(assessment, trace_id, trace) for assessment in trace_info.assessments
            ]
            # An assessment that is written over may have been a reference to another issue.
            async with changing_references(self.database, issues_in([*documents, *assessments_before])):
                await self._write_assessments(documents)
                _, by_trace = await asyncio.gather(
                    self._take_back_if_erased(trace_id, documents), assessments_of(self.database, [trace_id])
                )
            assessments = by_trace.get(trace_id, [])
        else:
            assessments = sorted(assessments_before, key=lambda each: (each["created_time"], each["_id"]))
        if before is not None and not _has_fresh_children(before, trace, assessments):
            await move_children(self.database, trace_id, number, trace["request_time"])
        return trace_info_entity(trace, assessments)

    async def _write_assessments(self, documents: list[Document]) -> None:
        """Write assessments of one trace over its own, but not over those of others."""
        assessments = self.database.collection(AssessmentFields)
        own = [{"_id": each["_id"], "trace_id": each["trace_id"]} for each in documents]
        writes = [ReplaceOne(key, each, upsert=True) for key, each in zip(own, documents, strict=True)]
        try:
            await assessments.bulk_write(writes)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
            ids, trace_id = [key["_id"] for key in own], own[0]["trace_id"]
            found = await assessments.find({"_id": {"$in": ids}}, {"trace_id": 1}).to_list()
            _refuse_foreign_assessments(found, trace_id, error)
            # Another client has stated the same trace at the same moment.
            await assessments.bulk_write(writes)

    async def _take_back_if_erased(self, trace_id: str, documents: list[Document]) -> None:
        """Remove assessments whose trace was deleted before they were written: it started before that."""
        if await self.database.collection(TraceFields).find_one(known(trace_id), {"_id": 1}) is None:
            ids = [document["_id"] for document in documents]
            await self.database.collection(AssessmentFields).delete_many(
                {"_id": {"$in": ids}, "trace_id": trace_id}
            )

    async def _merge_trace(self, trace_id: str, stated: Document) -> Document | None:
        """Make a trace as stated, whatever is known of it; returns what was."""
        change = _change(stated) | {"$inc": {"generation": 1}}
        traces = self.database.collection(TraceFields)
        place, is_where = None, stays(stated["experiment_id"], stated["request_time"])
        for _ in range(_TRIES):
            with suppress(DuplicateKeyError):
                async with departing(self.database, [place]):
                    before: Document | None = await traces.find_one_and_update(
                        scoped({"_id": trace_id, **HERE, **is_where}),
                        change,
                        upsert=True,
                        return_document=ReturnDocument.BEFORE,
                    )
                return before
            # It is elsewhere, or another client made it at the same moment, or its spans are in an archive.
            trace = await traces.find_one(scoped({"_id": trace_id, **HERE, **KNOWN}), _PLACE)
            if trace is None:
                await refuse_traces_of_others(self.database, [trace_id])
            else:
                if TRACES_KEEP_THEIR_EXPERIMENT and trace["experiment_id"] != stated["experiment_id"]:
                    refuse_foreign_trace(trace_id)
                place, is_where = place_of(trace), {name: trace[name] for name in _PLACE}
        there = await traces.find_one(scoped({"_id": trace_id}), {"erasing": 1})
        if there is None or "erasing" in there or await traces.find_one(scoped({"_id": trace_id, **HERE})):
            refuse_erased(trace_id)  # or was deleted, or made, between the looks: the call is made again
        raise MlflowException(
            f"Cannot update traces that are no longer DB-backed: '{trace_id}'.", INVALID_STATE
        )

    @mutation
    async def deprecated_start_trace_v2(
        self,
        experiment_id: str,
        timestamp_ms: int,
        request_metadata: dict[str, str],
        tags: dict[str, str],
    ) -> TraceInfoV2:
        """Start a trace of the interface that MLflow had before version 3."""
        checked_name(tags.get(TraceTagKey.TRACE_NAME))
        checked_session(request_metadata.get(TraceMetadataKey.TRACE_SESSION))
        number = experiment_number(experiment_id)
        experiment = await experiment_of(self.database, number)
        check_experiment_active(experiment)
        trace_id = await drawn_once("trace", _new_id)
        trace: Document = {
            "_id": trace_id,
            "workspace": current_workspace(),
            "experiment_id": number,
            "request_time": milliseconds("timestamp_ms", timestamp_ms),
            "status": TraceState.IN_PROGRESS.value,
            "generation": 1,
            "touched": NOW,
            "artifact_location": artifact_location(experiment, trace_id),
        }
        for path, value in stated_fields(tags, request_metadata).items():
            put(trace, path, value)
        await insert_once(self.database.collection(TraceFields), trace)
        return TraceInfoV2.from_v3(trace_info_entity(trace, []))

    @mutation
    async def deprecated_end_trace_v2(
        self,
        request_id: str,
        timestamp_ms: int,
        status: TraceStatus,
        request_metadata: dict[str, str],
        tags: dict[str, str],
    ) -> TraceInfoV2:
        """End a trace of the interface that MLflow had before version 3."""
        checked_name(tags.get(TraceTagKey.TRACE_NAME))
        checked_session(request_metadata.get(TraceMetadataKey.TRACE_SESSION))
        stated = {
            "end_time": milliseconds("timestamp_ms", timestamp_ms),
            "status": TraceStatus(status).to_state().value,
            **stated_fields(tags, request_metadata),
        }
        trace = await self.database.collection(TraceFields).find_one_and_update(
            known(request_id), _change(stated), return_document=ReturnDocument.AFTER
        )
        if trace is None:
            refuse_unknown_trace(request_id)
        assessments = await assessments_of(self.database, [request_id])
        return TraceInfoV2.from_v3(trace_info_entity(trace, assessments.get(request_id, [])))


def _refuse_foreign_assessments(
    assessments: list[Document], trace_id: str, cause: Exception | None = None
) -> None:
    for assessment in assessments:
        if assessment["trace_id"] != trace_id:
            raise MlflowException.invalid_parameter_value(
                f"Assessment with ID '{assessment['_id']}' belongs to another trace."
            ) from cause


def _end(start: int, duration: int | None) -> int | None:
    return None if duration is None else start + milliseconds("execution_duration", duration)


def _change(stated: Document) -> Document:
    """The update that makes fields so. Tags and metadata may be null, all else is absent instead."""
    fixed = {path: value for path, value in stated.items() if value is not None or may_be_null(path)}
    gone = {path: "" for path in stated if path not in fixed}
    return {"$set": fixed, **({"$unset": gone} if gone else {}), **TOUCH}


def _changed(before: Document, stated: Document) -> Document:
    """The trace after ``_change(stated)``."""
    trace = {name: dict(value) if isinstance(value, dict) else value for name, value in before.items()}
    for path, value in stated.items():
        if value is None and not may_be_null(path):
            *parents, name = path.split(".")
            holder = trace
            for parent in parents:
                holder = holder.get(parent) or {}
            holder.pop(name, None)
        else:
            put(trace, path, value)
    return trace


def _has_fresh_children(before: Document, trace: Document, assessments: list[Document]) -> bool:
    """Whether spans and assessments surely hold the right copies.

    The spans of a trace's first call hold what the trace then said. Those of later calls may be about to be
    put right by them, which is not relied on here.
    """
    copied = ("experiment_id", "request_time")
    return (
        before.get("generation") == 1
        and all(before.get(name) == trace[name] for name in copied)
        and all(
            (each["experiment_id"], each["trace_time"]) == (trace["experiment_id"], trace["request_time"])
            for each in assessments
        )
    )


async def _new_id() -> str:
    return generate_request_id_v2()
