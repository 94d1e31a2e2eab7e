"""Bring an empty database to head, as MLflow does for SQL. Nothing else ever happens on connect."""

from typing import Any

from pymongo.database import Database

from genesis_flow.migrate.base import StepContext
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.ledger import LEDGER, applied_fields

INITIALISED = "connect"
"""What entries made here say in ``by``; a partly initialised database is told from an older one by it."""


def initialise(db: Database[dict[str, Any]], prefix: str, *, portable: bool = False) -> None:
    """Apply every step to an empty database.

    Several clients may do this at once: each step is idempotent, and its ledger entry is written after it.
    """
    for file in migration_files():
        migration = file.load()
        migration(db=db, prefix=prefix, context=StepContext(portable=portable)).upgrade()
        db[prefix + LEDGER].update_one(
            {"_id": file.version},
            {"$setOnInsert": applied_fields(file, migration.compatible, INITIALISED, None)},
            upsert=True,
        )


__all__ = ["INITIALISED", "LEDGER", "initialise"]
