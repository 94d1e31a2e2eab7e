"""The first word of a store with its server."""

from typing import Any

import pymongo
from pymongo.asynchronous.mongo_client import AsyncMongoClient
from pymongo.errors import PyMongoError

from genesis_flow.core.reaching import Search
from genesis_flow.core.settings import Settings


async def reach(client: AsyncMongoClient[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """What the server says of itself, once it answers."""
    search = Search(settings)
    while True:
        try:
            # Within a deadline the driver looks for a server until then, whatever its own limit says.
            with pymongo.timeout(search.step()):
                hello: dict[str, Any] = await client.admin.command("hello")
                return hello
        except PyMongoError as error:
            servers = client.topology_description.server_descriptions().values()
            if not error.timeout or not search.go_on(error, servers):
                raise
