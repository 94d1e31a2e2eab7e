"""Judges of a direct client: registered, changed, listed, deleted, without a server."""

import json
import sys

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.genai import delete_scorer, get_scorer, list_scorers, make_judge
from mlflow.genai.scorers import Guidelines, ScorerSamplingConfig
from mlflow.genai.scorers.registry import list_scorer_versions

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment(sys.argv[2]).experiment_id


def refused(call) -> str:
    try:
        call()
    except MlflowException as error:
        return f"{error.error_code}: {error.message}"
    return "was not refused"


instructions = "Is {{ outputs }} polite?"
polite = make_judge("polite", instructions=instructions, model="openai:/gpt-4").register()
make_judge("polite", instructions="Is {{ outputs }} kind?", model="openai:/gpt-4").register()
guidelines = Guidelines(name="short", guidelines="Be short.", model="openai:/gpt-4")
short = guidelines.register(experiment_id=experiment)
online = ScorerSamplingConfig(sample_rate=0.5)
answer = {
    "experiment": experiment,
    "listed": [scorer.name for scorer in list_scorers()],
    "versions": [
        [scorer.instructions, number]
        for scorer, number in list_scorer_versions(name="polite", experiment_id=experiment)
    ],
    "first": get_scorer(name="polite", version=1).instructions,
    "guidelines": get_scorer(name="short").guidelines,
    "start": refused(lambda: polite.start(sampling_config=online)),
    "update": refused(lambda: short.update(sampling_config=online)),
    "stopped": polite.stop().sample_rate,
    "gateway": refused(make_judge("guarded", instructions=instructions, model="gateway:/chat").register),
}
delete_scorer(name="polite", version=1)
answer["left"] = [number for _, number in list_scorer_versions(name="polite")]
delete_scorer(name="polite", version="all")
answer["at last"] = [scorer.name for scorer in list_scorers(experiment_id=experiment)]
print(json.dumps(answer))
