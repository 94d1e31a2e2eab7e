"""Metrics of a program that uses the stores itself: behind an address, or in a file."""

import logging
import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from genesis_flow.core.errors import GenesisFlowError, invalid
from genesis_flow.core.settings import Settings
from genesis_flow.metrics.exporter import Build, Exporter, Undescribed
from genesis_flow.metrics.folder import Folder
from genesis_flow.metrics.state import State
from genesis_flow.mongo import counting, observed
from genesis_flow.mongo.clients import owner

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_BATCH = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_logger = logging.getLogger(__name__)


def start_counting() -> None:
    if observed.observer is None and owner.has_any():
        _logger.warning(
            "Stores of this program are connected already, and what they ask of the database is not counted: "
            "call genesis_flow.metrics before the first call of a store."
        )
    counting.start()


def serve_program(port: int, address: str, store_uri: str | None) -> Exporter:
    start_counting()
    settings = Settings.resolve(store_uri)
    # A program that names no store has MLflow's own, and no MongoDB to ask.
    state = [State(settings)] if settings.sources["store_uri"] != "default" else []
    try:
        return Exporter(port, address, [_counted(), *state])
    except OSError as error:
        for each in state:
            each.close()
        raise GenesisFlowError(
            f"Metrics cannot be served at {address}, port {port} ({error.strerror or error}): choose another "
            "port, or stop what uses it."
        ) from error


def write_program(path: "str | PathLike[str]", batch: str | None) -> None:
    name = Path(path).stem if batch is None else batch
    if not _BATCH.fullmatch(name):
        raise invalid(
            "The name of a batch may have letters, digits, '_', '.' and '-', up to 100: give another name of "
            "the file, or batch=."
        )
    registry = CollectorRegistry()
    for collector in (Build(), _counted()):
        registry.register(Undescribed(_Named(collector, name)))
    write_to_textfile(str(path), registry)


def _counted() -> Collector:
    """What this process has counted, or all that share a folder, as workers of gunicorn do."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return _OfThisProcess()
    counting.count()
    return Folder(Path(folder))


class _OfThisProcess(Collector):
    """Without the times at which counters were made, each of which would be a time series."""

    def collect(self) -> Iterator[Metric]:
        counting.count()
        for found in counting.registry.collect():
            found.samples = [each for each in found.samples if not each.name.endswith("_created")]
            yield found


class _Named(Collector):
    def __init__(self, collector: Collector, batch: str) -> None:
        self._collector = collector
        self._batch = batch

    def collect(self) -> Iterator[Metric]:
        for found in self._collector.collect():
            found.samples = [
                Sample(each.name, {**each.labels, "batch": self._batch}, each.value) for each in found.samples
            ]
            yield found
