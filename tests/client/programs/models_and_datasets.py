"""Logged models with metrics on a dataset, and an evaluation dataset, through MLflow's public functions."""

import json
import sys

import mlflow
import pandas as pd
from mlflow.genai.datasets import create_dataset, get_dataset, search_datasets

uri, experiment = sys.argv[1:]
mlflow.set_tracking_uri(uri)
experiment_id = mlflow.set_experiment(experiment).experiment_id

data = mlflow.data.from_pandas(pd.DataFrame({"x": [1, 2]}), name="holdout")
models = []
with mlflow.start_run() as run:
    for number in range(3):
        model = mlflow.initialize_logged_model(name=f"model-{number}", tags={"n": str(number)})
        mlflow.log_model_params({"depth": str(number)}, model_id=model.model_id)
        for step in range(2):
            mlflow.log_metric("acc", number + step / 10, step=step, model_id=model.model_id, dataset=data)
        mlflow.finalize_logged_model(model.model_id, "READY")
        models.append(model.model_id)

dataset = create_dataset(
    name=f"questions of {experiment}", experiment_id=experiment_id, tags={"team": "blue"}
)
records = [{"inputs": {"question": str(number)}, "expectations": {"answer": number}} for number in range(3)]
dataset.merge_records(records)
dataset.merge_records([{"inputs": {"question": "0"}, "expectations": {"tone": "kind"}}])
reread = get_dataset(dataset_id=dataset.dataset_id)
best = mlflow.search_logged_models(
    experiment_ids=[experiment_id],
    filter_string="metrics.acc > 0.5 AND params.depth != '1'",
    datasets=[{"dataset_name": "holdout"}],
    order_by=[{"field_name": "metrics.acc", "ascending": False, "dataset_name": "holdout"}],
    output_format="list",
)

print(
    json.dumps(
        {
            "experiment": experiment_id,
            "run": run.info.run_id,
            "models": models,
            "best": [model.model_id for model in best],
            "dataset": dataset.dataset_id,
            "questions": reread.to_df()["inputs"].tolist(),
            "expectations": reread.to_df()["expectations"].tolist(),
            "experiments": reread.experiment_ids,
            "found": [each.name for each in search_datasets(experiment_ids=[experiment_id])],
        }
    )
)
