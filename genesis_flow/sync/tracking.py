"""The tracking store that MLflow works with: the asynchronous one behind MLflow's blocking interface."""

from typing import ClassVar

from mlflow.store.tracking.abstract_store import AbstractStore

from genesis_flow.core.settings import Settings
from genesis_flow.stores.tracking import AsyncTrackingStore
from genesis_flow.sync._generated.tracking_associations import SyncAssociations
from genesis_flow.sync._generated.tracking_dataset_records import SyncDatasetRecords
from genesis_flow.sync._generated.tracking_evaluation_datasets import SyncEvaluationDatasets
from genesis_flow.sync._generated.tracking_experiments import SyncExperiments
from genesis_flow.sync._generated.tracking_garbage import SyncGarbage
from genesis_flow.sync._generated.tracking_inputs import SyncInputs
from genesis_flow.sync._generated.tracking_logged_model_search import SyncLoggedModelSearch
from genesis_flow.sync._generated.tracking_logged_models import SyncLoggedModels
from genesis_flow.sync._generated.tracking_metric_history import SyncMetricHistory
from genesis_flow.sync._generated.tracking_metrics import SyncMetrics
from genesis_flow.sync._generated.tracking_params_tags import SyncParamsTags
from genesis_flow.sync._generated.tracking_runs import SyncRuns
from genesis_flow.sync._generated.tracking_search_runs import SyncRunSearch
from genesis_flow.sync._generated.tracking_traces_archive import SyncTraceArchive
from genesis_flow.sync._generated.tracking_traces_assessments import SyncAssessments
from genesis_flow.sync._generated.tracking_traces_deletion import SyncTraceDeletion
from genesis_flow.sync._generated.tracking_traces_ingest import SyncSpanIngest
from genesis_flow.sync._generated.tracking_traces_read import SyncTraceReads
from genesis_flow.sync._generated.tracking_traces_search import SyncTraceSearch
from genesis_flow.sync._generated.tracking_traces_sessions import SyncTraceSessions
from genesis_flow.sync._generated.tracking_traces_start import SyncTraceStart
from genesis_flow.sync._generated.tracking_traces_tags import SyncTraceTags
from genesis_flow.sync._generated.tracking_traces_trace_metrics import SyncTraceMetrics


# MLflow annotates the values of update_assessment and the points of query_trace_metrics as what they are not.
class MongoDBStore(  # type: ignore[misc]
    SyncExperiments,
    SyncRuns,
    SyncRunSearch,
    SyncMetrics,
    SyncMetricHistory,
    SyncParamsTags,
    SyncInputs,
    SyncSpanIngest,
    SyncTraceStart,
    SyncTraceReads,
    SyncTraceSearch,
    SyncTraceTags,
    SyncAssessments,
    SyncTraceMetrics,
    SyncTraceSessions,
    SyncTraceDeletion,
    SyncTraceArchive,
    SyncLoggedModels,
    SyncLoggedModelSearch,
    SyncEvaluationDatasets,
    SyncDatasetRecords,
    SyncAssociations,
    SyncGarbage,
    AbstractStore,
):
    """MLflow's tracking store on MongoDB.

    Connects at the first call, from whichever process and thread makes it.
    """

    _async_store: ClassVar = AsyncTrackingStore

    def __init__(self, db_uri: str | None = None, default_artifact_root: str | None = None) -> None:
        super().__init__(Settings.resolve(db_uri, artifact_root=default_artifact_root))

    @property
    def db_uri(self) -> str:
        """The URI with its password masked: callers print it."""
        return self._settings.store_uri

    @property
    def artifact_root_uri(self) -> str:
        return self._settings.artifact_root

    @property
    def supports_trace_archival(self) -> bool:
        return True

    @property
    def supports_workspaces(self) -> bool:
        return False
