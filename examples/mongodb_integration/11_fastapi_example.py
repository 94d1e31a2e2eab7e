"""A FastAPI application that logs what it predicts, with the asynchronous store.

    python 11_fastapi_example.py     (asks itself some questions and ends)
    uvicorn --app-dir . 11_fastapi_example:app

The application opens the store when it starts and closes it when it stops. A request that predicts logs its
confidence, one that says what was right logs feedback, and a third reads how it goes: all without blocking
other requests. Runs on an embedded MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names another
store.
"""

import asyncio
import itertools
import json
import os
import socket
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import mlflow
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from mlflow.entities import Metric, Param, RunStatus
from mlflow.utils.time import get_current_time_millis
from shared import where_to_look
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from genesis_flow.aio import MongoDBStore

EXPERIMENT = "example 11: a service of FastAPI"
URI = os.environ.get("MLFLOW_TRACKING_URI", "genesis://")


class Service:
    """The model, the store, and the run that requests log to."""

    def __init__(self, store: MongoDBStore, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        images, digits = load_digits(return_X_y=True)
        self.model = LogisticRegression(max_iter=200).fit(images[:1000] / 16, digits[:1000])
        self.answers: list[int] = []
        self.steps = itertools.count()

    async def log(self, name: str, value: float, step: int) -> None:
        await self.store.log_metric(self.run_id, Metric(name, value, get_current_time_millis(), step))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with MongoDBStore(URI) as store:
        experiment = await store.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else await store.create_experiment(EXPERIMENT)
        run = await store.create_run(experiment_id, run_name="service", start_time=get_current_time_millis())
        await store.log_param(run.info.run_id, Param("model", "logistic regression"))
        app.state.service = Service(store, run.info.run_id)
        try:
            yield
        finally:
            await store.update_run_info(run.info.run_id, RunStatus.FINISHED, get_current_time_millis())


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    service: Service = request.app.state.service
    pixels = np.array([await request.json()]) / 16
    chances = service.model.predict_proba(pixels)[0]
    step = next(service.steps)
    service.answers.append(int(chances.argmax()))
    await service.log("confidence", float(chances.max()), step)
    return {"number": step, "digit": int(chances.argmax()), "confidence": float(chances.max())}


@app.post("/predictions/{number}/right/{digit}")
async def right(request: Request, number: int, digit: int) -> None:
    service: Service = request.app.state.service
    if number >= len(service.answers):
        raise HTTPException(404, f"There was no prediction {number}.")
    await service.log("right", float(service.answers[number] == digit), number)


@app.get("/quality")
async def quality(request: Request) -> dict[str, float]:
    service: Service = request.app.state.service
    points = await service.store.get_metric_history(service.run_id, "right")
    return {"judged": len(points), "right": sum(point.value for point in points) / max(len(points), 1)}


async def ask_itself() -> None:
    """Serve on a free port, ask as clients do, and stop."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    # Clients may connect at once; they are answered as soon as the application has started.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        host, port = listening.getsockname()
        try:
            await asyncio.to_thread(clients, f"http://{host}:{port}")
        finally:
            server.should_exit = True
            await serving


def clients(address: str) -> None:
    images, digits = load_digits(return_X_y=True)

    def visit(which: int) -> None:
        answer = asked(f"{address}/predict", images[which].tolist())
        asked(f"{address}/predictions/{answer['number']}/right/{digits[which]}", None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(1400, 1480)))
    with urllib.request.urlopen(f"{address}/quality", timeout=30) as reply:
        told = json.load(reply)
    print(f"{told['judged']:.0f} answers were judged, {told['right']:.0%} of them were right")


def asked(url: str, content: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(URI)
    asyncio.run(ask_itself())
    where_to_look(EXPERIMENT, "run service: confidence and right, a point for each request")


if __name__ == "__main__":
    main()
