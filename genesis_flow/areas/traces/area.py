"""Traces, spans and assessments."""

from genesis_flow.areas.traces.archive import TraceArchive
from genesis_flow.areas.traces.deletion import TraceDeletion
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.areas.traces.people.assessments import Assessments
from genesis_flow.areas.traces.people.sessions import TraceSessions
from genesis_flow.areas.traces.people.tags import TraceTags
from genesis_flow.areas.traces.reading.read import TraceReads
from genesis_flow.areas.traces.reading.search import TraceSearch
from genesis_flow.areas.traces.sums.documents import TraceSumsFields
from genesis_flow.areas.traces.sums.methods import TraceMetrics
from genesis_flow.areas.traces.writing.ingest import SpanIngest
from genesis_flow.areas.traces.writing.start import TraceStart
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "traces",
    documents=(TraceFields, SpanFields, SpanPayloadFields, AssessmentFields, TraceSumsFields),
    tracking=(
        SpanIngest,
        TraceStart,
        TraceReads,
        TraceSearch,
        TraceTags,
        Assessments,
        TraceMetrics,
        TraceSessions,
        TraceDeletion,
        TraceArchive,
    ),
)
