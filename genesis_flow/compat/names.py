"""Names of runs and models."""

from mlflow.utils.mlflow_tags import (
    _get_run_name_from_tags as get_run_name_from_tags,
)
from mlflow.utils.name_utils import (
    _generate_random_name as generate_random_name,
)

__all__ = [
    "generate_random_name",
    "get_run_name_from_tags",
]
