"""Asynchronous logging. Arguments: URI, experiment name, "flush" or "exit" (which leaves that to MLflow)."""

import json
import sys

import mlflow

uri, name, end = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment(name)
run = mlflow.start_run()
mlflow.log_params({"rate": 0.1}, synchronous=False)
for step in range(100):
    mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
mlflow.set_tag("kind", "later", synchronous=False)
if end == "flush":
    mlflow.flush_async_logging()
print(json.dumps(run.info.run_id))
