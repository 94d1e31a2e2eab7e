"""Evaluation datasets."""

from genesis_flow.areas.evaluation.associations import Associations
from genesis_flow.areas.evaluation.datasets import EvaluationDatasets
from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
)
from genesis_flow.areas.evaluation.records import DatasetRecords
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "evaluation",
    documents=(EvaluationDatasetFields, DatasetRecordFields, EntityAssociationFields),
    tracking=(EvaluationDatasets, DatasetRecords, Associations),
)
