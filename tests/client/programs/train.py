"""A training as users write it: the fluent API only. Arguments: URI, experiment name."""

import json
import sys
from pathlib import Path

import mlflow

uri, name = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment(name)
with mlflow.start_run(run_name="parent", tags={"team": "blue"}, description="a **search**") as parent:
    mlflow.log_param("epochs", 3)
    children = []
    for rate in (0.1, 0.2):
        with mlflow.start_run(run_name=f"rate {rate}", nested=True) as child:
            mlflow.log_params({"learning.rate": rate, "optimizer": "sgd"})
            for epoch in range(3):
                mlflow.log_metrics(
                    {"loss": rate / (epoch + 1), "val/accuracy": 0.5 + rate * epoch}, step=epoch
                )
            Path("notes.txt").write_text(f"rate {rate}")
            mlflow.log_artifact("notes.txt", "texts")
            mlflow.log_dict({"rate": rate}, "settings.json")
            children.append(child.info.run_id)
    mlflow.set_tag("finished", "yes")
    mlflow.log_metric("best", float("-inf"))
try:
    with mlflow.start_run(run_name="broken") as broken:
        raise RuntimeError("diverged")
except RuntimeError:
    pass
print(
    json.dumps(
        {
            "experiment": parent.info.experiment_id,
            "parent": parent.info.run_id,
            "children": children,
            "broken": broken.info.run_id,
        }
    )
)
