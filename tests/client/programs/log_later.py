"""Asynchronous logging. Arguments: URI, experiment name, "flush" or "end".

A program that exits with its run open may lose what MLflow's queue has not handed to the store by then:
Python ends the queue's thread pool before MLflow's exit handler runs. Ending the run waits for the queue.
"""

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
else:
    mlflow.end_run()
print(json.dumps(run.info.run_id))
