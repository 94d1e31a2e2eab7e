"""The one change stream of a database in a process, and the changes that it brought last.

Watchers hold no queue: each remembers how far it has read. One that stops reading costs nothing; one that
reads so late that changes have gone reads them from a stream of its own until it has caught up.
"""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_STATE,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from pymongo.asynchronous.change_stream import AsyncDatabaseChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.core.driver_text import plain_text
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.error_edge import has_run_out, is_unauthorized, retry_delay, translate
from genesis_flow.watching.place import Moment, time_of

_KEPT = 10_000
_KEPT_BYTES = 32 * 2**20
_WAIT_MS = 1000
# A server that answers no question for so long is asked on another connection.
_SILENT_SECONDS = 20.0
_AT_ONCE = 1000
_LOST = 286
_POINT_BYTES = 64

_OPERATIONS = ["insert", "update", "replace", "delete"]
_FIELDS = ("operationType", "clusterTime", "ns", "documentKey", "fullDocument", "updateDescription")


@dataclass(frozen=True, slots=True)
class Change:
    """A change as the server tells it."""

    moment: Moment
    kind: type
    """What its collection is declared by."""
    operation: str
    identity: str
    document: Document | None
    fields: Document
    removed: Sequence[str]

    @property
    def size(self) -> int:
        """About the bytes that it takes."""
        document = self.document or {}
        tail = self.fields.get("tail") or document.get("tail") or ()
        rows = [*document.get("rows", ()), *self.fields.get("rows", ())]
        rows += [row for path, row in self.fields.items() if path.startswith("rows.")]
        packed = len(document.get("values", b"")) + len(document.get("data", b""))
        return 1000 + _POINT_BYTES * len(tail) + 3 * packed + sum(map(_size_of_row, rows))


def _size_of_row(row: Document) -> int:
    return 500 + sum(len(column) for column in row.values() if isinstance(column, bytes))


