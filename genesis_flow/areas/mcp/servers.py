"""MCP servers: the registry, its tags and aliases.

Documents: one a server in ``mcp_servers``, with an entry for each version, with its aliases and its
endpoints; the long part of each version in ``mcp_contents``. A change of a server, its versions, aliases or
endpoints is one update of its document: docs/adr/0023-one-engine-for-registered-things.md.

Round trips: get one (its contents are read beside it), search one, and one more if a server on the page has
endpoints. A change two, the read and the write; one more where it changes what a content is read by.
"""

import json
from typing import TYPE_CHECKING, Any

from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.mcp.documents import ENDPOINT_HINT, server_entity, server_id
from genesis_flow.areas.mcp.search import SERVER_KINDS, server_conditions, server_order
from genesis_flow.areas.mcp.shared import (
    change_server,
    contents_in,
    contents_of,
    page_conditions,
    read,
    resolved,
    servers_in,
    unknown_alias,
    unknown_server,
    unknown_version,
)
from genesis_flow.compat.registries import NOT_SET, strip_icon_response_fields, validate_icon_payloads
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import stored_text
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.kit.registered import (
    ACTIVE,
    DELETED,
    LATEST,
    drop_alias,
    drop_tag,
    insert_thing,
    new_thing,
    put,
    set_alias,
    set_tag,
    version_of,
)
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

if TYPE_CHECKING:
    from mlflow.entities.mcp_server import MCPServer
    from mlflow.store.tracking.mcp_server_registry.abstract_mixin import MCPIcon

_MOST_RESULTS = 1000


class MCPServers(Area):
    @mutation
    async def create_mcp_server(
        self,
        name: str,
        description: str | None = None,
        icons: "list[MCPIcon] | None" = None,
        created_by: str | None = None,
    ) -> "MCPServer":
        """Register an MCP server."""
        validate_name(name)
        server = new_thing(
            server_id(name),
            name,
            created_by,
            endpoints=[],
            description=description,
            icons=await checked_icons(icons),
        )
        taken = entities.taken(f"MCP server with name '{name}' already exists")
        return server_entity(await insert_thing(servers_in(self.database), server, taken), {})

    @operation
    async def get_mcp_server(self, name: str) -> "MCPServer":
        """A server with its endpoints."""

        def wanted(server: Document | None) -> list[Document]:
            if server is None:
                raise entities.unknown(f"MCP server '{name}' not found")()
            return resolved([server])

        likely = {"server": server_id(name), "hints": ENDPOINT_HINT}
        server, _, contents = await read(self.database, name, likely, wanted)
        return server_entity(server, contents)

    @operation
    async def search_mcp_servers(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> "PagedList[MCPServer]":
        """The servers that match, by name unless another order is asked for."""
        validate_max_results(max_results)
        if max_results > _MOST_RESULTS:
            raise invalid(
                f"Invalid value for max_results. It must be at most {_MOST_RESULTS}, but got {max_results}"
            )
        order = server_order(order_by)
        servers, token = await entities.page(
            servers_in(self.database),
            page_conditions(server_conditions(filter_string)),
            order,
            max_results,
            page_token,
            [SERVER_KINDS[field] for field, _ in order],
            {"versions": 0},
        )
        contents = await contents_of(self.database, resolved(servers))
        return PagedList([server_entity(server, contents) for server in servers], token)

    @mutation
    async def update_mcp_server(
        self,
        name: str,
        description: str | None = NOT_SET,
        display_name: str | None = NOT_SET,
        icons: "list[MCPIcon] | None" = NOT_SET,
        last_updated_by: str | None = None,
    ) -> "MCPServer":
        """Change what is given; None takes a value away."""
        fields: dict[str, Any] = {"description": description, "display_name": display_name}
        change = {field: value for field, value in fields.items() if value is not NOT_SET}
        if icons is not NOT_SET:
            change["icons"] = await checked_icons(icons)

        def alter(server: Document) -> None:
            put(
                server,
                **change,
                last_updated_by=last_updated_by,
                last_update_time=get_current_time_millis(),
            )

        _, server = await change_server(self.database, name, alter)
        return server_entity(server, await contents_of(self.database, resolved([server])))

    @mutation
    async def delete_mcp_server(self, name: str) -> None:
        """Delete a server that has no active version, with all that it has."""
        query = scoped({"_id": server_id(name)})
        inactive = {**query, "versions.status": {"$ne": ACTIVE}}
        server = await servers_in(self.database).find_one_and_delete(inactive)
        if server is None:
            self._refuse_server_deletion(name, await servers_in(self.database).find_one(query))
            return
        ids = [version["content"] for version in server["versions"]]
        await contents_in(self.database).delete_many(scoped({"_id": {"$in": ids}}))

    def _refuse_server_deletion(self, name: str, server: Document | None) -> None:
        if server is None:
            if is_repetition():
                return
            raise unknown_server(name)()
        active = next((each for each in server["versions"] if each["status"] == ACTIVE), None)
        raise invalid(
            f"Cannot delete MCP server '{name}' while it still has an active version "
            f"('{active['version'] if active else '?'}'). Delete or deactivate the active version first."
        )

    @mutation
    async def set_mcp_server_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a server."""
        await change_server(self.database, name, lambda server: set_tag(server, key, value))

    @mutation
    async def delete_mcp_server_tag(self, name: str, key: str) -> None:
        """Delete a tag of a server."""
        missing = entities.unknown(f"Tag '{key}' not found on MCP server '{name}'")
        await change_server(self.database, name, lambda server: drop_tag(server, key, missing), missing)

    @mutation
    async def set_mcp_server_alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias name a version, whatever it has named before."""
        if alias == LATEST:
            raise invalid("The alias name 'latest' is reserved for automatic resolution")
        named = stored_text(alias)
        if named is None:
            raise invalid("An alias of an MCP server needs a name. Give it one.")

        def alter(server: Document) -> None:
            version_there = version_of(server, version)
            if version_there is None:
                raise unknown_version(name, version)()
            if version_there["status"] == DELETED:
                raise invalid(
                    f"Cannot set alias '{alias}' to deleted MCP server version '{name}' version '{version}'"
                )
            set_alias(server, named, version)

        await change_server(self.database, name, alter)

    @mutation
    async def delete_mcp_server_alias(self, name: str, alias: str) -> None:
        """Delete an alias, and the endpoints that lead through it."""
        missing = unknown_alias(name, alias, "on")
        await change_server(self.database, name, lambda server: drop_alias(server, alias, missing), missing)


def validate_name(name: str) -> None:
    from mlflow.entities.mcp_server import validate_mcp_server_name

    validate_mcp_server_name(name)


async def checked_icons(icons: Any, field: str = "icons") -> str | None:
    """Icons as they are kept. Their hosts are looked up, which blocks."""
    stripped = strip_icon_response_fields(icons, field)
    await check_icons(stripped, field)
    return None if stripped is None else json.dumps(stripped)


async def check_icons(icons: Any, field: str) -> None:
    if icons:
        await in_thread(validate_icon_payloads, icons, field)
    else:
        validate_icon_payloads(icons, field)
