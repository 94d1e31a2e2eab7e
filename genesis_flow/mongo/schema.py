"""Is the schema the one this version of genesis_flow works with?"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from genesis_flow.core.settings import Settings
from genesis_flow.documents.declared import declared_collections
from genesis_flow.migrate.files import migration_files, replacements
from genesis_flow.migrate.ledger import LEDGER, LOCK, State
from genesis_flow.mongo.patience import SHARE_SECONDS

_CLAIM = "initialise"
_PATIENCE = 8.0

Connect = Callable[[], pymongo.MongoClient[dict[str, Any]]]


async def ready_schema(settings: Settings, handle: AsyncDatabase[dict[str, Any]], connect: Connect) -> None:
    """Let a schema that this version works with pass, bring an empty database to it, refuse all else.

    One round trip when the schema is at head. A user who may only read passes as well.
    """
    known = {file.version for file in migration_files()}
    entries = await _entries(settings, handle)
    if _fits(entries, known):
        return
    if not entries:
        if not await _has_data(settings, handle):
            await _initialise_once(settings, handle, connect, known)
            return
        entries = await _entries(settings, handle)  # another client may have initialised it just now
        if _fits(entries, known):
            return
    raise MlflowException(_explanation(settings, entries, known), INVALID_STATE)


async def _entries(settings: Settings, handle: AsyncDatabase[dict[str, Any]]) -> list[dict[str, Any]]:
    ledger = handle[settings.prefix + LEDGER]
    with pymongo.timeout(SHARE_SECONDS):
        return _in_place(await ledger.find({}, {"_id": 1, "state": 1, "compatible": 1}).to_list())


def _in_place(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries, with those of steps that were replaced read as one of the step in their place.

    Only ``genesis-migrate up`` writes it so. Where some of them were applied, the one step is unfinished.
    """
    files = migration_files()
    if {entry["_id"] for entry in entries} <= {file.version for file in files}:
        return entries  # and no file was loaded
    applied = _applied(entries)
    for version, replaced in replacements(files).items():
        older = [entry for entry in entries if entry["_id"] in replaced]
        entries = [entry for entry in entries if entry["_id"] not in replaced]
        if older and not any(entry["_id"] == version for entry in entries):
            state = State.APPLIED if applied.issuperset(replaced) else State.APPLYING
            entries.append({"_id": version, "state": state})
    return entries


def _applied(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["_id"] for entry in entries if entry.get("state") == State.APPLIED}


def _fits(entries: list[dict[str, Any]], known: set[str]) -> bool:
    """Every step that we know is applied, and any newer one says that older clients may go on."""
    newer = [entry for entry in entries if entry["_id"] not in known]
    return known <= _applied(entries) and all(entry.get("compatible") for entry in newer)


async def _has_data(settings: Settings, handle: AsyncDatabase[dict[str, Any]]) -> bool:
    names = await handle.list_collection_names()
    if not names:  # and nobody has to import what declares all of them
        return False
    for name in (settings.prefix + declared.Settings.name for declared in declared_collections()):
        if name in names and await handle[name].find_one({}, {"_id": 1}):
            return True
    return False


async def _initialise_once(
    settings: Settings, handle: AsyncDatabase[dict[str, Any]], connect: Connect, known: set[str]
) -> None:
    """Let one of the clients that find the database empty run the steps, and the others wait for it.

    All of them running the same steps would be right too, but dozens at once take longer than a client may
    need to open. When the one seems to be dead, the others go on.
    """
    claims = handle[settings.prefix + LOCK]
    try:
        await claims.insert_one({"_id": _CLAIM})
    except DuplicateKeyError:
        if await _initialised_by_other(settings, handle, known):
            return
    await _initialise(settings, connect)
    await claims.delete_one({"_id": _CLAIM})


async def _initialised_by_other(
    settings: Settings, handle: AsyncDatabase[dict[str, Any]], known: set[str]
) -> bool:
    """Whether somebody else has brought the schema to head; false once nothing has moved for a while."""
    seen, waited = -1, 0.0
    while waited < _PATIENCE:
        if _fits(await _entries(settings, handle), known):
            return True
        made = len(await handle.list_collection_names())
        waited = 0.0 if made > seen else waited
        seen = made
        pause = random.uniform(0.1, 0.3)
        await asyncio.sleep(pause)
        waited += pause
    return False


async def _initialise(settings: Settings, connect: Connect) -> None:
    """Run the steps, which are synchronous by convention, on a client of their own in a worker thread."""
    from genesis_flow.migrate.initialise import initialise  # most databases are not empty

    def run() -> None:
        with connect() as client:
            initialise(client.get_database(settings.database), settings.prefix, portable=settings.portable)

    await asyncio.to_thread(run)


def _explanation(settings: Settings, entries: list[dict[str, Any]], known: set[str]) -> str:
    where = f"The database at {settings.store_uri}"
    command = "genesis-migrate up"
    newest = max(known)
    applied = _applied(entries)
    unfinished = sorted(
        str(entry["_id"]) for entry in entries if entry["_id"] in known and entry["_id"] not in applied
    )
    if unfinished:
        return (
            f"{where} is being migrated, or a migration of it was interrupted (step {unfinished[0]}). See "
            f"`genesis-migrate status`; if nothing runs, run `{command}`."
        )
    if unknown := sorted(entry["_id"] for entry in entries if "state" in entry and entry["_id"] not in known):
        if unknown[-1] < newest:
            return (
                f"{where} has the migration step {unknown[-1]}, which this genesis_flow does not know. See "
                "`genesis-migrate status`, and install the genesis_flow that the others use."
            )
        return (
            f"{where} has schema version {unknown[-1]}, newer than {newest}, which this genesis_flow works "
            "with. Install the genesis_flow that the others use."
        )
    if not applied:
        return (
            f"{where} holds collections that genesis_flow did not make, or made before it kept a ledger. Use "
            f"another database or a collection prefix (#prefix at the end of the URI), or run `{command}`."
        )
    return (
        f"{where} has schema version {max(applied)}, older than {newest}, which this genesis_flow works "
        f"with. Run `{command}` once, with a user that may create indexes."
    )
