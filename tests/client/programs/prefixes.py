"""Two stores of one database, apart by their prefixes. Arguments: URI without prefix, experiment name."""

import json
import sys

from mlflow import MlflowClient

uri, name = sys.argv[1:]
stores = {prefix: MlflowClient(f"{uri}#{prefix}") for prefix in ("red", "blue")}
runs = {}
for prefix, client in stores.items():
    experiment_id = client.create_experiment(name)  # the same name is free in both
    run_id = client.create_run(experiment_id).info.run_id
    client.log_param(run_id, "prefix", prefix)
    client.log_metric(run_id, "loss", 1.0)
    runs[prefix] = (experiment_id, run_id)
seen = {
    prefix: [run.info.run_id for run in client.search_runs([str(number) for number in range(5)])]
    for prefix, client in stores.items()
}
print(json.dumps({"runs": runs, "seen": seen}))
