"""A change of a job, as one update whose times are the database's.

Servers whose clocks differ must agree on when a lease ends: times are made where the document is, with
``$$NOW`` in a pipeline. The portable profile has no such updates; there the caller's clock must do.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.documents.plain import Document

PENDING, RUNNING, NEEDS_RECOVERY = "PENDING", "RUNNING", "NEEDS_RECOVERY"
SUCCEEDED, FAILED, TIMEOUT, CANCELED = "SUCCEEDED", "FAILED", "TIMEOUT", "CANCELED"
LIVE = (PENDING, RUNNING, NEEDS_RECOVERY)
ENDED = (SUCCEEDED, FAILED, TIMEOUT, CANCELED)

# What is true of a job only as long as it has a status.
OF_A_STATUS = (
    *("result", "lease_expires_at", "status_message", "progress", "progress_updated_at", "next_attempt_at"),
)

NOW: Document = {"$toLong": "$$NOW"}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a document."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of fields; a field that is None goes."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Fields that become the present time, so many milliseconds later."""
    counted: tuple[str, ...] = ()
    """Fields that become one more."""
    details: Mapping[str, str] | None = None
    """Entries of ``status_details``."""

    def update(self, *, portable: bool) -> Document | list[Document]:
        gone = [name for name, value in self.values.items() if value is None and name not in self.times]
        kept = {name: value for name, value in self.values.items() if value is not None}
        return self._plain(kept, gone) if portable else self._pipeline(kept, gone)

    def _pipeline(self, kept: Document, gone: list[str]) -> list[Document]:
        # Values of users may begin with a dollar, which would name a field.
        computed: Document = {name: {"$literal": value} for name, value in kept.items()}
        computed |= {name: {"$add": [NOW, int(later)]} for name, later in self.times.items()}
        computed |= {name: {"$add": [f"${name}", 1]} for name in self.counted}
        if self.details is not None:
            computed["status_details"] = {
                "$mergeObjects": ["$status_details", {"$literal": dict(self.details)}]
            }
        return [{"$set": computed}, *([{"$unset": gone}] if gone else [])]

    def _plain(self, kept: Document, gone: list[str]) -> Document:
        now = present()
        kept |= {name: now + int(later) for name, later in self.times.items()}
        kept |= {f"status_details.{key}": value for key, value in (self.details or {}).items()}
        update: Document = {"$set": kept}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        if self.counted:
            update["$inc"] = dict.fromkeys(self.counted, 1)
        return update


def present() -> int:
    """The caller's clock, in milliseconds."""
    return time.time_ns() // 1_000_000


def is_past(name: str, *, portable: bool, milliseconds: float = 0) -> Document:
    """A condition: the time in a field, so many milliseconds later, is not ahead."""
    if portable:
        return {name: {"$lte": present() - int(milliseconds)}}
    # A missing field would be less than any time.
    past = {"$lte": [{"$add": [f"${name}", int(milliseconds)]}, NOW]}
    return {name: {"$type": "number"}, "$expr": past}


def ended(status: str, result: str | None, **values: Any) -> Change:
    return _becomes(status, {**values, "result": result})


def waiting(**values: Any) -> Change:
    return _becomes(PENDING, {**values, "claim": None})


def _becomes(status: str, values: Document) -> Change:
    return Change({**dict.fromkeys(OF_A_STATUS), **values, "status": status})
