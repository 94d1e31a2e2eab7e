"""One run at a time: a lease in the database, timed by the server's clock and renewed by a thread.

The lease is a document. Taking over an expired one is a compare-and-swap on the holder and the time that
were read, so of several that see it expired one wins. The holder also counts on its own monotonic clock
from before each renewal was sent, and stops trusting the lease before the server could call it expired.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pymongo
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from genesis_flow.core.redact import mask
from genesis_flow.migrate.batches import Report, silent, span
from genesis_flow.migrate.errors import Locked, LockLost
from genesis_flow.migrate.ledger import LOCK, who

LOCK_ID = "migrations"
_MARGIN = 0.9
_POLL_SECONDS = 0.25
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock, as the document says."""

    token: str
    who: str
    pid: int
    acquired_at: datetime
    renewed_at: datetime
    lease_seconds: float
    expired: bool

    def describe(self) -> str:
        ended = ", expired" if self.expired else ""
        return f"{self.who}, process {self.pid}, since {self.acquired_at:%Y-%m-%d %H:%M:%S} UTC{ended}"


def read_holder(db: Database[dict[str, Any]], prefix: str) -> Holder | None:
    """The holder of the lock by the server's clock; needs the right to read only."""
    document = db[prefix + LOCK].find_one({"_id": LOCK_ID})
    if document is None:
        return None
    lease = float(document["lease_seconds"])
    now: datetime = db.client.admin.command("hello")["localTime"]
    return Holder(
        token=document["holder"],
        who=document["who"],
        pid=document["pid"],
        acquired_at=document["acquired_at"],
        renewed_at=document["renewed_at"],
        lease_seconds=lease,
        expired=now - document["renewed_at"] > timedelta(seconds=lease),
    )


def remove_lock(db: Database[dict[str, Any]], prefix: str, holder: Holder) -> bool:
    """Take the lock away from ``holder``; false when it was given up or taken over in the meantime."""
    return bool(db[prefix + LOCK].delete_one({"_id": LOCK_ID, "holder": holder.token}).deleted_count)


class Lease:
    """The lock of one run. ``check`` raises as soon as it may no longer write."""

    def __init__(
        self,
        db: Database[dict[str, Any]],
        prefix: str,
        *,
        seconds: float,
        wait: float,
        on_lost: Callable[[], None],
        report: Report = silent,
    ) -> None:
        self.token = uuid.uuid4().hex
        self._db = db
        self._prefix = prefix
        self._collection = db[prefix + LOCK]
        self._seconds = seconds
        self._wait = wait
        self._on_lost = on_lost
        self._report = report
        self._trusted_until = 0.0
        self._lost = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="genesis-migrate-lease", daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            with pymongo.timeout(self._seconds):
                self._collection.delete_one({"_id": LOCK_ID, "holder": self.token})
        except PyMongoError as exc:
            _log.warning(
                "The migration lock could not be given up (%s): it expires by itself within %s.",
                mask(str(exc)),
                span(self._seconds),
            )

    def check(self) -> None:
        """Raise when the lock is lost, or may be."""
        if not self._lost and time.monotonic() >= self._trusted_until:
            self._lose(f"it could not be renewed for {span(self._seconds * _MARGIN)}")
        if self._lost:
            raise LockLost(
                f"The migration lock was lost ({self._lost}): the run stopped before its next write. "
                "Run the command again; it goes on where this one stopped."
            )

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._wait
        announced = ""
        while True:
            asked = time.monotonic()
            if self._take_free() or (
                (holder := self._current()) and holder.expired and self._take_from(holder)
            ):
                self._trusted_until = asked + self._seconds * _MARGIN
                return
            holder = self._current()
            if holder is None:
                continue
            if time.monotonic() >= deadline:
                raise Locked(
                    f"Another migration run holds the lock ({holder.describe()}): wait for it, or if that "
                    "process is gone, wait until the lock expires or run `genesis-migrate unlock`."
                )
            if announced != holder.token:
                self._report(f"waiting for the lock held by {holder.describe()}")
                announced = holder.token
            time.sleep(min(_POLL_SECONDS, self._seconds / 4))

    def _current(self) -> Holder | None:
        return read_holder(self._db, self._prefix)

    def _fields(self) -> dict[str, Any]:
        return {"holder": self.token, "who": who(), "pid": os.getpid(), "lease_seconds": self._seconds}

    def _take_free(self) -> bool:
        """The filter matches no other holder's document, so the upsert then fails on its ``_id``."""
        fields = self._fields()
        token = fields.pop("holder")
        try:
            self._collection.update_one(
                {"_id": LOCK_ID, "holder": token},
                {"$setOnInsert": fields, "$currentDate": {"acquired_at": True, "renewed_at": True}},
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return True

    def _take_from(self, holder: Holder) -> bool:
        result = self._collection.update_one(
            {"_id": LOCK_ID, "holder": holder.token, "renewed_at": holder.renewed_at},
            {"$set": self._fields(), "$currentDate": {"acquired_at": True, "renewed_at": True}},
        )
        if result.matched_count:
            self._report(f"took over the expired lock of {holder.describe()}")
        return bool(result.matched_count)

    def _keep(self) -> None:
        pause = self._seconds / 3
        while not self._stop.wait(pause):
            asked = time.monotonic()
            if asked >= self._trusted_until:
                self._lose(f"it could not be renewed for {span(self._seconds * _MARGIN)}")
                return
            try:
                with pymongo.timeout(max(self._seconds / 3, 0.1)):
                    renewed = self._collection.update_one(
                        {"_id": LOCK_ID, "holder": self.token}, {"$currentDate": {"renewed_at": True}}
                    )
            except PyMongoError as exc:
                _log.warning("The migration lock could not be renewed, trying again: %s", mask(str(exc)))
                pause = self._seconds / 10
                continue
            if not renewed.matched_count:
                self._lose("another run took it over, or someone unlocked it")
                return
            self._trusted_until = asked + self._seconds * _MARGIN
            pause = self._seconds / 3

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._on_lost()
