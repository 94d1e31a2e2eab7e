"""Reads and changes of MCP servers that all its calls are made of."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR
from pymongo import UpdateOne

from genesis_flow.areas.mcp.documents import (
    SERVERS,
    Contents,
    MCPContentFields,
    MCPServerFields,
    hints,
    server_id,
)
from genesis_flow.documents.plain import Document
from genesis_flow.kit.entities import Refusal, unknown
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import is_repetition
from genesis_flow.mongo.scoping import scoped

# How often the content of a version may be replaced between two reads.
_ATTEMPTS = 5


def servers_in(database: Database) -> Collection:
    return database.collection(MCPServerFields)


def contents_in(database: Database) -> Collection:
    return database.collection(MCPContentFields)


def unknown_server(name: str) -> Refusal:
    """As most calls refuse a server that is not there."""
    return unknown(f"MCPServer not found (name='{name}')")


def unknown_version(name: str, version: str) -> Refusal:
    return unknown(f"MCP server version '{name}' version '{version}' not found")


def no_latest(name: str) -> Refusal:
    return unknown(f"No resolved latest version found for MCP server '{name}'")


def unknown_alias(name: str, alias: str, where: str = "for") -> Refusal:
    return unknown(f"Alias '{alias}' not found {where} MCP server '{name}'")


async def find_contents(database: Database, query: Document) -> Contents:
    contents = contents_in(database).find(scoped(query), batch_size=BATCH)
    return {content["_id"]: content async for content in contents}


async def contents_of(database: Database, versions: Iterable[Document]) -> Contents:
    """The contents of the versions, but for those that have just been replaced or deleted."""
    ids = [version["content"] for version in versions]
    return await find_contents(database, {"_id": {"$in": ids}}) if ids else {}


async def read(
    database: Database, name: str, likely: Document, wanted: Callable[[Document | None], list[Document]]
) -> tuple[Document, list[Document], Contents]:
    """A server, those of its versions that are ``wanted``, and their contents, ``likely`` those of a query.

    One round trip if it finds them all.
    """
    find = servers_in(database).find_one(scoped({"_id": server_id(name)}))
    server, contents = await asyncio.gather(find, find_contents(database, likely))
    for _ in range(_ATTEMPTS):
        versions = wanted(server)
        assert server is not None, "who wants versions refuses a server that is not there"
        contents |= await contents_of(
            database, [version for version in versions if version["content"] not in contents]
        )
        if all(version["content"] in contents for version in versions):
            return server, versions, contents
        server = await servers_in(database).find_one(scoped({"_id": server_id(name)}))
    raise MlflowException(
        f"The content of a version of the MCP server '{name}' is missing in the database. Restore it from a "
        "backup, or delete the version.",
        INTERNAL_ERROR,
    )


def resolved(servers: Iterable[Document]) -> list[Document]:
    """The versions to which endpoints lead."""
    return [endpoint["resolved"] for server in servers for endpoint in server["endpoints"]]


async def change_server(
    database: Database,
    name: str,
    alter: Callable[[Document], None],
    absent: Refusal | None = None,
    make: Callable[[], Document] | None = None,
) -> tuple[Document | None, Document]:
    """The server before and after a change of it, in one update; contents get the hints that follow."""

    def refuse() -> Document:
        raise (absent or unknown_server(name))()

    before, after = await SERVERS.change(servers_in(database), server_id(name), alter, make or refuse)
    # An earlier attempt of this call may have made the change and not given the contents its hints.
    old, new = hints(before), hints(after)
    changed = [
        UpdateOne(scoped({"_id": content}), {"$set": {"hints": content_hints}})
        for content, content_hints in new.items()
        if is_repetition() or content_hints != old.get(content, [])
    ]
    if changed:
        await contents_in(database).bulk_write(changed, ordered=False)
    return before, after


def page_conditions(conditions: list[Document]) -> dict[str, Any]:
    return {"$and": conditions} if conditions else {}
