"""A client that logs, searches and registers where packages of servers and of Azure are not installed."""

import builtins
import json
import sys
from typing import Any

ABSENT = {
    *("alembic", "azure", "flask", "gunicorn", "matplotlib", "mongodb_migrations", "motor"),
    *("numpy", "pandas", "pyarrow", "scipy", "sklearn", "sqlalchemy"),
}
# MLflow's skinny client brings these and loads them; that is no reason for ours to.
NOT_FOR_US = {"fastapi", "starlette", "uvicorn"}
asked: list[str] = []


class Without:
    """A finder to which packages are absent."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in ABSENT:
            return None
        return self._finder.find_spec(fullname, path, target)


def noting_import(name: str, globals: Any = None, *rest: Any, **options: Any) -> Any:
    """What modules of genesis_flow import, loaded by others before or not."""
    module = (globals or {}).get("__name__", "")
    if module.partition(".")[0] == "genesis_flow" and name.partition(".")[0] in ABSENT | NOT_FOR_US:
        asked.append(f"{module} imports {name}")
    return plain_import(name, globals, *rest, **options)


plain_import, builtins.__import__ = builtins.__import__, noting_import
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import mlflow  # noqa: E402 - only now can imports be watched
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402

(uri, name) = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
mlflow.set_experiment(name)
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("loss", 0.5, step=1)
    run_id = run.info.run_id
client = MlflowClient()
client.log_batch(run_id, [Metric("loss", 0.25, 1, 2)], [Param("width", "7")], [RunTag("team", "a")])
client.create_registered_model(name)
version = client.create_model_version(name, "/models/one", run_id)
experiment = client.get_experiment_by_name(name)
found = client.search_runs([experiment.experiment_id], "metrics.loss < 0.3", order_by=["metrics.loss"])

loaded = {module.partition(".")[0] for module in sys.modules}
print(
    json.dumps(
        {
            "asked": asked,
            "loaded": sorted(loaded & ABSENT),
            "ours": sorted({"genesis_flow", "pymongo"} & loaded),
            "found": [each.info.run_id == run_id for each in found],
            "history": len(client.get_metric_history(run_id, "loss")),
            "version": str(version.version),
        }
    )
)
