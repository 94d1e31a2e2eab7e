"""Entities without a public name."""

from mlflow.entities.dataset_summary import (
    _DatasetSummary as DatasetSummary,
)

__all__ = [
    "DatasetSummary",
]