class Stream:
    """A change stream of what runs and metrics are kept in, from a moment on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        watched = (RunFields, MetricHeadFields, MetricBlockFields)
        self._kinds = {database.everywhere(each).name: each for each in watched}
        self._stream: AsyncDatabaseChangeStream[Any] | None = None
        self._token: Any = None

    async def open(self, begin: Moment) -> None:
        """From this moment on, or from where an earlier stream of this object broke off."""
        pipeline: list[Document] = [
            {
                "$match": {
                    "$or": [
                        {
                            "operationType": {"$in": _OPERATIONS},
                            "ns.coll": {"$in": list(self._kinds)},
                        },
                        {"operationType": "invalidate"},
                    ]
                }
            },
            {"$project": dict.fromkeys(_FIELDS, 1)},
        ]
        start: dict[str, Any] = (
            {"start_at_operation_time": begin.timestamp}
            if self._token is None
            else {"resume_after": self._token}
        )
        handle = self._database.client.get_database(self._database.settings.database)
        self._stream = None
        with pymongo.timeout(_SILENT_SECONDS):
            self._stream = await handle.watch(
                pipeline, max_await_time_ms=_WAIT_MS, batch_size=_AT_ONCE, **start
            )

    async def next(self) -> Change | None:
        """The next change; None if none came for a moment."""
        assert self._stream is not None
        with pymongo.timeout(_SILENT_SECONDS):
            told = await self._stream.try_next()
        self._token = self._stream.resume_token or self._token
        if told is None:
            return None
        if told["operationType"] == "invalidate":
            raise MlflowException(
                f"The database {self._database.settings.database!r} was dropped while it was watched.",
                RESOURCE_DOES_NOT_EXIST,
            )
        description = told.get("updateDescription") or {}
        return Change(
            Moment(time_of(told["clusterTime"]), told["_id"]["_data"]),
            self._kinds[told["ns"]["coll"]],
            told["operationType"],
            str(told["documentKey"]["_id"]),
            told.get("fullDocument"),
            description.get("updatedFields") or {},
            description.get("removedFields") or (),
        )

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(PyMongoError), pymongo.timeout(_SILENT_SECONDS):
                await stream.close()


class Hub:
    """The changes of a database since its first watcher came, as many as are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._changes: deque[Change] = deque()
        self._bytes = 0
        # The number of the first change that is kept, counted from the begin of the stream.
        self._first = 0
        self.floor = Moment((0, 0))
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._error: MlflowException | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def end(self) -> int:
        """The number that the next change gets."""
        return self._first + len(self._changes)

    @property
    def tip(self) -> Moment:
        """Behind the last change that came."""
        return self._changes[-1].moment if self._changes else self.floor

    async def join(self, watcher: object, begin: Moment | None) -> None:
        """Open the stream, unless it is open: it stays so as long as a watcher is there.

        A stream that is opened for this watcher has the changes since ``begin``.
        """
        self._watchers.add(watcher)
        while True:
            is_first = self._task is None
            if is_first:
                self._begin(begin)
            try:
                await asyncio.shield(self._opened)
                return
            except MlflowException:
                # The moment at which another watcher wanted to begin may be none for this one.
                if is_first:
                    raise

    def leave(self, watcher: object) -> None:
        self._watchers.discard(watcher)

    def number_behind(self, moment: Moment) -> int | None:
        """The number of the first change behind ``moment``; None if some of these may be gone."""
        if moment < self.floor:
            return None
        # From the end: most watchers ask for what came last.
        number = self.end
        for change in reversed(self._changes):
            if change.moment <= moment:
                break
            number -= 1
        return number

    def change(self, number: int) -> Change | None:
        """The change of this number, if it came already."""
        return self._changes[number - self._first] if number < self.end else None

    def has_gone(self, number: int) -> bool:
        return number < self._first

    async def wait(self, number: int) -> None:
        """Until the change of this number came; raises what ended the stream."""
        while number >= self.end:
            if self._error is not None:
                raise self._error
            await self._news.wait()

    def _begin(self, begin: Moment | None) -> None:
        self._opened = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(_look_at)
        self._error = None
        # One number is left out: who has read to the end of the stream before has not read from this one.
        self._first, self._bytes = self.end + 1, 0
        self._changes.clear()
        # In a context of its own: the deadline of who watches first is not that of the stream.
        work = self._read(self._opened, begin)
        self._task = asyncio.get_running_loop().create_task(work, context=Context())

    async def _read(self, opened: "asyncio.Future[None]", begin: Moment | None) -> None:
        stream = Stream(self._database)
        error: MlflowException | None = None
        try:
            # Of a moment that is given, some changes may have been told: they are passed over.
            self.floor = Moment(begin.time) if begin else await present(self._database)
            await follow(
                stream, self.floor, self._database, lambda: _succeed(opened), self._keep, self._is_watched
            )
        except MlflowException as told:
            error = told
        except PyMongoError as broken:
            error = said(self._database, broken)
        finally:
            self._fail(opened, error or closed(self._database))
            await stream.close()

    def _keep(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += change.size
        while len(self._changes) > _KEPT or (self._bytes > _KEPT_BYTES and len(self._changes) > 1):
            gone = self._changes.popleft()
            self._first += 1
            self._bytes -= gone.size
            self.floor = gone.moment
        self._tell()

    def _is_watched(self) -> bool:
        """Whether a watcher is left; one that was dropped without being closed is gone."""
        return bool(self._watchers)

    def _fail(self, opened: "asyncio.Future[None]", error: MlflowException) -> None:
        if not opened.done():
            opened.set_exception(error)
        self._error = error
        self._task = None  # who joins from now on opens another
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def follow(
    stream: Stream,
    begin: Moment,
    database: Database,
    opened: Callable[[], None],
    keep: Callable[[Change], None],
    goes_on: Callable[[], bool],
) -> None:
    """Read a stream; one that breaks off is opened again where it was, if it can be within a call's time."""
    attempt, broken_since = 0, 0.0
    while True:
        try:
            await stream.open(begin)
            opened()
            while goes_on():
                change = await stream.next()
                attempt = 0
                if change is not None:
                    keep(change)
            return
        except PyMongoError as error:
            await stream.close()
            delay = 0.0 if has_run_out(error) else retry_delay(error, attempt)
            now = time.monotonic()
            broken_since = broken_since if attempt else now
            if delay is None or now - broken_since > database.settings.timeout or database.clients.closed:
                raise
            attempt += 1
            await asyncio.sleep(delay)


async def present(database: Database) -> Moment:
    """The moment up to which what is read now has seen everything."""
    with pymongo.timeout(_SILENT_SECONDS):
        reply = await database.client.admin.command("ping")
    return Moment(time_of(reply["operationTime"]))


def said(database: Database, error: PyMongoError) -> MlflowException:
    """What a watcher is told of an error of its stream."""
    settings = database.settings
    if isinstance(error, OperationFailure):
        if is_unauthorized(error):
            return MlflowException(
                f"Watching needs the rights find and changeStream on the whole database "
                f"{settings.database!r}, which this user lacks: {plain_text(error)}. The role read has both; "
                "docs/security.md has a role for it, mlflowWatcher.",
                PERMISSION_DENIED,
            )
        if error.code == _LOST:
            return MlflowException(
                f"{settings.store_uri} no longer has the changes since this token: its history (the oplog) "
                "is shorter. Watch without `after`: you are told first what there is now.",
                INVALID_STATE,
            )
    return translate(error, settings.store_uri, settings.timeout)


def closed(database: Database) -> MlflowException:
    return MlflowException(
        f"The connection to {database.settings.store_uri} was closed while it was watched. Watch again.",
        TEMPORARILY_UNAVAILABLE,
    )


def _succeed(opened: "asyncio.Future[None]") -> None:
    if not opened.done():
        opened.set_result(None)


def _look_at(opened: "asyncio.Future[None]") -> None:
    """A watcher that gave up does not ask for the error."""
    if not opened.cancelled():
        opened.exception()


def hub_of(database: Database) -> Hub:
    """The one of this database on this loop."""
    hub = database.kept.get(Hub)
    if hub is None:
        hub = database.kept[Hub] = Hub(database)
    assert isinstance(hub, Hub)
    return hub
