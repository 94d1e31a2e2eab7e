"""One of two processes that work on one run. Arguments: URI, experiment name, own name.

It reads a command a line: "create", "log RUN VALUE", "read RUN"; and answers each with a line of JSON.
"""

import json
import sys

from mlflow import MlflowClient

uri, experiment, name = sys.argv[1:]
client = MlflowClient(uri)

for line in sys.stdin:
    match line.split():
        case ["create"]:
            found = client.get_experiment_by_name(experiment)
            experiment_id = found.experiment_id if found else client.create_experiment(experiment)
            answer = client.create_run(experiment_id).info.run_id
        case ["log", run_id, value]:
            client.log_metric(run_id, name, float(value))
            client.set_tag(run_id, name, "was here")
            answer = "logged"
        case ["read", run_id]:
            run = client.get_run(run_id)
            answer = {
                "metrics": run.data.metrics,
                "writers": sorted(set(run.data.tags) & {"first", "second"}),
            }
        case _:
            raise ValueError(line)
    print(json.dumps(answer), flush=True)
