"""One client of a load test, in a process of its own: what a training does, and a search now and then."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, RunStatus, ViewType
from mlflow.exceptions import MlflowException

from genesis_flow.cli.load.figures import Figures
from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Settings
from genesis_flow.sync.tracking import MongoDBStore

T = TypeVar("T")

CALLS = ("create_run", "log_metric", "log_batch", "search_runs", "update_run_info")
# The steps of a run, every how many of them a batch and a search come, and what a batch has.
_STEPS, _BATCH_EVERY, _SEARCH_EVERY = 50, 5, 10
_KEYS, _POINTS = 10, 10
_PAGE = 20
# After an error: one that comes at once would come a thousand times a second.
_PAUSE = 0.2


def process(*args: Any) -> None:
    """``serve`` as a process: who interrupts the test by Ctrl-C interrupts the process that ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(*args)


def serve(settings: Settings, experiment_id: str, slice_seconds: float, wire: Connection) -> None:
    """Say that all is ready, wait for the word, work as long as it says, and send what was measured."""
    store = MongoDBStore.from_settings(settings)
    try:
        store.get_experiment(experiment_id)  # connects
        wire.send(None)
        seconds: float = wire.recv()
        wire.send(_Training(store, experiment_id, slice_seconds).work(seconds))
    except (EOFError, BrokenPipeError):
        return  # whoever asked is gone
    except MlflowException as error:
        wire.send(mask(error.message))
    finally:
        store.close()


class _Training:
    def __init__(self, store: Any, experiment_id: str, slice_seconds: float) -> None:
        self.store = store
        self.experiment_id = experiment_id
        self.slice_seconds = slice_seconds
        self.figures = Figures()
        self.begun = time.monotonic()

    def work(self, seconds: float) -> Figures:
        self.begun = time.monotonic()
        run_id, step = None, 0
        while time.monotonic() - self.begun < seconds:
            if run_id is None or step == _STEPS:
                self._end(run_id)
                run_id, step = self._new_run(), 0
            else:
                self._step(run_id, step)
                step += 1
        return self.figures

    def _new_run(self) -> str | None:
        run = self._timed(
            "create_run",
            lambda: self.store.create_run(self.experiment_id, "load", round(time.time() * 1000), [], "load"),
        )
        return run.info.run_id if run is not None else None

    def _end(self, run_id: str | None) -> None:
        if run_id is not None:
            end = round(time.time() * 1000)
            self._timed(
                "update_run_info",
                lambda: self.store.update_run_info(run_id, RunStatus.FINISHED, end, None),
            )

    def _step(self, run_id: str, step: int) -> None:
        now = round(time.time() * 1000)
        self._timed(
            "log_metric", lambda: self.store.log_metric(run_id, Metric("loss", 1 / (step + 1), now, step))
        )
        if step % _BATCH_EVERY == 0:
            points = [
                Metric(f"m{key}", float(point), now, step * _POINTS + point)
                for key in range(_KEYS)
                for point in range(_POINTS)
            ]
            params = [Param(f"p{step}", str(step))]
            self._timed("log_batch", lambda: self.store.log_batch(run_id, points, params, []))
        if step % _SEARCH_EVERY == _SEARCH_EVERY - 1:
            self._timed(
                "search_runs",
                lambda: self.store.search_runs(
                    [self.experiment_id],
                    "metrics.loss < 0.5",
                    ViewType.ACTIVE_ONLY,
                    _PAGE,
                    ["metrics.loss"],
                ),
            )

    def _timed(self, call: str, make: Callable[[], T]) -> T | None:
        begun = time.monotonic()
        try:
            made = make()
        except MlflowException as error:
            self.figures.fail(call, mask(error.message))
            time.sleep(_PAUSE)
            return None
        ended = time.monotonic()
        self.figures.add(call, int((ended - self.begun) / self.slice_seconds), (ended - begun) * 1000)
        return made
