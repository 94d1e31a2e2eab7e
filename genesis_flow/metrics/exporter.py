"""Answers Prometheus: one small HTTP server in a thread, on an address of its own."""

import gzip
import platform
import socket
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from genesis_flow import __version__
from genesis_flow.compat.packages import installed
from genesis_flow.metrics.folder import Folder

PATH = "/metrics"
# A scraper that connects and asks nothing.
_SILENT_SECONDS = 10.0
_SWEEP_SECONDS = 60.0


class Exporter:
    """What ``collectors`` find, at ``http://address:port/metrics``, from now on until it is closed."""

    def __init__(
        self, port: int, address: str, collectors: Iterable[Collector], *, folder: Folder | None = None
    ) -> None:
        registry = CollectorRegistry()
        for collector in (Build(), *collectors, *((folder, Processes(folder)) if folder else ())):
            registry.register(Undescribed(collector))
        self._server = _listening(address, port, registry)
        self._stopped = threading.Event()
        self._threads = [_thread(self._server.serve_forever)]
        if folder is not None:
            self._threads.append(_thread(lambda: self._sweep(folder)))

    @property
    def port(self) -> int:
        """The port, which the system has chosen if 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Answer no more."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _sweep(self, folder: Folder) -> None:
        """Also if nobody asks: a server that runs jobs would fill its folder."""
        while not self._stopped.wait(_SWEEP_SECONDS):
            folder.sweep()


class Undescribed(Collector):
    """A registry asks a collector that does not describe itself when it is registered: the database, say."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        return self._collector.collect()

    def describe(self) -> Iterable[Metric]:
        return []


class Build(Collector):
    """The versions that bug reports need."""

    def collect(self) -> Iterator[Metric]:
        labels = {
            "version": __version__,
            "mlflow": installed() or "none",
            "pymongo": _version("pymongo"),
            "python": platform.python_version(),
        }
        build = GaugeMetricFamily(
            "genesis_flow_build_info", "Versions, as labels; the value is 1.", labels=[*labels]
        )
        build.add_metric([*labels.values()], 1)
        yield build


class Processes(Collector):
    """How many processes of the server have counted something and live."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "genesis_flow_processes",
            "Processes that count what they do: workers, and those that run jobs.",
            value=len(self._folder.processes()),
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _listening(address: str, port: int, registry: CollectorRegistry) -> ThreadingHTTPServer:
    family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]

    class Handler(_Handler):
        metrics = registry

    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A scraper that went away is no news; it asks again."""

    return Server((str(where[0]), int(where[1])), Handler)


def _thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, name="genesis-flow-metrics", daemon=True)
    thread.start()
    return thread


class _Handler(BaseHTTPRequestHandler):
    metrics: CollectorRegistry
    timeout = _SILENT_SECONDS

    def do_GET(self) -> None:
        if self.path.split("?")[0] != PATH:
            self._answer(404, "text/plain", f"Metrics are at {PATH}.\n".encode())
            return
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, kind, encode(self.metrics))

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", kind)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not each scrape."""
