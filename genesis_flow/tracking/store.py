"""The asynchronous tracking store: the areas, joined. This is its table of contents."""

from genesis_flow.tracking.associations import Associations
from genesis_flow.tracking.dataset_records import DatasetRecords
from genesis_flow.tracking.evaluation_datasets import EvaluationDatasets
from genesis_flow.tracking.experiments import Experiments
from genesis_flow.tracking.garbage import Garbage
from genesis_flow.tracking.inputs import Inputs
from genesis_flow.tracking.logged_model_search import LoggedModelSearch
from genesis_flow.tracking.logged_models import LoggedModels
from genesis_flow.tracking.metric_history import MetricHistory
from genesis_flow.tracking.metrics import Metrics
from genesis_flow.tracking.params_tags import ParamsTags
from genesis_flow.tracking.runs import Runs
from genesis_flow.tracking.search_runs import RunSearch
from genesis_flow.tracking.traces.archive import TraceArchive
from genesis_flow.tracking.traces.assessments import Assessments
from genesis_flow.tracking.traces.deletion import TraceDeletion
from genesis_flow.tracking.traces.ingest import SpanIngest
from genesis_flow.tracking.traces.read import TraceReads
from genesis_flow.tracking.traces.search import TraceSearch
from genesis_flow.tracking.traces.sessions import TraceSessions
from genesis_flow.tracking.traces.start import TraceStart
from genesis_flow.tracking.traces.tags import TraceTags
from genesis_flow.tracking.traces.trace_metrics import TraceMetrics


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
