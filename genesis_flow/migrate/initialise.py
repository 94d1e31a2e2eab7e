"""Bring an empty database to head, as MLflow does for SQL. Nothing else ever happens on connect."""

from typing import Any

from pymongo import UpdateOne
from pymongo.database import Database

from genesis_flow.migrate.base import StepContext
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.gathered import Gathered
from genesis_flow.migrate.ledger import LEDGER, applied_fields

INITIALISED = "connect"
"""What entries made here say in ``by``."""


def initialise(db: Database[dict[str, Any]], prefix: str, *, portable: bool = False) -> None:
    """Apply every step to an empty database.

    What they create is sent together, one command for each collection. Several clients may do this at once:
    each step is idempotent, and the entries of all are written, in one command, after the last. So a ledger
    that has some is never that of a client which died on the way.
    """
    # Of a lesser server it is not known whether it takes so many indexes in one command, or at once.
    gathered = None if portable else Gathered(db)
    context = StepContext(portable=portable, gathered=gathered)
    entries = []
    for file in migration_files():
        migration = file.load()
        migration(db=db, prefix=prefix, context=context).upgrade()
        fields = applied_fields(file, migration.compatible, INITIALISED, None)
        entries.append(UpdateOne({"_id": file.version}, {"$setOnInsert": fields}, upsert=True))
    if gathered:
        gathered.send()
    db[prefix + LEDGER].bulk_write(entries)


__all__ = ["INITIALISED", "LEDGER", "initialise"]
