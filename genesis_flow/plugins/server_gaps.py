"""What the server's pages offer and the stores cannot do yet, and would leave half done.

The AI gateway is not among them: MLflow hides the judges with it, and the stores refuse its calls themselves.
"""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED

from genesis_flow.sync.missing import missing_methods
from genesis_flow.sync.tracking import MongoDBStore

# MLflow's demo writes traces, prompts and datasets before it comes to these.
_DEMO_NEEDS = ("register_scorer", "create_issue", "create_label_schema", "create_review_queue")
_DEMO_PATH = "/ajax-api/3.0/mlflow/demo/generate"


def refused_paths(prefix: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """Answers, by path, to requests that would fail when half of their work is done."""
    lacking = [name for name in _DEMO_NEEDS if name in missing_methods(MongoDBStore)]
    if not lacking:
        return {}
    error = MlflowException(
        f"The demo needs {', '.join(lacking)}, which genesis_flow does not have yet. Nothing was written.",
        NOT_IMPLEMENTED,
    )
    content = {"error_code": error.error_code, "message": error.message}
    return {prefix + _DEMO_PATH: (error.get_http_status_code(), content)}
