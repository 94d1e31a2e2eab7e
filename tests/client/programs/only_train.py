"""A program that only trains: which modules it has loaded, and which when it then asks for more."""

import json
import sys

import mlflow
from mlflow import MlflowClient


def loaded(beginning: str) -> list[str]:
    return sorted(name for name in sys.modules if name.startswith(beginning))


(uri, name) = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment(name)
with mlflow.start_run() as run:
    mlflow.log_params({"depth": 3})
    mlflow.log_metrics({"loss": 0.5, "gain": 1.5}, step=1)
    mlflow.log_metric("loss", 0.25, step=2)
    mlflow.set_tag("team", "a")
trained = loaded("genesis_flow.")
# Anything else of the store is there for whoever asks.
history = MlflowClient().get_metric_history(run.info.run_id, "loss")
print(json.dumps({"trained": trained, "history": len(history), "asked": loaded("genesis_flow.")}))
