"""Moving the spans of old traces out of the database, into files.

A pass reads the experiments, then the candidates (the oldest first) and for each the trace with its spans; it
uploads a file and lets the trace point to it, if no spans have arrived meanwhile, and only then drops the
contents. A span keeps what searches and metrics ask. A killed pass leaves a file that nothing
points to, or contents that are in the file too; it loses nothing.
"""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass

from mlflow.entities.span import Span
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException, MlflowTraceArchivalMalformedTrace
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.constant import SpansLocation, TraceArchivalFailureReason, TraceExperimentTagKey
from mlflow.tracing.otel.otel_archival import TRACE_ARCHIVAL_FILENAME, spans_to_traces_data_pb
from mlflow.tracing.otel.translation import translate_loaded_span
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import ACTIVE
from genesis_flow.areas.traces.documents import SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.areas.traces.reading.read import load_contents
from genesis_flow.areas.traces.shared import HERE
from genesis_flow.compat.archival import (
    ArchiveNowRequest,
    parse_trace_archival_duration_millis,
    resolve_effective_trace_archival_retention,
)
from genesis_flow.compat.validation import (
    validate_trace_archival_location,
    validate_trace_archival_retention_string,
)
from genesis_flow.documents.keys import children_of, escape
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, long_mutation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.writes import until_done

_logger = logging.getLogger(__name__)

_NOW_TAG = f"tags.{escape(TraceExperimentTagKey.ARCHIVE_NOW)}"
_UNFAILED: Document = {"archival_failure": {"$exists": False}}
_ENDED: Document = {"status": {"$ne": TraceState.IN_PROGRESS.value}}
_READY = {"spans_location": SpansLocation.TRACKING_STORE.value, **_UNFAILED, **_ENDED}


@dataclass(frozen=True, slots=True)
class _Urgent:
    """An experiment that somebody wants archived now, and the tag that says so."""

    experiment_id: int
    tag: str
    latest: int | None


