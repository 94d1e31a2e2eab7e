"""What a document looks like: one Beanie model a collection, with its indexes."""

from genesis_flow.documents.audit import AuditFields
from genesis_flow.documents.binding import Documents, bind_documents
from genesis_flow.documents.datasets import DatasetFields
from genesis_flow.documents.evaluation import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
)
from genesis_flow.documents.experiments import CounterFields, ExperimentFields
from genesis_flow.documents.imports import (
    ImportArtifactFields,
    ImportItemFields,
    ImportJournalFields,
    ImportProblemFields,
    ImportUnitFields,
)
from genesis_flow.documents.logged_models import LoggedModelFields, ModelMetricFields
from genesis_flow.documents.metrics import MetricBlockFields, MetricHeadFields
from genesis_flow.documents.registry import ModelVersionFields, RegisteredModelFields
from genesis_flow.documents.runs import RunFields
from genesis_flow.documents.trace_sums import TraceSumsFields
from genesis_flow.documents.traces import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.documents.webhooks import WebhookFields

__all__ = [
    "AssessmentFields",
    "AuditFields",
    "CounterFields",
    "DatasetFields",
    "DatasetRecordFields",
    "Documents",
    "EntityAssociationFields",
    "EvaluationDatasetFields",
    "ExperimentFields",
    "ImportArtifactFields",
    "ImportItemFields",
    "ImportJournalFields",
    "ImportProblemFields",
    "ImportUnitFields",
    "LoggedModelFields",
    "MetricBlockFields",
    "MetricHeadFields",
    "ModelMetricFields",
    "ModelVersionFields",
    "RegisteredModelFields",
    "RunFields",
    "SpanFields",
    "SpanPayloadFields",
    "TraceFields",
    "TraceSumsFields",
    "WebhookFields",
    "bind_documents",
]
