"""Bring an empty database to head, as MLflow does for SQL. Nothing else ever happens on connect."""

from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database

from genesis_flow.migrate.files import migration_files

LEDGER = "schema_migrations"


def ledger_entry(version: str, name: str) -> dict[str, Any]:
    """A ledger entry; the two last fields are the ones mongodb-migrations writes and reads."""
    return {
        "_id": version,
        "name": name,
        "state": "applied",
        "migration_datetime": version,
        "created_at": datetime.now(UTC),
    }


def initialise(db: Database[dict[str, Any]], prefix: str) -> None:
    """Apply every step to an empty database.

    Several clients may do this at once: each step is idempotent, and its ledger entry is written after it.
    """
    for file in migration_files():
        file.load()(db=db, prefix=prefix).upgrade()
        db[prefix + LEDGER].update_one(
            {"_id": file.version}, {"$setOnInsert": ledger_entry(file.version, file.name)}, upsert=True
        )
