"""Reading traces.

Round trips: one for an info, a whole trace or any number of either (the traces, their assessments and their
spans are read side by side, a thousand traces at a time); one more if a span has a long content.
"""

import asyncio
import json
from collections.abc import Sequence

from mlflow.entities import Trace, TraceData, TraceInfo
from mlflow.entities.span import LazySpan, Span
from mlflow.exceptions import MlflowException, MlflowTracingException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.constant import SpansLocation, TraceSizeStatsKey
from mlflow.tracing.utils.artifact_utils import get_archive_uri_for_trace

from genesis_flow.areas.traces.documents import KNOWN, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.areas.traces.entities import trace_info_entity
from genesis_flow.areas.traces.shared import assessments_of, find_trace, known, spans_within
from genesis_flow.compat.validation import parse_experiment_ids
from genesis_flow.documents.keys import payload_key
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped

pause = asyncio.sleep
# Waits before a trace whose spans are still on their way counts as not there.
_PATIENCE_SECONDS = (1, 2)
_CONTENT = {"trace_id": 1, "parent_id": 1, "start_time": 1, "content": 1, "payload": 1, "chunks": 1}
# Traces with all their spans in memory at a time.
_WHOLE_AT_ONCE = 100
_PAYLOADS_AT_ONCE = 20


class TraceReads(Area):
    @operation
    async def get_trace_info(self, trace_id: str) -> TraceInfo:
        """A trace without its spans."""
        trace, assessments = await asyncio.gather(
            find_trace(self.database, trace_id), assessments_of(self.database, [trace_id])
        )
        return trace_info_entity(trace, assessments.get(trace_id, []))

    @operation
    async def get_trace(self, trace_id: str, *, allow_partial: bool = False) -> Trace:
        """A trace with its spans; unless ``allow_partial``, waits a little for spans that are announced."""
        for wait in (*_PATIENCE_SECONDS, None):
            found = await self._whole_traces([trace_id], None, allow_partial=allow_partial)
            if found:
                return found[0]
            if await self.database.collection(TraceFields).find_one(known(trace_id), {"_id": 1}) is None:
                raise MlflowException(f"Trace with ID {trace_id} is not found.", RESOURCE_DOES_NOT_EXIST)
            if wait is not None:
                await pause(wait)
        raise MlflowException(
            f"Trace with ID {trace_id} is not fully exported yet, please try again later.",
            RESOURCE_DOES_NOT_EXIST,
        )

    @operation
    async def batch_get_traces(
        self, trace_ids: list[str], location: str | None = None, experiment_ids: list[str] | None = None
    ) -> list[Trace]:
        """Whole traces in the order asked for, without those that are not there or not complete."""
        return [
            trace
            for portion in portions(_unique(trace_ids or []), _WHOLE_AT_ONCE)
            for trace in await self._whole_traces(portion, experiment_ids, allow_partial=False)
        ]

    @operation
    async def batch_get_trace_infos(
        self, trace_ids: list[str], location: str | None = None, experiment_ids: list[str] | None = None
    ) -> list[TraceInfo]:
        """The infos of those of the traces that are there."""
        infos = []
        for portion in portions(_unique(trace_ids or [])):
            traces, assessments = await asyncio.gather(
                self._trace_documents(portion, experiment_ids), assessments_of(self.database, portion)
            )
            infos += [trace_info_entity(trace, assessments.get(trace["_id"], [])) for trace in traces]
        return infos

    async def _trace_documents(
        self, trace_ids: Sequence[str], experiment_ids: list[str] | None
    ) -> list[Document]:
        """The documents of traces that are there, in the order of ``trace_ids``."""
        where: Document = KNOWN
        if experiment_ids is not None:
            where = {"experiment_id": {"$in": parse_experiment_ids([*experiment_ids])}}
        query = scoped({"_id": {"$in": list(trace_ids)}, **where})
        cursor = self.database.collection(TraceFields).find(query, batch_size=BATCH)
        found = {trace["_id"]: trace async for trace in cursor}
        return [found[trace_id] for trace_id in trace_ids if trace_id in found]

    async def _whole_traces(
        self, trace_ids: list[str], experiment_ids: list[str] | None, *, allow_partial: bool
    ) -> list[Trace]:
        traces, assessments, spans = await asyncio.gather(
            self._trace_documents(trace_ids, experiment_ids),
            assessments_of(self.database, trace_ids),
            _spans_of(self.database, trace_ids),
        )
        whole = []
        for trace in traces:
            info = trace_info_entity(trace, assessments.get(trace["_id"], []))
            own = spans.get(trace["_id"], [])
            if _are_gone(own):
                # They went to an archive after the trace was read.
                trace = await find_trace(self.database, trace["_id"])
                info = trace_info_entity(trace, assessments.get(trace["_id"], []))
            if trace.get("spans_location") == SpansLocation.ARCHIVE_REPO.value:
                whole.append(Trace(info, TraceData(await _archived_spans(info))))
                continue
            if trace.get("spans_location") != SpansLocation.TRACKING_STORE.value:
                raise MlflowTracingException("Trace data not stored in tracking store")
            if allow_partial or (own and len(own) >= _announced(trace)):
                contents = await load_contents(self.database, own)
                whole.append(
                    Trace(info, TraceData([LazySpan.from_stored_content(content) for content in contents]))
                )
        return whole


