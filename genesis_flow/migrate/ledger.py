"""What was applied to a database: one entry for each step, written before and after it.

mongodb-migrations can read and write the collection as its metastore. It treats every entry as an applied
one, so an unfinished entry carries a ``migration_datetime`` that matches no file, which makes it refuse.
"""

import getpass
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pymongo import ASCENDING
from pymongo.database import Database

from genesis_flow.migrate.errors import HistoryMismatch, LockLost
from genesis_flow.migrate.files import MigrationFile

LEDGER = "schema_migrations"
HISTORY = "schema_history"
LOCK = "schema_lock"
BOOKKEEPING = (LEDGER, HISTORY, LOCK)

TOOL_METASTORE = "database_migrations"
"""Where mongodb-migrations keeps its record unless it is told otherwise."""


class State(StrEnum):
    APPLYING = "applying"
    APPLIED = "applied"
    FAILED = "failed"
    REVERTING = "reverting"
    REVERT_FAILED = "revert failed"


_FAILURE = {State.APPLYING: State.FAILED, State.REVERTING: State.REVERT_FAILED}


def who() -> str:
    """The person or service that runs this process, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's numeric user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Entry:
    version: str
    name: str
    state: State
    checksum: str | None = None
    created_at: datetime | None = None
    duration_ms: int | None = None
    who: str | None = None
    error: str | None = None
    compatible: bool = False
    positions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, document: dict[str, Any]) -> "Entry":
        return cls(
            version=document["_id"],
            name=document.get("name", ""),
            state=_state(document),
            checksum=document.get("checksum"),
            created_at=document.get("created_at"),
            duration_ms=document.get("duration_ms"),
            who=document.get("who"),
            error=document.get("error"),
            compatible=bool(document.get("compatible")),
            positions={item["label"]: item["at"] for item in document.get("positions", [])},
        )


def _state(document: dict[str, Any]) -> State:
    try:
        return State(document["state"])
    except ValueError as error:
        raise HistoryMismatch(
            f"The ledger says of step {document['_id']} that it is {document['state']!r}, which this version "
            "does not know: install the genesis_flow that the others use. If somebody wrote that by hand, "
            f"write one of {', '.join(State)} in {LEDGER}."
        ) from error


def applied_fields(file: MigrationFile, compatible: bool, by: str, duration_ms: int | None) -> dict[str, Any]:
    """The fields of an applied entry; ``migration_datetime`` and ``created_at`` are of mongodb-migrations."""
    return {
        "name": file.name,
        "state": State.APPLIED.value,
        "checksum": file.checksum(),
        "compatible": compatible,
        "migration_datetime": file.version,
        "created_at": datetime.now(UTC),
        "duration_ms": duration_ms,
        "who": who(),
        "by": by,
    }


class Ledger:
    """The entries of one database and prefix; every change names the run that makes it."""

    def __init__(self, db: Database[dict[str, Any]], prefix: str, metastore: str | None = None) -> None:
        self.db = db
        self.prefix = prefix
        self.entries_collection = db[prefix + LEDGER]
        self.history_collection = db[prefix + HISTORY]
        self.metastore = db[metastore or prefix + TOOL_METASTORE]

    def entries(self) -> dict[str, Entry]:
        entries = self.entries_collection.find({"state": {"$exists": True}})
        return {document["_id"]: Entry.read(document) for document in entries}

    def recorded_by_tool(self, known: Iterable[str]) -> list[str]:
        """Versions that mongodb-migrations has recorded, in its metastore or in ours.

        The metastore is not ours alone and has no prefix of its own: without our collections it speaks of
        another application, or of another prefix.
        """
        wanted = {"migration_datetime": {"$in": list(known)}, "state": {"$exists": False}}
        names = {self.entries_collection.name: self.entries_collection, self.metastore.name: self.metastore}
        versions = {
            document["migration_datetime"]
            for collection in names.values()
            for document in collection.find(wanted, {"migration_datetime": 1})
        }
        ours = self.prefix + "experiments"
        return sorted(versions) if versions and ours in self.db.list_collection_names() else []

    def adopt(self, file: MigrationFile, compatible: bool, replaced: Sequence[str] = ()) -> None:
        """Take over the entries of the steps that this one replaces, or the entry of mongodb-migrations.

        That tool's own metastore stays as it is, so the tool still works.
        """
        self.stamp(file, compatible, "genesis-migrate" if replaced else "mongodb-migrations")
        self.forget_replaced(replaced)
        self.entries_collection.delete_many({"migration_datetime": file.version, "state": {"$exists": False}})

    def forget_replaced(self, replaced: Sequence[str]) -> None:
        """Remove the entries of steps that have no files any more; mongodb-migrations would refuse them."""
        if replaced:
            listed = {"$in": list(replaced)}
            by_tool = {"migration_datetime": listed, "state": {"$exists": False}}
            self.entries_collection.delete_many({"$or": [{"_id": listed}, by_tool]})

    def stamp(self, file: MigrationFile, compatible: bool, by: str) -> None:
        """Record a step as applied without running it."""
        self.entries_collection.update_one(
            {"_id": file.version},
            {"$set": applied_fields(file, compatible, by, None), "$unset": _UNFINISHED},
            upsert=True,
        )

    def accept(self, file: MigrationFile) -> None:
        """Record the checksum that the file has now."""
        self.entries_collection.update_one({"_id": file.version}, {"$set": {"checksum": file.checksum()}})

    def begin(
        self, file: MigrationFile, state: State, run: str, previous: Entry | None, compatible: bool
    ) -> None:
        """The entry before a step. Positions stay only for the same code going in the same direction."""
        checksum = file.checksum()
        resumes = (
            previous is not None
            and previous.state in (state, _FAILURE[state])
            and previous.checksum == checksum
        )
        change: dict[str, Any] = {
            "$set": {
                "name": file.name,
                "state": state.value,
                "checksum": checksum,
                "compatible": compatible,
                "migration_datetime": f"{file.version} {state.value}",
                "created_at": datetime.now(UTC),
                "who": who(),
                "run": run,
            },
            "$unset": {"error": ""} if resumes else {"error": "", "positions": ""},
        }
        self.entries_collection.update_one({"_id": file.version}, change, upsert=True)

    def advance(self, version: str, run: str, positions: dict[str, Any]) -> None:
        listed = [{"label": label, "at": position} for label, position in positions.items()]
        self._mine(version, run, {"$set": {"positions": listed}})

    def applied(self, file: MigrationFile, run: str, compatible: bool, duration_ms: int) -> None:
        fields = applied_fields(file, compatible, "genesis-migrate", duration_ms)
        self._mine(file.version, run, {"$set": fields, "$unset": _UNFINISHED})

    def failed(self, file: MigrationFile, run: str, state: State, error: str) -> None:
        failure = _FAILURE[state].value
        change = {"state": failure, "error": error, "migration_datetime": f"{file.version} {failure}"}
        self._mine(file.version, run, {"$set": change})

    def reverted(self, version: str, run: str) -> None:
        if not self.entries_collection.delete_one({"_id": version, "run": run}).deleted_count:
            raise LockLost(_TAKEN_OVER.format(version))

    def forget(self, version: str) -> None:
        self.entries_collection.delete_one({"_id": version})

    def _mine(self, version: str, run: str, change: dict[str, Any]) -> None:
        if not self.entries_collection.update_one({"_id": version, "run": run}, change).matched_count:
            raise LockLost(_TAKEN_OVER.format(version))

    def record(self, action: str, file: MigrationFile, **details: Any) -> None:
        """Add to the history, which nothing depends on: it says who did what and when."""
        self.history_collection.insert_one(
            {
                "at": datetime.now(UTC),
                "action": action,
                "version": file.version,
                "name": file.name,
                "who": who(),
                **details,
            }
        )

    def history(self) -> list[dict[str, Any]]:
        return list(self.history_collection.find({}, {"_id": 0}).sort("_id", ASCENDING))


_UNFINISHED = {"run": "", "positions": "", "error": ""}
_TAKEN_OVER = (
    "Another run has taken over step {}, so this one stopped before it recorded anything: "
    "look at `genesis-migrate status`."
)
