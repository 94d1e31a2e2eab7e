"""A program that logs and ends: it tells which threads PyMongo's exit handler finds to wait for."""

import atexit
import json
import sys
from typing import Any

from pymongo import periodic_executor


def executors() -> list[str]:
    """Of threads that PyMongo would wait for, by name. A private set: were it gone, this would say so."""
    known: set[Any] = periodic_executor._EXECUTORS
    return sorted(str(each._name) for reference in list(known) if (each := reference()) is not None)


def tell() -> None:
    print(json.dumps({"while it ran": while_it_ran, "at the end": executors()}))


from pymongo.synchronous import monitor  # noqa: E402 - with its exit handler

assert monitor

# The handler that was registered last runs first: PyMongo's runs behind this one, and this one behind ours.
atexit.register(tell)

import mlflow  # noqa: E402

mlflow.set_tracking_uri(sys.argv[1])
mlflow.start_run()  # MLflow ends it in an exit handler
for step in range(3):
    mlflow.log_metric("loss", 1.0, step=step)
while_it_ran = executors()
