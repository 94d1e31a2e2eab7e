"""The counters of a process: commands of the driver, its pools, repetitions of calls; see ADR 34.

Loaded only where metrics are on. Where PROMETHEUS_MULTIPROC_DIR is set when this is loaded, as in the
processes of ``genesis-flow server --metrics``, the values are in files of that folder, which another process
adds up. No label has a value that a user can choose: each unknown one is ``other``.
"""

import atexit
import os
import threading
import time
from collections import deque
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
COUNT_SECONDS = 0.5
"""How long what was noted may wait to be counted."""
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
    """Each command's time.

    A call of a store notes it in passing, and a thread counts what was noted a little later: to count at once
    would take some 20 µs of each ``log_metric``, whose code is never in the processor's cache. A command has
    a connection of the pool while it is under way, and nothing else has one: there is no listener of the
    pool, which would cost as much again.
    """

    def __init__(self) -> None:
        # Appending and taking, adding and discarding are one step each for all threads.
        self._noted: deque[tuple[str, float, Mapping[str, Any] | None]] = deque()
        self._under_way: set[object] = set()
        self._errors: set[str] = set()
        self._counts = threading.Lock()
        threading.Thread(target=self._count_on, name="genesis-flow-counting", daemon=True).start()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.begin(event.request_id)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.end(event.request_id, event.command_name, event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self.end(event.request_id, event.command_name, event.duration_micros / 1e6, event.failure)

    def begin(self, which: object) -> None:
        self._under_way.add(which)

    def end(
        self, which: object, command: str, seconds: float, failure: Mapping[str, Any] | None = None
    ) -> None:
        self._under_way.discard(which)
        self._noted.append((command, seconds, failure))

    def count(self) -> None:
        """Count what was noted until now."""
        with self._counts:
            connections_in_use.set(len(self._under_way))
            while self._noted:
                noted, seconds, failure = self._noted.popleft()
                command = noted if noted in KNOWN_COMMANDS else OTHER
                commands.labels(command).observe(seconds)
                if failure is not None:
                    command_errors.labels(command, self._name(failure)).inc()

    def _count_on(self) -> None:
        while True:
            time.sleep(COUNT_SECONDS)
            self.count()

    def _name(self, failure: Mapping[str, Any]) -> str:
        """A name of the server's list, or the type of the driver's error: not its text."""
        name = str(failure.get("codeName") or failure.get("errtype") or OTHER)
        if name not in self._errors:
            if len(self._errors) >= _MOST_ERRORS or len(name) > _LONGEST_ERROR or not name.isalnum():
                return OTHER
            self._errors.add(name)
        return name


class Timed:
    """A command that a thread sends itself."""

    __slots__ = ("_begun", "_command", "_commands")

    def __init__(self, commands: Commands, command: str) -> None:
        self._commands = commands
        self._command = command

    def __enter__(self) -> None:
        self._commands.begin(self)
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        if error is None:
            self._commands.end(self, self._command, seconds)
            return
        details = getattr(error, "details", None)
        named = details if isinstance(details, Mapping) else {}
        self._commands.end(self, self._command, seconds, {"errtype": type(error).__name__, **named})


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
        self.commands = Commands()

    def listeners(self, pool_size: int, *, of_commands: bool) -> list[Any]:
        return [*([self.commands] if of_commands else []), Pools(pool_size)]

    def timed(self, command: str) -> Timed:
        return Timed(self.commands, command)

    def retried(self, method: str) -> None:
        retries.labels(method).inc()

    def missed_deadline(self, method: str) -> None:
        deadline_misses.labels(method).inc()

    def answered_from_sums(self, sums: bool) -> None:
        kept_sums.labels("sums" if sums else "traces").inc()


_starts = threading.Lock()


def start() -> None:
    """Count from now on; clients that are there already have no listeners."""
    with _starts:
        if observed.observer is None:
            observed.observer = Counting()


def count() -> None:
    """Count what was noted until now: for who reads the counters of this process."""
    if isinstance(observed.observer, Counting):
        observed.observer.commands.count()


def _stop_in_child() -> None:
    """A forked child has not the thread that counts. It begins anew with its first client, if it is to."""
    global _starts
    _starts = threading.Lock()
    observed.observer = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_in_child)
atexit.register(count)
