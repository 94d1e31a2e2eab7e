"""What another process sees of a run. Arguments: URI, run id."""

import json
import sys

import mlflow

uri, run_id = sys.argv[1:]
client = mlflow.MlflowClient(uri)
run = client.get_run(run_id)
print(
    json.dumps(
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "experiment": run.info.experiment_id,
            "params": run.data.params,
            "metrics": {key: str(value) for key, value in run.data.metrics.items()},
            "tags": run.data.tags,
            "histories": {
                key: [(point.step, str(point.value)) for point in client.get_metric_history(run_id, key)]
                for key in run.data.metrics
            },
            "artifacts": sorted(file.path for file in client.list_artifacts(run_id)),
        }
    )
)