def _unique(trace_ids: list[str]) -> list[str]:
    """Each id once; as in MLflow, one that is named again is meant where it is named last."""
    return list(dict.fromkeys(reversed(trace_ids)))[::-1]


async def _archived_spans(info: TraceInfo) -> list[Span]:
    def download() -> list[Span]:
        repository = get_artifact_repository(get_archive_uri_for_trace(info))
        spans: list[Span] = repository.download_archived_trace_data().spans
        return spans

    return await in_thread(download)


async def _spans_of(database: Database, trace_ids: list[str]) -> dict[str, list[Document]]:
    """Spans by trace: the root first, then in the order of their start."""
    by_trace: dict[str, list[Document]] = {}
    if trace_ids:
        spans = database.collection(SpanFields).find(
            {"_id": spans_within(trace_ids)}, _CONTENT, batch_size=BATCH
        )
        async for span in spans:
            by_trace.setdefault(span["trace_id"], []).append(span)
    for spans_of_one in by_trace.values():
        spans_of_one.sort(
            key=lambda span: (span.get("parent_id") is not None, span["start_time"], span["_id"])
        )
    return by_trace


async def load_contents(database: Database, spans: list[Document]) -> list[str]:
    """The content of spans, long ones put together from their pieces."""
    pieces = {
        span["_id"]: [
            payload_key(span["_id"], span["payload"], piece) for piece in range(int(span["chunks"]))
        ]
        for span in spans
        if "payload" in span
    }
    texts: dict[str, str] = {}
    payloads = database.collection(SpanPayloadFields)
    for portion in portions([key for keys in pieces.values() for key in keys], _PAYLOADS_AT_ONCE):
        texts |= {piece["_id"]: piece["text"] async for piece in payloads.find({"_id": {"$in": portion}})}
    contents = []
    for span in spans:
        keys = pieces.get(span["_id"])
        if keys is None and "content" in span:
            contents.append(span["content"])
        elif keys and all(key in texts for key in keys):
            contents.append("".join(texts[key] for key in keys))
    return contents


def _are_gone(spans: list[Document]) -> bool:
    return any("content" not in span and "payload" not in span for span in spans)


def _announced(trace: Document) -> int:
    """How many spans the client has said there are."""
    statistics = trace.get("size_stats")
    if not statistics:
        return 0
    return int(json.loads(statistics).get(TraceSizeStatsKey.NUM_SPANS, 0))
