"""An agent evaluated by MLflow with scorers in code: on data at hand, then on a stored dataset."""

import json
import sys

import mlflow
from mlflow.genai.scorers import scorer

uri, experiment_name = sys.argv[1:]
mlflow.set_tracking_uri(uri)
experiment = mlflow.set_experiment(experiment_name)


@mlflow.trace(span_type="AGENT")
def agent(question: str) -> str:
    return f"{question} has {len(question)} letters"


@scorer
def is_right(outputs: str, expectations: dict) -> bool:
    return str(expectations["letters"]) in outputs


data = [
    {"inputs": {"question": "Berlin"}, "expectations": {"letters": 6}},
    {"inputs": {"question": "Paris"}, "expectations": {"letters": 7}},
]
at_hand = mlflow.genai.evaluate(data=data, predict_fn=agent, scorers=[is_right])
dataset = mlflow.genai.datasets.create_dataset(
    name=f"cities {experiment_name}", experiment_id=[experiment.experiment_id]
)
dataset.merge_records(data)
dataset.merge_records(data)
stored = mlflow.genai.evaluate(data=dataset, predict_fn=agent, scorers=[is_right])
traces = mlflow.search_traces(locations=[experiment.experiment_id], run_id=stored.run_id, return_type="list")

print(
    json.dumps(
        {
            "scores": [float(result.metrics["is_right/mean"]) for result in (at_hand, stored)],
            "records": len(dataset.to_df()),
            "judged": sorted(
                [json.loads(trace.data.request)["question"], assessment.value]
                for trace in traces
                for assessment in trace.info.assessments
                if assessment.name == "is_right"
            ),
        }
    )
)
