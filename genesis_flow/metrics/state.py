"""What a database is like at this moment: whether it answers, its schema, its queues, its disk.

It is asked when Prometheus asks, at most every few seconds, with a client of its own; and Prometheus has its
answer in time whatever the database does. What is not known by then is left out, and said to be missing.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pymongo
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pymongo import ReadPreference, monitoring
from pymongo.errors import PyMongoError

from genesis_flow.areas.jobs.documents import JobFields
from genesis_flow.areas.reviews.documents import ReviewQueueFields, ReviewQueueItemFields
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.ledger import LEDGER
from genesis_flow.migrate.ledger import State as StepState

# Prometheus asks every 15 seconds, and waits 10.
PATIENCE_SECONDS = 2.0
KEPT_SECONDS = 5.0
JOB_STATUSES = ("PENDING", "RUNNING", "NEEDS_RECOVERY", "SUCCEEDED", "FAILED", "TIMEOUT", "CANCELED")
ITEM_STATUSES = ("pending", "complete", "declined")

_logger = logging.getLogger(__name__)

Database = pymongo.database.Database[dict[str, Any]]
Row = tuple[tuple[str, ...], float]


def _gauge(name: str, says: str, labels: tuple[str, ...] = ()) -> tuple[str, str, tuple[str, ...]]:
    return f"genesis_flow_{name}", says, labels


GAUGES = (
    _gauge("database_up", "Whether the database answers, 1 or 0."),
    _gauge("database_ping_duration_seconds", "How long its answer to a ping took."),
    _gauge("embedded_server_up", "Whether the embedded MongoDB runs; only where the store is one."),
    _gauge("database_size_bytes", "What its data and indexes take on the disk."),
    _gauge("disk_size_bytes", "Size of the disk on which the database is."),
    _gauge("disk_free_bytes", "What is free on it."),
    _gauge("schema_steps", "Steps of the schema: applied, pending, unfinished, newer.", ("state",)),
    _gauge("jobs", "Background jobs by status.", ("status",)),
    _gauge("jobs_oldest_pending_age_seconds", "For how long the oldest waiting job has been there."),
    _gauge("review_queues", "Review queues."),
    _gauge("review_items", "Traces in review queues by status.", ("status",)),
    _gauge("state_part_success", "Whether this part of the state could be asked for, 1 or 0.", ("part",)),
)


@dataclass
class Snapshot:
    """What was found, by the name of a gauge; it grows while the database is asked."""

    begun: float
    rows: dict[str, list[Row]] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def set(self, name: str, value: float, *labels: str) -> None:
        self.rows.setdefault(f"genesis_flow_{name}", []).append((labels, float(value)))


class Elections(monitoring.TopologyListener):
    """How often another member has become the primary."""

    def __init__(self) -> None:
        self.count = 0
        self._primary: Any = None

    def opened(self, event: monitoring.TopologyOpenedEvent) -> None:
        """Nothing is known yet."""

    def closed(self, event: monitoring.TopologyClosedEvent) -> None:
        """The count stays."""

    def description_changed(self, event: monitoring.TopologyDescriptionChangedEvent) -> None:
        servers = event.new_description.server_descriptions().values()
        primary = next((each.address for each in servers if each.server_type_name == "RSPrimary"), None)
        if primary is None:
            return
        if self._primary not in (None, primary):
            self.count += 1
        self._primary = primary


class State(Collector):
    """Asks one database. One question at a time, however many scrape."""

    def __init__(
        self, settings: Settings, *, patience: float = PATIENCE_SECONDS, kept: float = KEPT_SECONDS
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._kept = kept
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._elections = Elections()
        self._client: pymongo.MongoClient[dict[str, Any]] | None = None
        self._was_up = True

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def collect(self) -> Iterator[Metric]:
        rows = self._found()
        for name, says, labels in GAUGES:
            if name in rows:
                gauge = GaugeMetricFamily(name, says, labels=labels)
                for values, value in rows[name]:
                    gauge.add_metric(values, value)
                yield gauge
        yield CounterMetricFamily(
            "genesis_flow_database_failovers",
            "How often another member of the replica set has become its primary.",
            value=self._elections.count,
        )

    def _found(self) -> dict[str, list[Row]]:
        with self._lock:
            now, snapshot = time.monotonic(), self._snapshot
            # One that is being asked for is waited for, not asked for twice.
            if snapshot is None or (snapshot.done.is_set() and now > snapshot.begun + self._kept):
                snapshot = self._snapshot = Snapshot(now)
                threading.Thread(
                    target=self._ask, args=(snapshot,), name="genesis-flow-state", daemon=True
                ).start()
        in_time = snapshot.done.wait(max(snapshot.begun + self._patience - time.monotonic(), 0))
        rows = {name: [*found] for name, found in [*snapshot.rows.items()]}
        if not in_time:
            rows.setdefault("genesis_flow_database_up", [((), 0.0)])
            parts = rows.setdefault("genesis_flow_state_part_success", [])
            told = {labels for labels, _ in parts}
            parts += [((part,), 0.0) for part, _ in self._parts() if (part,) not in told]
        return rows

    def _parts(self) -> tuple[tuple[str, Callable[[Snapshot, Database], None]], ...]:
        return (
            ("disk", self._disk),
            ("schema", self._schema),
            ("jobs", self._jobs),
            ("reviews", self._reviews),
        )

    def _ask(self, snapshot: Snapshot) -> None:
        try:
            self._ask_all(snapshot)
        finally:
            snapshot.done.set()

    def _ask_all(self, snapshot: Snapshot) -> None:
        database, reason = self._reached(snapshot)
        snapshot.set("database_up", database is not None)
        self._tell(reason)
        for part, ask in self._parts():
            success = False
            if database is not None:
                try:
                    with pymongo.timeout(self._patience):
                        ask(snapshot, database)
                    success = True
                except PyMongoError as error:  # the user lacks a right, or the service a command
                    _logger.debug("The state of %s: %s", part, mask(str(error)))
            snapshot.set("state_part_success", success, part)

    def _reached(self, snapshot: Snapshot) -> tuple[Database | None, str]:
        try:
            with pymongo.timeout(self._patience):
                client = self._connected(snapshot)
                if client is None:
                    return None, "the embedded server does not run"
                begun = time.perf_counter()
                client.admin.command("ping")
                snapshot.set("database_ping_duration_seconds", time.perf_counter() - begun)
            return client.get_database(self._settings.database, read_preference=ReadPreference.PRIMARY), ""
        except (PyMongoError, GenesisFlowError, OSError) as error:
            return None, mask(f"{type(error).__name__}: {error}")

    def _connected(self, snapshot: Snapshot) -> pymongo.MongoClient[dict[str, Any]] | None:
        """The client, made once; None while an embedded server does not run, which this never starts."""
        embedded_uri = None
        if isinstance(self._settings.target, Embedded):
            from genesis_flow.embedded import status  # Unix only

            directory = self._settings.target.directory
            found = status(directory)
            snapshot.set("embedded_server_up", found.running)
            if directory.is_dir():
                usage = shutil.disk_usage(directory)
                snapshot.set("disk_size_bytes", usage.total)
                snapshot.set("disk_free_bytes", usage.free)
            if not found.running:
                return None
            embedded_uri = found.uri
        with self._lock:
            if self._client is None:
                uri, options = self._settings.client_options(embedded_uri)
                options |= {
                    "maxPoolSize": 2,
                    "serverSelectionTimeoutMS": round(self._patience * 1000),
                    "event_listeners": [self._elections],
                }
                self._client = pymongo.MongoClient(uri, **options)
            return self._client

    def _tell(self, reason: str) -> None:
        """Once when the database goes, and once when it is back."""
        is_up = not reason
        if is_up != self._was_up:
            self._was_up = is_up
            _logger.warning("Metrics: the database %s", "answers again." if is_up else f"is away ({reason}).")

    def _disk(self, snapshot: Snapshot, database: Database) -> None:
        found = database.command("dbStats")
        size = found.get("totalSize", found.get("storageSize", 0) + found.get("indexSize", 0))
        snapshot.set("database_size_bytes", size)
        if "fsTotalSize" in found and not isinstance(self._settings.target, Embedded):
            snapshot.set("disk_size_bytes", found["fsTotalSize"])
            snapshot.set("disk_free_bytes", found["fsTotalSize"] - found["fsUsedSize"])

    def _schema(self, snapshot: Snapshot, database: Database) -> None:
        ledger = database[self._settings.prefix + LEDGER].find({}, {"state": 1})
        states = {entry["_id"]: entry.get("state") for entry in ledger}
        known = {file.version for file in migration_files()}
        applied = {version for version, state in states.items() if state == StepState.APPLIED}
        for state, steps in {
            "applied": applied & known,
            "pending": known - states.keys(),
            "unfinished": states.keys() - applied,
            "newer": applied - known,
        }.items():
            snapshot.set("schema_steps", len(steps), state)

    def _jobs(self, snapshot: Snapshot, database: Database) -> None:
        statuses = {"status": {"$in": [*JOB_STATUSES]}}
        counts = self._by_status(database, JobFields, statuses, oldest={"$min": "$creation_time"})
        for status in JOB_STATUSES:
            snapshot.set("jobs", counts[status]["count"] if status in counts else 0, status)
        age = 0.0
        if "PENDING" in counts:
            age = max(time.time() - counts["PENDING"]["oldest"] / 1000, 0)
        snapshot.set("jobs_oldest_pending_age_seconds", age)

    def _reviews(self, snapshot: Snapshot, database: Database) -> None:
        # All queues, said such that the index by queue and status has the answer.
        items = {"queue_id": {"$gte": ""}, "status": {"$in": [*ITEM_STATUSES]}}
        counts = self._by_status(database, ReviewQueueItemFields, items)
        queues = database[self._settings.prefix + ReviewQueueFields.Settings.name]
        snapshot.set("review_queues", queues.estimated_document_count())
        for status in ITEM_STATUSES:
            snapshot.set("review_items", counts[status]["count"] if status in counts else 0, status)

    def _by_status(
        self, database: Database, declared: Any, match: dict[str, Any], **more: Any
    ) -> dict[str, dict[str, Any]]:
        """Counted in the index by status alone; of all workspaces."""
        pipeline = [
            {"$match": match},
            {"$group": {"_id": "$status", "count": {"$sum": 1}, **more}},
        ]
        # The portable profile has other indexes.
        hint = None if self._settings.portable else "by_status"
        collection = database[self._settings.prefix + declared.Settings.name]
        return {row["_id"]: row for row in collection.aggregate(pipeline, hint=hint)}
