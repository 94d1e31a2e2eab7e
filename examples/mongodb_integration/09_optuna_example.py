"""An Optuna study: each trial is a nested run, hopeless ones are pruned, and importances are drawn.

    pip install optuna
    python 09_optuna_example.py

Optuna looks for the best settings of a classifier of handwritten digits. The study is a run, its trials are
runs below it with the score of each epoch; a trial that falls behind is stopped early and marked as KILLED.
At the end the study has the best settings and a plot of which settings mattered. Runs on an embedded
MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os
import warnings

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import optuna
from mlflow import MlflowClient
from shared import where_to_look
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

EXPERIMENT = "example 9: a study of Optuna"
TRIALS, EPOCHS = 25, 12

warnings.filterwarnings("ignore", category=ConvergenceWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    images, digits = load_digits(return_X_y=True)
    data = train_test_split(images / 16, digits, test_size=0.4, random_state=7)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=7, n_startup_trials=10),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=3),
    )
    with mlflow.start_run(run_name="study") as parent:
        study.optimize(lambda trial: tried(trial, data), n_trials=TRIALS)
        mlflow.log_params({f"best_{name}": value for name, value in study.best_params.items()})
        mlflow.log_metric("best_accuracy", study.best_value)
        mlflow.log_figure(importances(study), "plots/importances.png")
        mlflow.log_figure(course(study), "plots/course.png")

    below = MlflowClient().search_runs(
        [experiment.experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' AND attributes.status = 'FINISHED'",
        order_by=["metrics.accuracy DESC"],
        max_results=5,
    )
    print("The best trials")
    for run in below:
        settings = {name: run.data.params[name] for name in ("loss", "alpha", "rate")}
        print(f"  {run.info.run_name:9} accuracy {run.data.metrics['accuracy']:.3f}  {settings}")
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"{pruned} of {TRIALS} trials were stopped early")
    where_to_look(EXPERIMENT, "open the run study, or compare its trials in a plot of parallel coordinates")


def tried(trial: optuna.Trial, data: list[np.ndarray]) -> float:
    """One trial in a run of its own, below that of the study."""
    train_x, test_x, train_y, test_y = data
    settings = {
        "loss": trial.suggest_categorical("loss", ["hinge", "log_loss", "modified_huber"]),
        "alpha": trial.suggest_float("alpha", 1e-4, 0.3, log=True),
        "rate": trial.suggest_float("rate", 3e-3, 0.1, log=True),
    }
    classifier = SGDClassifier(
        loss=settings["loss"],
        alpha=settings["alpha"],
        learning_rate="constant",
        eta0=settings["rate"],
        random_state=7,
    )
    with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
        mlflow.log_params(settings)
        for epoch in range(EPOCHS):
            classifier.partial_fit(train_x, train_y, classes=np.arange(10))
            accuracy = float(classifier.score(test_x, test_y))
            mlflow.log_metric("accuracy", accuracy, step=epoch)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                mlflow.set_tag("pruned", f"in epoch {epoch + 1}")
                mlflow.end_run("KILLED")
                raise optuna.TrialPruned
    return accuracy


def importances(study: optuna.Study) -> plt.Figure:
    found = optuna.importance.get_param_importances(study)
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.barh(list(reversed(found)), list(reversed(found.values())))
    axes.set(title="Which settings mattered", xlabel="share of the differences in accuracy")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def course(study: optuna.Study) -> plt.Figure:
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    numbers, values = [trial.number for trial in done], [trial.value for trial in done]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.scatter(numbers, values, color="tab:blue", label="a trial")
    axes.plot(numbers, np.maximum.accumulate(values), color="tab:orange", label="best so far")
    axes.set(title="How the study went", xlabel="trial", ylabel="accuracy")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