class TraceArchive(Area):
    @long_mutation
    async def archive_traces(
        self,
        *,
        resolved_trace_archival_location: str,
        broader_retention: str,
        long_retention_allowlist: set[str] | list[str] | None = None,
        max_traces_per_pass: int | None = None,
    ) -> int:
        """Archive traces that are older than their experiment keeps them; returns how many."""
        if max_traces_per_pass is not None and max_traces_per_pass <= 0:
            _refuse(f"`max_traces_per_pass` must be a positive integer, received {max_traces_per_pass}.")
        if not resolved_trace_archival_location:
            _refuse("`resolved_trace_archival_location` must be provided.")
        if not broader_retention:
            _refuse("`broader_retention` must be provided.")
        location = validate_trace_archival_location(
            resolved_trace_archival_location, parameter_name="resolved_trace_archival_location"
        )
        retention = validate_trace_archival_retention_string(
            broader_retention, parameter_name="broader_retention"
        )
        urgent, cutoffs = await self._archival_plan(
            retention, {str(each) for each in long_retention_allowlist or ()}
        )
        now: dict[int | None, list[int]] = defaultdict(list)
        for request in urgent:
            now[request.latest].append(request.experiment_id)
        candidates = await self._archival_candidates(now, max_traces_per_pass)
        if max_traces_per_pass is None or len(candidates) < max_traces_per_pass:
            candidates |= await self._archival_candidates(cutoffs, max_traces_per_pass)
        archived = 0
        failed: set[int] = set()
        try:
            for trace_id, experiment_id in list(candidates.items())[:max_traces_per_pass]:
                try:
                    archived += await self._archive(trace_id, location)
                except MlflowException:
                    _logger.warning(
                        "Trace %s could not be archived; the next pass tries again.", trace_id, exc_info=True
                    )
                    failed.add(experiment_id)
        finally:
            for request in urgent:
                if request.experiment_id not in failed:
                    await self._settle(request)
        return archived

    async def _archival_plan(
        self, retention: str, allowed: set[str]
    ) -> tuple[list[_Urgent], dict[int | None, list[int]]]:
        """Which experiments are urgent, and up to when traces of the others are old, by that time."""
        now = get_current_time_millis()
        urgent: list[_Urgent] = []
        cutoffs: dict[int | None, list[int]] = defaultdict(list)
        keys = (TraceExperimentTagKey.ARCHIVE_NOW, TraceExperimentTagKey.ARCHIVAL_RETENTION)
        experiments = self.database.collection(ExperimentFields).find(
            scoped({"lifecycle_stage": ACTIVE}), {f"tags.{escape(key)}": 1 for key in keys}
        )
        async for experiment in experiments.sort("_id", 1):
            number, stored = experiment["_id"], experiment.get("tags") or {}
            tags = {key: stored[escape(key)] for key in keys if escape(key) in stored}
            own = parse_trace_archival_duration_millis(
                resolve_effective_trace_archival_retention(
                    experiment_id=str(number),
                    experiment_tags=tags,
                    broader_retention=retention,
                    long_retention_allowlist=allowed,
                )
            )
            tag = tags.get(TraceExperimentTagKey.ARCHIVE_NOW)
            request = ArchiveNowRequest.from_tag_value(tag)
            age = request.older_than_millis if request is not None else None
            if request is not None and tag is not None:
                urgent.append(_Urgent(number, tag, None if age is None else now - age))
            if own and (request is None or (age is not None and age > own)):
                cutoffs[now - own].append(number)
        return urgent, cutoffs

    async def _archival_candidates(
        self, groups: dict[int | None, list[int]], limit: int | None
    ) -> dict[str, int]:
        """Traces that may go, with their experiments, the oldest first."""
        candidates: list[Document] = []
        traces = self.database.collection(TraceFields)
        for latest, experiments in groups.items():
            query = scoped({"experiment_id": {"$in": experiments}, **_READY, **_until(latest)})
            cursor = traces.find(query, {"experiment_id": 1, "request_time": 1})
            candidates += await cursor.sort([("request_time", 1), ("_id", 1)]).limit(limit or 0).to_list()
        candidates.sort(key=lambda trace: (trace["request_time"], trace["_id"]))
        return {trace["_id"]: trace["experiment_id"] for trace in candidates[:limit]}

    async def _archive(self, trace_id: str, location: str) -> bool:
        traces = self.database.collection(TraceFields)
        trace = await traces.find_one(scoped({"_id": trace_id, **_READY}))
        if trace is None:
            return False
        spans = (
            await self.database.collection(SpanFields)
            .find({"_id": children_of(trace_id)}, {"content": 1, "payload": 1, "chunks": 1})
            .to_list()
        )
        contents = await load_contents(self.database, spans)
        if not contents:
            return False
        unchanged = scoped({"_id": trace_id, "generation": trace.get("generation", 0), **_READY})
        try:
            data = await in_thread(_packed, contents)
        except MlflowTraceArchivalMalformedTrace:
            _logger.warning("The spans of trace %s cannot be archived.", trace_id, exc_info=True)
            reason = TraceArchivalFailureReason.MALFORMED_TRACE.value
            await traces.update_one(unchanged, {"$set": {"archival_failure": reason}})
            return False
        uri = append_to_uri_path(location, str(trace["experiment_id"]), "traces", trace_id, "artifacts")
        repository = get_artifact_repository(uri)
        try:
            await in_thread(repository.upload_archived_trace_data_bytes, data)
        except Exception as error:
            await self._drop_unreferenced(trace_id, uri, repository)
            raise MlflowException("Trace archival upload failed.") from error
        moved = {"spans_location": SpansLocation.ARCHIVE_REPO.value, "archive_location": uri}

        async def move() -> bool:
            await traces.update_one(unchanged, {"$set": moved})
            # Asked, because the answer to an earlier try may have been lost.
            there = scoped({"_id": trace_id, "archive_location": uri})
            return await traces.find_one(there, {"_id": 1}) is not None

        if not await until_done(move):
            await self._drop_unreferenced(trace_id, uri, repository)
            return False
        await self._drop_contents({"_id": children_of(trace_id)})
        return True

    async def _drop_contents(self, of_trace: Document) -> None:
        spans, payloads = self.database.collection(SpanFields), self.database.collection(SpanPayloadFields)
        gone = {"$unset": {"content": "", "payload": "", "chunks": ""}}
        await until_done(lambda: spans.update_many(of_trace, gone))
        await until_done(lambda: payloads.delete_many(of_trace))

    async def _drop_unreferenced(self, trace_id: str, uri: str, repository: ArtifactRepository) -> None:
        referencing = scoped({"_id": trace_id, "archive_location": uri})
        if await self.database.collection(TraceFields).find_one(referencing, {"_id": 1}):
            return
        try:
            await in_thread(lambda: repository.delete_artifacts(TRACE_ARCHIVAL_FILENAME))
        except Exception:  # whatever the libraries of artifact stores raise
            _logger.warning(
                "A file of trace %s that is not used stays in its archive.", trace_id, exc_info=True
            )

    async def _settle(self, request: _Urgent) -> None:
        """Take away the wish to archive now, unless there is still something to wait for."""
        traces = self.database.collection(TraceFields)
        left = scoped({"experiment_id": request.experiment_id, **HERE, **_until(request.latest), **_UNFAILED})
        waiting = {"$or": [_READY, {"status": TraceState.IN_PROGRESS.value}]}
        if await traces.find_one({"$and": [left, waiting]}, {"_id": 1}):
            return
        if await traces.find_one(left, {"_id": 1}):
            _logger.warning(
                "Some traces of experiment %s are not archived as %r asks: they have no spans to archive.",
                request.experiment_id,
                request.tag,
            )
        # Somebody may wish for more by now: only the wish that was fulfilled goes.
        await self.database.collection(ExperimentFields).update_one(
            scoped({"_id": request.experiment_id, _NOW_TAG: request.tag}), {"$unset": {_NOW_TAG: ""}}
        )


def _refuse(message: str) -> None:
    raise MlflowException.invalid_parameter_value(message)


def _until(latest: int | None) -> Document:
    return {} if latest is None else {"request_time": {"$lte": latest}}


def _packed(contents: list[str]) -> bytes:
    """Spans in OpenTelemetry's own format."""
    try:
        spans = [Span.from_dict(translate_loaded_span(json.loads(content))) for content in contents]
        data: bytes = spans_to_traces_data_pb(spans)
    except (MlflowException, TypeError, ValueError, AttributeError) as error:
        raise MlflowTraceArchivalMalformedTrace(str(error)) from error
    return data
