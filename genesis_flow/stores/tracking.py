"""The asynchronous tracking store: the areas, joined. This is its table of contents."""

from genesis_flow.areas.evaluation.associations import Associations
from genesis_flow.areas.evaluation.datasets import EvaluationDatasets
from genesis_flow.areas.evaluation.records import DatasetRecords
from genesis_flow.areas.experiments.methods import Experiments
from genesis_flow.areas.logged_models.methods import LoggedModels
from genesis_flow.areas.logged_models.search import LoggedModelSearch
from genesis_flow.areas.metrics.history import MetricHistory
from genesis_flow.areas.metrics.methods import Metrics
from genesis_flow.areas.runs.garbage import Garbage
from genesis_flow.areas.runs.inputs import Inputs
from genesis_flow.areas.runs.methods import Runs
from genesis_flow.areas.runs.params_tags import ParamsTags
from genesis_flow.areas.runs.search import RunSearch
from genesis_flow.areas.traces.archive import TraceArchive
from genesis_flow.areas.traces.deletion import TraceDeletion
from genesis_flow.areas.traces.people.assessments import Assessments
from genesis_flow.areas.traces.people.sessions import TraceSessions
from genesis_flow.areas.traces.people.tags import TraceTags
from genesis_flow.areas.traces.reading.read import TraceReads
from genesis_flow.areas.traces.reading.search import TraceSearch
from genesis_flow.areas.traces.sums.methods import TraceMetrics
from genesis_flow.areas.traces.writing.ingest import SpanIngest
from genesis_flow.areas.traces.writing.start import TraceStart


class AsyncTrackingStore(
    Experiments,
    Runs,
    RunSearch,
    Metrics,
    MetricHistory,
    ParamsTags,
    Inputs,
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
    LoggedModels,
    LoggedModelSearch,
    EvaluationDatasets,
    DatasetRecords,
    Associations,
    Garbage,
):
    """MLflow's tracking store on MongoDB, awaitable."""
