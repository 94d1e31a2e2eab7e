"""Several processes log to one run at the same time, as the workers of a distributed training do.

    python 10_several_processes_example.py

The first process makes a run and hands its id to three others. Each trains on its part of the data and logs
to that run: curves under a name of its own, and the examples that it has seen under a name that all share.
Nothing is lost, nobody waits for the others, and no server is in between. Runs on an embedded MongoDB in
./genesis-data unless MLFLOW_TRACKING_URI names another store.
"""

import os
from multiprocessing import get_context

import matplotlib.pyplot as plt
import mlflow
import numpy as np
from mlflow import MlflowClient
from shared import where_to_look
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

EXPERIMENT = "example 10: several processes, one run"
WORKERS, STEPS = 3, 50


def main() -> None:
    print(__doc__)
    uri = os.environ.get("MLFLOW_TRACKING_URI", "genesis://")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"{WORKERS} workers") as run:
        mlflow.log_params({"workers": WORKERS, "steps": STEPS})
        # New interpreters, as on several machines; processes that fork may use the store as well.
        Process = get_context("spawn").Process
        workers = [Process(target=work, args=(rank, uri, run.info.run_id)) for rank in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise SystemExit("a worker failed")

        client = MlflowClient()
        shared = client.get_metric_history(run.info.run_id, "examples_seen")
        curves = {
            name: [point.value for point in client.get_metric_history(run.info.run_id, name)]
            for name in sorted(client.get_run(run.info.run_id).data.metrics)
            if name.startswith("worker_")
        }
        mlflow.log_metric("mean_accuracy", float(np.mean([values[-1] for values in curves.values()])))
        mlflow.log_figure(drawn(curves), "plots/workers.png")
    print(f"{WORKERS} processes logged {sum(map(len, curves.values()))} points under names of their own")
    print(f"and {len(shared)} under the name that all share")
    where_to_look(EXPERIMENT, "the run has a curve for each worker; search for worker_ above the charts")


def work(rank: int, uri: str, run_id: str) -> None:
    """What one worker does. ``start_run(run_id=...)`` would end the run of all when the first one is done."""
    client = MlflowClient(uri)
    images, digits = load_digits(return_X_y=True)
    mine = np.random.default_rng(rank).permutation(len(digits))[:1000]
    classifier = SGDClassifier(loss="log_loss", random_state=rank)
    for step in range(STEPS):
        batch = mine[step * 20 : step * 20 + 20]
        classifier.partial_fit(images[batch] / 16, digits[batch], classes=np.arange(10))
        accuracy = float(classifier.score(images / 16, digits))
        client.log_metric(run_id, f"worker_{rank}/accuracy", accuracy, step=step)
        client.log_metric(run_id, "examples_seen", float(rank * 1000 + step * 20), step=step)
    client.set_tag(run_id, f"worker_{rank}", f"process {os.getpid()}")


def drawn(curves: dict[str, list[float]]) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in curves.items():
        axes.plot(values, label=name.split("/")[0])
    axes.set(title="Accuracy of each worker", xlabel="step", ylabel="accuracy")
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
