"""Walk a collection in batches, resuming where an interrupted run stopped, with progress and time left."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection

from genesis_flow.documents.plain import Document
from genesis_flow.migrate.errors import MigrationError

BATCH_SIZE = 1000
REPORT_SECONDS = 2.0
RAREST_REPORT_SECONDS = 30.0

Report = Callable[[str], None]


class Journal(Protocol):
    """Where a step's position is kept between runs."""

    def position(self, label: str) -> Any: ...

    def advance(self, label: str, position: Any) -> None: ...


class NoJournal:
    """For a step that is run without our runner: it starts from the beginning each time."""

    def position(self, label: str) -> Any:
        return None

    def advance(self, label: str, position: Any) -> None:
        return None


def silent(text: str) -> None:
    """A report that nobody asked for."""


class Progress:
    """Says how far a long step is, the more rarely the longer it takes."""

    def __init__(self, label: str, total: int, report: Report) -> None:
        self.label = label
        self.total = total
        self.report = report
        self.done = 0
        self.started = self.reported = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        elapsed = now - self.started
        if now - self.reported >= max(REPORT_SECONDS, min(elapsed / 20, RAREST_REPORT_SECONDS)):
            self.reported = now
            self.report(self.line(elapsed))

    def line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        total = max(self.total, self.done)
        left = (total - self.done) / rate if rate else 0.0
        share = 100 * self.done / total if total else 100
        return (
            f"{self.label}: {self.done:,} of {total:,} ({share:.0f}%), {rate:,.0f}/s, about {span(left)} left"
        )


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def in_batches(
    collection: Collection[Document],
    query: Document,
    projection: Any,
    size: int,
    journal: Journal,
    report: Report,
    label: str,
) -> Iterator[list[Document]]:
    """Documents in the order of ``_id``; a batch counts as done when the caller asks for the next.

    Short queries by position rather than one long cursor: a cursor dies with its server or after a while.
    """
    position = journal.position(label)
    if position is not None:
        report(f"{label}: resuming where the earlier run stopped")
    _refuse_mixed_ids(collection)
    progress = Progress(label, _count(collection, query, position), report)
    while True:
        documents = list(
            collection.find(_after(query, position), projection).sort("_id", ASCENDING).limit(size)
        )
        if not documents:
            return
        yield documents
        position = documents[-1]["_id"]
        journal.advance(label, position)
        progress.add(len(documents))


def _after(query: Document, position: Any) -> Document:
    return query if position is None else {"$and": [query, {"_id": {"$gt": position}}]}


def _count(collection: Collection[Document], query: Document, position: Any) -> int:
    if not query and position is None:
        return collection.estimated_document_count()
    return collection.count_documents(_after(query, position))


def _refuse_mixed_ids(collection: Collection[Document]) -> None:
    """``$gt`` compares only ids of one type, so others would be left out without a word."""
    ends = [
        end["_id"]
        for order in (ASCENDING, DESCENDING)
        for end in collection.find({}, {"_id": 1}).sort("_id", order).limit(1)
    ]
    kinds = {float if isinstance(value, int | float) else type(value) for value in ends}
    if len(kinds) > 1:
        raise MigrationError(
            f"The collection {collection.name} has _id values of several types, which batches cannot walk: "
            "correct the documents that genesis_flow did not write."
        )
