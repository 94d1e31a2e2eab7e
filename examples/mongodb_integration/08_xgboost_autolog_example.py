"""XGBoost with autologging: one line, and params, curves, importances and the model are logged.

    pip install xgboost-cpu          (or xgboost, which brings the libraries of a graphics card)
    python 08_xgboost_autolog_example.py

Two boosters learn to find tumours. mlflow.xgboost.autolog() logs what each was given and what came of it,
at every round. The better one is found by a search, loaded from the store and used. Runs on an embedded
MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os

import matplotlib.pyplot as plt
import mlflow
import xgboost
from shared import where_to_look
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

EXPERIMENT = "example 8: autologging of XGBoost"
ROUNDS = 60


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    mlflow.xgboost.autolog(importance_types=["gain"], log_models=False, log_datasets=False, silent=True)

    features, benign = load_breast_cancer(return_X_y=True, as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(features, benign, test_size=0.3, random_state=7)
    train, test = xgboost.DMatrix(train_x, train_y), xgboost.DMatrix(test_x, test_y)
    boosters = {}
    for depth in (1, 4):
        with mlflow.start_run(run_name=f"depth {depth}") as run:
            booster = xgboost.train(
                # One thread: so little work is slower on many.
                {"objective": "binary:logistic", "max_depth": depth, "eta": 0.2, "seed": 7, "nthread": 1},
                train,
                num_boost_round=ROUNDS,
                evals=[(train, "train"), (test, "test")],
                early_stopping_rounds=15,
                verbose_eval=False,
            )
            mlflow.log_figure(importance(booster), "plots/importance.png")
            boosters[run.info.run_id] = booster

    runs = mlflow.search_runs([experiment.experiment_id], order_by=["metrics.`test-logloss` ASC"])
    runs = runs[runs.run_id.isin(boosters)]
    print(
        runs[["tags.mlflow.runName", "metrics.test-logloss", "metrics.best_iteration"]].to_string(index=False)
    )

    best = runs.run_id.iloc[0]
    # Not by autologging: requirements that are named need not be found out in another process.
    with mlflow.start_run(run_id=best):
        logged = mlflow.xgboost.log_model(
            boosters[best],
            name="tumours",
            input_example=test_x.head(2),
            pip_requirements=[f"xgboost=={xgboost.__version__}"],
        )
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    right = accuracy_score(test_y, loaded.predict(test_x) > 0.5)
    print(f"\nThe better one, loaded from {logged.model_uri}: {right:.3f} of the test data are right")
    where_to_look(EXPERIMENT, "both runs, compared: the curves of test-logloss")


def importance(booster: xgboost.Booster) -> plt.Figure:
    gain = sorted(booster.get_score(importance_type="gain").items(), key=lambda pair: pair[1])[-12:]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.barh([name for name, _ in gain], [value for _, value in gain])
    axes.set(title="What the booster looks at", xlabel="gain of a split")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
