"""The tracking store that MLflow works with: the asynchronous one behind MLflow's blocking interface."""

from typing import ClassVar

from mlflow.store.tracking.abstract_store import AbstractStore

from genesis_flow.core.settings import Settings
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
from genesis_flow.tracking.store import AsyncTrackingStore


class MongoDBStore(
    SyncExperiments,
    SyncRuns,
    SyncRunSearch,
    SyncMetrics,
    SyncMetricHistory,
    SyncParamsTags,
    SyncInputs,
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
    def supports_workspaces(self) -> bool:
        return False
