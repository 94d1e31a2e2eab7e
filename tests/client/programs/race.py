"""Many processes want one new experiment at the same moment. Arguments: URI, experiment name, processes.

They are forked from one that has imported MLflow but opened no store, as workers of a launcher are.
"""

import json
import multiprocessing
import sys
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import mlflow


def worker(uri: str, name: str, barrier: Barrier, answers: "Queue[str]") -> None:
    mlflow.set_tracking_uri(uri)
    barrier.wait(120)
    try:
        answers.put(mlflow.set_experiment(name).experiment_id)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")


def main(uri: str, name: str, count: int) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)
    answers: Queue[str] = context.Queue()
    workers = [context.Process(target=worker, args=(uri, name, barrier, answers)) for _ in range(count)]
    for process in workers:
        process.start()
    found = [answers.get(timeout=120) for _ in workers]
    for process in workers:
        process.join(120)
    print(json.dumps({"answers": found, "exit_codes": [process.exitcode for process in workers]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
