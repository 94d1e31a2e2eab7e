"""Log models: scikit-learn and one of your own, with signatures, datasets, metrics and plots.

    python 01_model_logging_example.py

Three classifiers learn to tell wines apart. Each is logged with the data it learned from, a signature, an
input example, metrics that belong to model and dataset, and a confusion matrix. Then the models are
searched, and the best is loaded and used. Runs on an embedded MongoDB in ./genesis-data unless
MLFLOW_TRACKING_URI names another store.
"""

import os
import time
from typing import Any

import matplotlib.pyplot as plt
import mlflow
import pandas as pd
import sklearn
from mlflow.models import ModelSignature, infer_signature
from shared import where_to_look
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

EXPERIMENT = "example 1: logging models"
CULTIVARS = ["Barolo", "Grignolino", "Barbera"]
# Named here, so that MLflow need not find out by loading each model in another process.
REQUIREMENTS = [f"scikit-learn=={sklearn.__version__}", f"pandas=={pd.__version__}"]
# MLflow saves scikit-learn's models without pickle, and wants to be told which compiled types it may restore.
TRUSTED = ["sklearn.tree._tree.Tree"]


class WineExpert(mlflow.pyfunc.PythonModel):
    """A model of your own: it says the name of the wine, or that it is not sure."""

    def __init__(self, classifier: Any, least_confidence: float) -> None:
        self.classifier = classifier
        self.least_confidence = least_confidence

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        least = (params or {}).get("least_confidence", self.least_confidence)
        probabilities = self.classifier.predict_proba(model_input)
        confidence = probabilities.max(axis=1)
        names = [
            self.classifier.classes_[best] if sure else "not sure"
            for best, sure in zip(probabilities.argmax(axis=1), confidence >= least, strict=True)
        ]
        return pd.DataFrame({"wine": names, "confidence": confidence.round(3)})


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    begin = int(time.time() * 1000)

    wines = load_wine(as_frame=True).frame
    wines["cultivar"] = [CULTIVARS[number] for number in wines.pop("target")]
    train, test = train_test_split(wines, test_size=0.4, random_state=7, stratify=wines.cultivar)
    classifiers = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.05)),
        "one small tree": RandomForestClassifier(n_estimators=1, max_depth=2, random_state=7),
        "random forest": RandomForestClassifier(n_estimators=100, random_state=7),
    }
    for name, classifier in classifiers.items():
        log_classifier(name, classifier, train, test)

    models = mlflow.search_logged_models(
        experiment_ids=[experiment.experiment_id],
        filter_string=f"metrics.accuracy > 0.5 AND creation_timestamp >= {begin}",
        order_by=[{"field_name": "metrics.accuracy", "ascending": False}],
        output_format="list",
    )
    print("Logged models, best first")
    for model in models:
        scores = {metric.key: metric.value for metric in model.metrics or []}
        print(f"  {model.name:20} accuracy {scores['accuracy']:.3f}  log loss {scores['log_loss']:.3f}")

    expert = log_expert(classifiers["random forest"], train)
    loaded = mlflow.pyfunc.load_model(expert)
    few = test.drop(columns="cultivar").head(3)
    print("\nThe expert on three wines")
    print(loaded.predict(few).to_string(index=False))
    print("\nand when it has to be surer")
    print(loaded.predict(few, params={"least_confidence": 0.8}).to_string(index=False))
    where_to_look(EXPERIMENT, "the tab Models compares them; each run has plots among its artifacts")


def log_classifier(name: str, classifier: Any, train: pd.DataFrame, test: pd.DataFrame) -> None:
    features, target = train.drop(columns="cultivar"), train.cultivar
    test_features = test.drop(columns="cultivar")
    with mlflow.start_run(run_name=name):
        mlflow.log_params(
            {
                key: value
                for key, value in classifier.get_params().items()
                if isinstance(value, int | float | str)
            }
        )
        mlflow.log_input(
            mlflow.data.from_pandas(train, name="wine-train", targets="cultivar"), context="training"
        )
        test_set = mlflow.data.from_pandas(test, name="wine-test", targets="cultivar")
        classifier.fit(features, target)
        predicted = classifier.predict(test_features)
        logged = mlflow.sklearn.log_model(
            classifier,
            name=name.replace(" ", "-"),
            signature=infer_signature(features, classifier.predict(features)),
            input_example=features.head(2),
            pip_requirements=REQUIREMENTS,
            skops_trusted_types=TRUSTED,
        )
        mlflow.log_metrics(
            {
                "accuracy": accuracy_score(test.cultivar, predicted),
                "log_loss": log_loss(test.cultivar, classifier.predict_proba(test_features)),
            },
            dataset=test_set,
            model_id=logged.model_id,
        )
        mlflow.log_figure(confusion(name, test.cultivar, predicted), "plots/confusion.png")
        mlflow.log_figure(importance(name, classifier, test), "plots/importance.png")


def log_expert(classifier: Any, train: pd.DataFrame) -> str:
    """Log the model of our own; the URI by which it is loaded."""
    expert = WineExpert(classifier, least_confidence=0.6)
    features = train.drop(columns="cultivar")
    with mlflow.start_run(run_name="expert"):
        signature: ModelSignature = infer_signature(
            features, expert.predict(None, features), params={"least_confidence": 0.6}
        )
        return mlflow.pyfunc.log_model(
            name="wine-expert",
            python_model=expert,
            signature=signature,
            input_example=features.head(2),
            pip_requirements=REQUIREMENTS,
        ).model_uri


def confusion(name: str, target: pd.Series, predicted: Any) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        target, predicted, labels=CULTIVARS, cmap="Blues", colorbar=False, ax=axes
    )
    axes.set_title(f"Test wines, {name}")
    return figure


def importance(name: str, classifier: Any, test: pd.DataFrame) -> plt.Figure:
    features = test.drop(columns="cultivar")
    found = permutation_importance(classifier, features, test.cultivar, n_repeats=5, random_state=7)
    # Most columns do nothing for a small tree, and a bar of no length says so badly.
    order = [column for column in found.importances_mean.argsort() if found.importances_mean[column] != 0]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.barh(features.columns[order], found.importances_mean[order], xerr=found.importances_std[order])
    axes.set(title=f"What {name} looks at", xlabel="accuracy lost when the column is shuffled")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
