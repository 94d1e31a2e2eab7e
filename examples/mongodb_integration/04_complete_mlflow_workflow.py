"""From data to a monitored candidate for deployment: search, selection, registration, scoring, drift.

    python 04_complete_mlflow_workflow.py

A grid search for a model of customers who leave, one nested run for each choice; the best is tested,
registered as `candidate` and scores four weeks of new customers. In the third week the customers begin to
change. The drift is measured, logged and noted on the model version. Runs on an embedded MongoDB in
./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os
from dataclasses import dataclass
from itertools import product

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import pandas as pd
import sklearn
from mlflow import MlflowClient
from mlflow.models import infer_signature
from shared import where_to_look
from sklearn.calibration import CalibrationDisplay
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import RocCurveDisplay, brier_score_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

EXPERIMENT = "example 4: complete workflow"
MODEL = "customer-churn"
FEATURES = ["monthly_price", "months_as_customer", "support_calls", "hours_of_use"]
GRID = {"max_depth": [2, 5, 9], "min_samples_leaf": [1, 20, 100]}
LEAST_AUC = 0.75
# Population stability index: below 0.1 nothing has changed, above 0.25 the model no longer fits its world.
DRIFT_LIMIT = 0.25


@dataclass(frozen=True)
class Split:
    train: pd.DataFrame
    test: pd.DataFrame


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    customers = invent_customers(1500, seed=1)
    split = Split(*train_test_split(customers, test_size=0.3, random_state=1, stratify=customers.left))

    search_run_id = search_grid(split)
    choice = select(experiment.experiment_id, search_run_id)
    version = test_and_register(choice, split)
    if version is not None:
        monitor(version, split.train)
    where_to_look(
        EXPERIMENT,
        "runs        the grid search with its nested runs, and the monitoring",
        f"model       {MODEL}",
    )


def invent_customers(count: int, seed: int, change: float = 0.0) -> pd.DataFrame:
    """Customers; with ``change`` they pay more and use the product less than before."""
    random = np.random.default_rng(seed)
    price = random.gamma(6, 8, count) * (1 + 0.5 * change)
    months = random.exponential(24, count)
    calls = random.poisson(1.5 + change, count).astype(float)
    hours = random.lognormal(2.5 - 0.6 * change, 0.6, count)
    risk = 0.03 * (price - 48) - 0.04 * (months - 24) + 0.6 * (calls - 1.5) - 0.05 * (hours - 14)
    left = random.random(count) < 1 / (1 + np.exp(-1.5 * risk + 0.5))
    values = np.column_stack([price, months, calls, hours]).round(2)
    return pd.DataFrame(values, columns=FEATURES).assign(left=left)


def search_grid(split: Split) -> str:
    """One run for the search, and in it one for each choice."""
    folds = StratifiedKFold(3, shuffle=True, random_state=1)
    scores = {}
    with mlflow.start_run(run_name="grid search") as search:
        mlflow.log_params({name: str(values) for name, values in GRID.items()})
        mlflow.log_input(
            mlflow.data.from_pandas(split.train, name="customers", targets="left"), context="training"
        )
        for depth, leaf in product(*GRID.values()):
            with mlflow.start_run(run_name=f"depth {depth}, leaf {leaf}", nested=True):
                mlflow.log_params({"max_depth": depth, "min_samples_leaf": leaf})
                aucs = cross_val_score(
                    forest(depth, leaf), split.train[FEATURES], split.train.left, cv=folds, scoring="roc_auc"
                )
                for fold, auc in enumerate(aucs):
                    mlflow.log_metric("fold_auc", auc, step=fold)
                mlflow.log_metrics({"auc": aucs.mean(), "auc_spread": aucs.std()})
                scores[depth, leaf] = aucs.mean()
        mlflow.log_metric("best_auc", max(scores.values()))
        mlflow.log_figure(heat_map(scores), "plots/grid.png")
    return search.info.run_id


def select(experiment_id: str, search_run_id: str) -> dict[str, int]:
    """The best choice, asked of the store: any program can do so later."""
    runs = mlflow.search_runs(
        [experiment_id],
        filter_string=f"tags.mlflow.parentRunId = '{search_run_id}' AND metrics.auc > 0.5",
        order_by=["metrics.auc DESC", "metrics.auc_spread ASC"],
        output_format="list",
    )
    print(f"{'depth':>6} {'leaf':>6} {'auc':>8}")
    for run in runs[:3]:
        print(
            "{max_depth:>6} {min_samples_leaf:>6}".format(**run.data.params),
            f"{run.data.metrics['auc']:8.3f}",
        )
    return {name: int(runs[0].data.params[name]) for name in GRID}


def test_and_register(choice: dict[str, int], split: Split) -> str | None:
    """Train on all of the training data, test, and register if it is good enough; the version."""
    model = forest(choice["max_depth"], choice["min_samples_leaf"])
    features = split.train[FEATURES]
    with mlflow.start_run(run_name="chosen"):
        model.fit(features, split.train.left)
        probabilities = model.predict_proba(split.test[FEATURES])[:, 1]
        auc = roc_auc_score(split.test.left, probabilities)
        logged = mlflow.sklearn.log_model(
            model,
            name="churn",
            signature=infer_signature(features, model.predict_proba(features)),
            input_example=features.head(2),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}", f"pandas=={pd.__version__}"],
            pyfunc_predict_fn="predict_proba",
            skops_trusted_types=["sklearn.tree._tree.Tree"],
        )
        mlflow.log_params(choice)
        mlflow.log_metrics(
            {"test_auc": auc, "test_brier": brier_score_loss(split.test.left, probabilities)},
            dataset=mlflow.data.from_pandas(split.test, name="customers-test", targets="left"),
            model_id=logged.model_id,
        )
        mlflow.log_figure(quality(split.test.left, probabilities), "plots/quality.png")
    if auc < LEAST_AUC:
        print(f"The best model reaches {auc:.3f} on the test, {LEAST_AUC} is needed: nothing is registered.")
        return None
    registered = mlflow.register_model(logged.model_uri, MODEL, tags={"test_auc": f"{auc:.3f}"})
    MlflowClient().set_registered_model_alias(MODEL, "candidate", registered.version)
    print(f"\nVersion {registered.version} of {MODEL} is the candidate, {auc:.3f} on the test")
    return str(registered.version)


def monitor(version: str, reference: pd.DataFrame) -> None:
    """Score new customers week by week, as a batch job would, and see whether they are like the old."""
    candidate = mlflow.pyfunc.load_model(f"models:/{MODEL}@candidate")
    client = MlflowClient()
    drifts = {}
    print(f"\n{'week':>4} {'leave':>7}   drift")
    with mlflow.start_run(run_name="monitoring"):
        mlflow.set_tag("model_version", version)
        for week, change in enumerate((0.0, 0.0, 0.5, 1.0), start=1):
            batch = invent_customers(400, seed=100 + week, change=change)[FEATURES]
            scored = batch.assign(probability=candidate.predict(batch)[:, 1].round(4))
            mlflow.log_table(scored, f"scores/week-{week}.json")
            drifts[week] = {name: stability_index(reference[name], batch[name]) for name in FEATURES}
            worst = max(drifts[week].values())
            mlflow.log_metrics({f"drift.{name}": value for name, value in drifts[week].items()}, step=week)
            mlflow.log_metrics(
                {"drift": worst, "share_leaving": (scored.probability > 0.5).mean()}, step=week
            )
            verdict = "drift" if worst > DRIFT_LIMIT else "ok"
            print(f"{week:4} {(scored.probability > 0.5).mean():7.1%}   {worst:.2f} {verdict}")
            client.set_model_version_tag(MODEL, version, f"week-{week}", verdict)
        mlflow.log_figure(drift_plot(drifts), "plots/drift.png")
        mlflow.set_tag("verdict", verdict)
    if verdict == "drift":
        client.set_registered_model_alias(MODEL, "needs-retraining", version)
        print("The customers have changed: the version has the alias needs-retraining now.")


def stability_index(reference: pd.Series, current: pd.Series) -> float:
    """How far two distributions are apart, over the tenths of the reference."""
    edges = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    shares = [
        np.clip(np.bincount(np.digitize(values, edges), minlength=len(edges) + 1) / len(values), 1e-3, None)
        for values in (reference, current)
    ]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def forest(depth: int, leaf: int) -> RandomForestClassifier:
    return RandomForestClassifier(60, max_depth=depth, min_samples_leaf=leaf, random_state=1)


def heat_map(scores: dict[tuple[int, int], float]) -> plt.Figure:
    depths, leaves = GRID.values()
    values = np.array([[scores[depth, leaf] for leaf in leaves] for depth in depths])
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    image = axes.imshow(values, cmap="viridis")
    for (row, column), value in np.ndenumerate(values):
        dark = value < (values.min() + values.max()) / 2
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(leaves)), leaves)
    axes.set_yticks(range(len(depths)), depths)
    axes.set(title="Cross-validated area under the curve", xlabel="min_samples_leaf", ylabel="max_depth")
    figure.colorbar(image, ax=axes)
    return figure


def quality(target: pd.Series, probabilities: np.ndarray) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    RocCurveDisplay.from_predictions(
        target, probabilities, name="test customers", ax=left, plot_chance_level=True
    )
    CalibrationDisplay.from_predictions(target, probabilities, n_bins=8, name="test customers", ax=right)
    left.set_title("How well it ranks")
    right.set_title("Whether its probabilities are true")
    return figure


def drift_plot(drifts: dict[int, dict[str, float]]) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    weeks = np.arange(1, len(drifts) + 1)
    for offset, name in enumerate(FEATURES):
        axes.bar(weeks + 0.2 * (offset - 1.5), [drifts[week][name] for week in drifts], 0.18, label=name)
    axes.axhline(DRIFT_LIMIT, color="black", linestyle="--", linewidth=1, label="limit")
    axes.set(
        title="Drift of the new customers", xlabel="week", ylabel="population stability index", xticks=weeks
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
