"""Is the schema the one this version of genesis_flow works with?"""

import asyncio
from collections.abc import Callable
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from pymongo.asynchronous.database import AsyncDatabase

from genesis_flow.core.settings import Settings
from genesis_flow.migrate.files import migration_files
from genesis_flow.migrate.initialise import LEDGER, initialise


Connect = Callable[[], pymongo.MongoClient[dict[str, Any]]]


async def ready_schema(settings: Settings, handle: AsyncDatabase[dict[str, Any]], connect: Connect) -> None:
    """Let a schema at head pass, bring an empty database there, refuse everything else.

    One round trip when the schema is at head. A user who may only read passes as well.
    """
    ledger = handle[settings.prefix + LEDGER]
    applied = {entry["_id"] async for entry in ledger.find({"state": "applied"}, {"_id": 1})}
    known = {file.version for file in migration_files()}
    if applied == known:
        return
    if not applied and await _is_empty(settings, handle):
        await _initialise(settings, connect)
        return
    raise MlflowException(_explanation(settings, applied, known), INVALID_STATE)


async def _is_empty(settings: Settings, handle: AsyncDatabase[dict[str, Any]]) -> bool:
    """No collection with our prefix; a ledger without entries is what a racing initialiser leaves."""
    names = await handle.list_collection_names()
    if await handle[settings.prefix + LEDGER].find_one({}, {"_id": 1}):
        return False
    ours = ("experiments", "runs", "latest_metrics", "metrics")
    for name in ours:
        if settings.prefix + name in names and await handle[settings.prefix + name].find_one({}, {"_id": 1}):
            return False
    return True


async def _initialise(settings: Settings, connect: Connect) -> None:
    """Run the steps, which are synchronous by convention, on a client of their own in a worker thread."""

    def run() -> None:
        with connect() as client:
            initialise(client.get_database(settings.database), settings.prefix)

    await asyncio.to_thread(run)


def _explanation(settings: Settings, applied: set[str], known: set[str]) -> str:
    where = f"The database at {settings.store_uri}"
    command = "genesis-migrate up"
    if not applied:
        return (
            f"{where} holds collections that genesis_flow did not make, or made before it kept a ledger. Use "
            f"another database or a collection prefix (#prefix at the end of the URI), or run `{command}`."
        )
    newest = max(known)
    if unknown := sorted(applied - known):
        return (
            f"{where} has schema version {unknown[-1]}, newer than {newest}, which this genesis_flow works "
            "with. Install the genesis_flow that the others use."
        )
    return (
        f"{where} has schema version {max(applied)}, older than {newest}, which this genesis_flow works with. "
        f"Run `{command}` once, with a user that may create indexes."
    )
