"""The counters of a process: commands of the driver, its pools, repetitions of calls; see ADR 34.

Loaded only where metrics are on. Where PROMETHEUS_MULTIPROC_DIR is set when this is loaded, as in the
processes of ``genesis-flow server --metrics``, the values are in files of that folder, which another process
adds up. No label has a value that a user can choose: each unknown one is ``other``.
"""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pymongo import monitoring

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.mongo import observed

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:
    raise GenesisFlowError(
        "Metrics need the package prometheus-client: install the extra `metrics` of genesis-flow, or unset "
        f"{observed.VARIABLE}."
    ) from error

OTHER = "other"
# Two for each power of ten, from a command in memory to the deadline of a call.
COMMAND_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0)
REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

# All that this project and the driver send, and what administrators do through a store's client.
KNOWN_COMMANDS = frozenset(
    (
        *("abortTransaction", "aggregate", "buildInfo", "bulkWrite", "collMod", "collStats"),
        *("commitTransaction", "connectionStatus", "count", "create", "createIndexes"),
        *("currentOp", "dbStats", "delete", "distinct", "drop", "dropDatabase", "dropIndexes"),
        *("endSessions", "explain", "find", "findAndModify", "getMore", "getParameter", "hello"),
        *("insert", "isMaster", "killCursors", "killSessions", "listCollections", "listDatabases"),
        *("listIndexes", "ping", "renameCollection", "replSetGetStatus", "saslContinue"),
        *("saslStart", "serverStatus", "shardCollection", "top", "update", "usersInfo", "validate"),
    )
)
_MOST_ERRORS = 100
_LONGEST_ERROR = 60

registry = CollectorRegistry()

commands = Histogram(
    "genesis_flow_database_command_duration_seconds",
    "How long commands to the database took.",
    ["command"],
    buckets=COMMAND_BUCKETS,
    registry=registry,
)
command_errors = Counter(
    "genesis_flow_database_command_errors",
    "Commands that failed, by the name of the server's error or of the driver's.",
    ["command", "error"],
    registry=registry,
)
connections_in_use = Gauge(
    "genesis_flow_database_connections_in_use",
    "Connections of all processes by which a command waits for its answer.",
    registry=registry,
    multiprocess_mode="livesum",
)
connections_limit = Gauge(
    "genesis_flow_database_connections_limit",
    "How many connections the pools of all processes may have to a server.",
    registry=registry,
    multiprocess_mode="livesum",
)
retries = Counter(
    "genesis_flow_call_retries",
    "Calls of a store that were made again after a passing failure, such as an election.",
    ["method"],
    registry=registry,
)
deadline_misses = Counter(
    "genesis_flow_deadline_misses",
    "Calls of a store that failed since their time had passed.",
    ["method"],
    registry=registry,
)
kept_sums = Counter(
    "genesis_flow_kept_sums_answers",
    "Questions about many traces, by whether kept sums helped to answer them.",
    ["answered_from"],
    registry=registry,
)
requests = Counter(
    "genesis_flow_http_requests",
    "Requests that were answered, by the template of the route.",
    ["method", "route", "status"],
    registry=registry,
)
request_durations = Histogram(
    "genesis_flow_http_request_duration_seconds",
    "How long requests took until the last byte of the answer was handed over.",
    ["method", "route"],
    buckets=REQUEST_BUCKETS,
    registry=registry,
)
requests_in_flight = Gauge(
    "genesis_flow_http_requests_in_flight",
    "Requests that are being answered.",
    registry=registry,
    multiprocess_mode="livesum",
)


class Commands(monitoring.CommandListener):
    """Each command's time. This is called within each call of a store, so names are looked up once.

    A command has a connection of the pool while it is under way, and nothing else has one. So there is no
    listener of the pool, which would cost each call as much as this one.
    """

    def __init__(self) -> None:
        self._durations = {name: commands.labels(name) for name in ("update", "find")}
        self._errors: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        connections_in_use.inc()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.ended(event.command_name, event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.ended(event.command_name, event.duration_micros / 1e6)
        self.erred(event.command_name, event.failure)

    def ended(self, command: str, seconds: float) -> None:
        connections_in_use.dec()
        durations = self._durations.get(command)
        if durations is None:
            name = _known(command)
            durations = self._durations[name] = commands.labels(name)
        durations.observe(seconds)

    def erred(self, command: str, failure: Mapping[str, Any]) -> None:
        command_errors.labels(_known(command), self._name(failure)).inc()

    def _name(self, failure: Mapping[str, Any]) -> str:
        """A name of the server's list, or the type of the driver's error: not its text."""
        name = str(failure.get("codeName") or failure.get("errtype") or OTHER)
        if name not in self._errors:
            if len(self._errors) >= _MOST_ERRORS or len(name) > _LONGEST_ERROR or not name.isalnum():
                return OTHER
            self._errors.add(name)
        return name


def _known(command: str) -> str:
    return command if command in KNOWN_COMMANDS else OTHER


class Timed:
    """A command that a thread sends itself."""

    __slots__ = ("_begun", "_command", "_commands")

    def __init__(self, commands: Commands, command: str) -> None:
        self._commands = commands
        self._command = command

    def __enter__(self) -> None:
        connections_in_use.inc()
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._commands.ended(self._command, time.perf_counter() - self._begun)
        if error is not None:
            details = getattr(error, "details", None)
            named = details if isinstance(details, Mapping) and "codeName" in details else {}
            self._commands.erred(self._command, {"errtype": type(error).__name__, **named})


class Pools(monitoring.TopologyListener):
    """How large the pools of clients may be that have these options: the loop's and that of direct calls."""

    def __init__(self, size: int) -> None:
        self._size = size

    def opened(self, event: monitoring.TopologyOpenedEvent) -> None:
        connections_limit.inc(self._size)

    def closed(self, event: monitoring.TopologyClosedEvent) -> None:
        connections_limit.dec(self._size)

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        """The size is that of the pool of each server; nearly all commands go to one."""


class Counting:
    """The observer of this process."""

    def __init__(self) -> None:
        self._commands = Commands()

    def listeners(self, pool_size: int, *, of_commands: bool) -> list[Any]:
        return [*([self._commands] if of_commands else []), Pools(pool_size)]

    def timed(self, command: str) -> Timed:
        return Timed(self._commands, command)

    def retried(self, method: str) -> None:
        retries.labels(method).inc()

    def missed_deadline(self, method: str) -> None:
        deadline_misses.labels(method).inc()

    def answered_from_sums(self, sums: bool) -> None:
        kept_sums.labels("sums" if sums else "traces").inc()


_lock = threading.Lock()


def start() -> None:
    """Count from now on; clients that are there already have no listeners."""
    with _lock:
        if observed.observer is None:
            observed.observer = Counting()
