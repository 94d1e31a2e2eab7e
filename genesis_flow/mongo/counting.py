"""The counters of a process: commands of the driver, its pools, repetitions of calls; see ADR 34.

Loaded only where metrics are on. Where PROMETHEUS_MULTIPROC_DIR is set when this is loaded, as in the
processes of ``genesis-flow server --metrics``, the values are in files of that folder, which another process
adds up. No label has a value that a user can choose: each unknown one is ``other``.
"""

import threading
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
    "How long commands to the database took, by the clock of the driver.",
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
connections_open = Gauge(
    "genesis_flow_database_connections_open",
    "Connections in the pools of all processes.",
    registry=registry,
    multiprocess_mode="livesum",
)
connections_in_use = Gauge(
    "genesis_flow_database_connections_in_use",
    "Connections that a command has, or an open transaction.",
    registry=registry,
    multiprocess_mode="livesum",
)
connections_limit = Gauge(
    "genesis_flow_database_connections_limit",
    "How many connections the pools of all processes may have.",
    registry=registry,
    multiprocess_mode="livesum",
)
checkout_failures = Counter(
    "genesis_flow_database_connection_checkout_failures",
    "Commands that got no connection: all were in use for too long, or none could be made.",
    registry=registry,
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
    """Each command's time. The driver calls this within the call, so names are looked up once."""

    def __init__(self) -> None:
        self._durations = {name: commands.labels(name) for name in ("update", "find")}
        self._errors: set[str] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Its end tells how long it took."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._observe(event)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._observe(event)
        command_errors.labels(_known(event.command_name), self._error(event.failure)).inc()

    def _observe(self, event: monitoring.CommandSucceededEvent | monitoring.CommandFailedEvent) -> None:
        durations = self._durations.get(event.command_name)
        if durations is None:
            name = _known(event.command_name)
            durations = self._durations[name] = commands.labels(name)
        durations.observe(event.duration_micros / 1e6)

    def _error(self, failure: Any) -> str:
        """A name of the server's list, or the type of the driver's error: not its text."""
        name = str(failure.get("codeName") or failure.get("errtype") or OTHER)
        if name not in self._errors:
            if len(self._errors) >= _MOST_ERRORS or len(name) > _LONGEST_ERROR or not name.isalnum():
                return OTHER
            self._errors.add(name)
        return name


def _known(command: str) -> str:
    return command if command in KNOWN_COMMANDS else OTHER


class Pools(monitoring.ConnectionPoolListener):
    """Connections in the pools of clients that share these options, the loop's and that of direct calls."""

    def __init__(self) -> None:
        self._limits: dict[Any, list[int]] = {}

    def pool_created(self, event: monitoring.PoolCreatedEvent) -> None:
        limit = int(event.options.get("maxPoolSize") or 0)
        self._limits.setdefault(event.address, []).append(limit)
        connections_limit.inc(limit)

    def pool_closed(self, event: monitoring.PoolClosedEvent) -> None:
        if limits := self._limits.get(event.address):
            connections_limit.dec(limits.pop())

    def connection_created(self, event: monitoring.ConnectionCreatedEvent) -> None:
        connections_open.inc()

    def connection_closed(self, event: monitoring.ConnectionClosedEvent) -> None:
        connections_open.dec()

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        checkout_failures.inc()

    def connection_checked_out(self, event: monitoring.ConnectionCheckedOutEvent) -> None:
        connections_in_use.inc()

    def connection_checked_in(self, event: monitoring.ConnectionCheckedInEvent) -> None:
        connections_in_use.dec()

    def pool_ready(self, event: monitoring.PoolReadyEvent) -> None:
        """Nothing that is counted."""

    def pool_cleared(self, event: monitoring.PoolClearedEvent) -> None:
        """Its connections are closed one by one, and counted so."""

    def connection_ready(self, event: monitoring.ConnectionReadyEvent) -> None:
        """Counted when it was made."""

    def connection_check_out_started(self, event: monitoring.ConnectionCheckOutStartedEvent) -> None:
        """Counted when it has ended."""


class Counting:
    """The observer of this process."""

    def __init__(self) -> None:
        self._commands = Commands()

    def listeners(self) -> list[Any]:
        return [self._commands, Pools()]

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
