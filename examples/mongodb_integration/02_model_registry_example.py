"""The model registry: versions, comparison, aliases, stages, and a challenger that becomes the champion.

    python 02_model_registry_example.py

Three versions of a classifier of tumours are trained, registered and compared. The best gets the alias
`champion`, under which programs load it, then a newer version challenges it. Runs on an embedded MongoDB
in ./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os
import warnings

import matplotlib.pyplot as plt
import mlflow
import pandas as pd
import sklearn
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from shared import where_to_look
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import RocCurveDisplay, recall_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

EXPERIMENT = "example 2: model registry"
MODEL = "tumour-classifier"
REGULARIZATIONS = [0.0001, 0.001, 0.1]

# Stages are deprecated in favour of aliases; this example shows both.
warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")
warnings.filterwarnings("ignore", category=FutureWarning, message=".*stage.*")


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    mlflow.set_experiment(EXPERIMENT)
    client = MlflowClient()
    create_model(client)

    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "benign"})
    train, test = train_test_split(frame, test_size=0.3, random_state=11, stratify=frame.benign)

    versions = [register(client, regularization, train, test) for regularization in REGULARIZATIONS]
    scores = compare(client, versions)

    champion = max(versions[:-1], key=lambda version: scores[version.version])
    client.set_registered_model_alias(MODEL, "champion", champion.version)
    client.transition_model_version_stage(
        MODEL, champion.version, "Production", archive_existing_versions=True
    )
    print(f"\nVersion {champion.version} is the champion: models:/{MODEL}@champion")

    challenge(client, versions[-1], scores)
    show_history(client, versions)

    served = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    few = test.drop(columns="benign").head(5)
    print(f"\nThe champion on five tumours: {served.predict(few).tolist()}")
    print(f"                    in truth: {test.benign.head(5).tolist()}")
    where_to_look(EXPERIMENT, f"registered model  {MODEL}, in the tab Model registry")


def create_model(client: MlflowClient) -> None:
    try:
        client.create_registered_model(
            MODEL, tags={"task": "classification", "owner": "oncology"}, description="Is a tumour benign?"
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        print("The model is registered already: this adds three more versions.")


def register(
    client: MlflowClient, regularization: float, train: pd.DataFrame, test: pd.DataFrame
) -> ModelVersion:
    """Train, log and register one version."""
    features, target = train.drop(columns="benign"), train.benign
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularization))
    with mlflow.start_run(run_name=f"C = {regularization}") as run:
        model.fit(features, target)
        mlflow.log_param("C", regularization)
        mlflow.log_metrics(evaluate(model, test))
        mlflow.log_figure(roc_curve(model, test), "plots/roc.png")
        info = mlflow.sklearn.log_model(
            model,
            name="classifier",
            signature=infer_signature(features, model.predict_proba(features)[:, 1]),
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            registered_model_name=MODEL,
        )
    version = client.get_model_version(MODEL, str(info.registered_model_version))
    client.update_model_version(
        MODEL, version.version, description=f"logistic regression, C = {regularization}"
    )
    client.set_model_version_tag(MODEL, version.version, "trained_by", run.info.run_name)
    return version


def evaluate(model: Pipeline, test: pd.DataFrame) -> dict[str, float]:
    features = test.drop(columns="benign")
    return {
        "auc": roc_auc_score(test.benign, model.predict_proba(features)[:, 1]),
        # Of the malignant tumours, how many are found.
        "malignant_recall": recall_score(test.benign, model.predict(features), pos_label=0),
    }


def compare(client: MlflowClient, versions: list[ModelVersion]) -> dict[str, float]:
    """Print the versions side by side; the score of each."""
    print(f"\n{'version':8} {'C':>8} {'auc':>8} {'malignant recall':>18}")
    scores = {}
    for version in versions:
        run = client.get_run(version.run_id).data
        auc, recall = run.metrics["auc"], run.metrics["malignant_recall"]
        print(f"{version.version:8} {run.params['C']:>8} {auc:8.3f} {recall:18.3f}")
        scores[version.version] = recall
    return scores


def challenge(client: MlflowClient, challenger: ModelVersion, scores: dict[str, float]) -> None:
    """The newest version takes over if it finds more malignant tumours."""
    client.set_registered_model_alias(MODEL, "challenger", challenger.version)
    client.transition_model_version_stage(MODEL, challenger.version, "Staging")
    champion = client.get_model_version_by_alias(MODEL, "champion")
    new, old = scores[challenger.version], scores[champion.version]
    verdict = f"{new:.3f} against {old:.3f} of version {champion.version}"
    client.set_model_version_tag(MODEL, challenger.version, "verdict", verdict)
    print(f"Version {challenger.version} challenges: {verdict}")
    if new > old:
        # One write moves the alias: programs that load the champion get the old one or the new one.
        client.set_registered_model_alias(MODEL, "champion", challenger.version)
        client.transition_model_version_stage(
            MODEL, challenger.version, "Production", archive_existing_versions=True
        )
        print(f"Version {challenger.version} is the new champion")
    client.delete_registered_model_alias(MODEL, "challenger")


def show_history(client: MlflowClient, versions: list[ModelVersion]) -> None:
    print("\nThe registry now")
    made_here = {version.version for version in versions}
    for version in client.search_model_versions(f"name = '{MODEL}'", order_by=["version_number DESC"]):
        if version.version in made_here:
            aliases = ", ".join(client.get_model_version(MODEL, version.version).aliases) or "-"
            print(f"  version {version.version:4} {version.current_stage:12} alias: {aliases}")


def roc_curve(model: Pipeline, test: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    RocCurveDisplay.from_estimator(
        model, test.drop(columns="benign"), test.benign, name="test data", ax=axes, plot_chance_level=True
    )
    axes.set_title(f"{MODEL}, C = {model[-1].C}")
    return figure


if __name__ == "__main__":
    main()
