"""The target of an import: collections by their declared fields, and calls that outlast a passing failure."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pymongo import InsertOne, ReplaceOne, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from genesis_flow.areas.issues.counts import begun, ended
from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.traces.documents import AssessmentFields, TraceFields
from genesis_flow.areas.traces.sums.documents import LEAVING, TraceSumsFields, notes_of_everything
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.importers.errors import ImportConflict
from genesis_flow.mongo.error_edge import retry_delay
from genesis_flow.mongo.writes import only_duplicates

T = TypeVar("T")
Operation = InsertOne[Any] | ReplaceOne[Any] | UpdateOne

# Ids in one query.
AT_ONCE = 1_000
# An election, or a service that throttles, takes its time; a server that is gone for longer ends the import.
PATIENCE_SECONDS = 120.0


class ImportTarget:
    """One database and workspace."""

    def __init__(
        self, db: Database[Document], prefix: str, workspace: str, check: Callable[[], None] = lambda: None
    ) -> None:
        self.db = db
        self.prefix = prefix
        self.workspace = workspace
        # Raises when the import may no longer write.
        self.check = check
        self._mark = uuid.uuid4().hex

    def collection(self, declared: type[Declared] | str) -> Collection[Document]:
        return self.db[self.prefix + (declared if isinstance(declared, str) else name_of(declared))]

    def find_by_ids(
        self, declared: type[Declared] | str, ids: Iterable[Any], projection: Any = None
    ) -> Iterator[Document]:
        wanted = list(ids)
        collection = self.collection(declared)
        for start in range(0, len(wanted), AT_ONCE):
            some = {"_id": {"$in": wanted[start : start + AT_ONCE]}}
            yield from patiently(lambda some=some: list(collection.find(some, projection)))  # type: ignore[misc]

    def write(self, declared: type[Declared] | str, operations: list[Operation]) -> int:
        """Run the operations; how many documents were made or changed by them.

        Inserts are of documents that only this import makes: one that is there already was made by an
        attempt whose answer was lost.
        """
        if not operations:
            return 0
        self.check()
        collection = self.collection(declared)

        def attempt() -> int:
            self.announce(declared)
            try:
                result = collection.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                if not only_duplicates(error):
                    raise
                _refuse_taken_names(error)
                details = error.details
                return int(details["nInserted"]) + int(details["nUpserted"]) + int(details["nModified"])
            return result.inserted_count + result.upserted_count + result.modified_count

        written = patiently(attempt)
        patiently(lambda: self.announce(declared, done=True))
        return written

    def delete(self, declared: type[Declared] | str, query: Document) -> int:
        """Delete what matches; how many documents that were."""
        self.check()
        collection = self.collection(declared)

        def attempt() -> int:
            self.announce(declared)
            return collection.delete_many(query).deleted_count

        deleted = patiently(attempt)
        patiently(lambda: self.announce(declared, done=True))
        return deleted

    def announce(self, declared: type[Declared] | str, *, done: bool = False) -> None:
        """Before and after traces or assessments change: what readers keep of them does not hold."""
        if declared in (TraceFields, name_of(TraceFields)):
            notes = [
                UpdateOne({"_id": key}, LEAVING, upsert=True) for key in notes_of_everything(self.workspace)
            ]
            self.collection(TraceSumsFields).bulk_write(notes, ordered=False)
        if declared in (AssessmentFields, name_of(AssessmentFields)):
            change = ended(self._mark) if done else begun(self._mark)
            self.collection(IssueFields).update_many({"workspace": self.workspace}, change)


def _refuse_taken_names(error: BulkWriteError) -> None:
    """An id that is there already was written by us; a name that is taken is not ours."""
    for failure in error.details["writeErrors"]:
        if list(failure.get("keyPattern") or {"_id": 1}) != ["_id"]:
            taken = ", ".join(str(value) for value in (failure.get("keyValue") or {}).values())
            raise ImportConflict(
                f"The target has got another thing with the same name meanwhile ({taken}): run the command "
                "again, and it will be looked at as a conflict."
            ) from error


def name_of(declared: type[Declared]) -> str:
    settings = declared.Settings
    name: str = settings.name
    return name


def patiently(call: Callable[[], T]) -> T:
    """``call``, again after a passing failure; it must be safe to repeat."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    attempt = 0
    while True:
        try:
            return call()
        except PyMongoError as error:
            delay = retry_delay(error, attempt)
            if delay is None or time.monotonic() + delay > deadline:
                raise
        time.sleep(delay)
        attempt += 1
