"""Which versions of MCP servers a trace used.

MLflow declares these two calls, and its own stores have neither. A trace keeps such links itself, as it does
those to prompts, by name and version. Round trips: link one, read three (the trace, its servers, their
contents).
"""

from typing import TYPE_CHECKING

from genesis_flow.areas.mcp.documents import server_id, version_entity
from genesis_flow.areas.mcp.shared import contents_of, servers_in
from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.shared import find_trace, known, refuse_unknown_trace
from genesis_flow.core.errors import invalid
from genesis_flow.kit.registered import live_versions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, mutation, operation
from genesis_flow.mongo.scoping import scoped

if TYPE_CHECKING:
    from mlflow.entities.mcp_server_version import MCPServerVersion

# A version has no slash, a name has one.
_SEPARATOR = "/"


class MCPLinks(Area):
    @mutation
    async def link_mcp_server_versions_to_trace(
        self, trace_id: str, mcp_servers: "list[MCPServerVersion]"
    ) -> None:
        """Note on a trace which versions of MCP servers it used; a link that is there stays."""
        links = [_link(server) for server in mcp_servers]
        if not links:
            return
        result = await self.database.collection(TraceFields).update_one(
            known(trace_id), {"$addToSet": {"linked_mcp_servers": {"$each": links}}}
        )
        if not result.matched_count:
            refuse_unknown_trace(trace_id)

    @operation
    async def get_mcp_server_versions_for_trace(self, trace_id: str) -> "list[MCPServerVersion]":
        """The versions that a trace used, in the order of their links, without those that were deleted."""
        trace = await find_trace(self.database, trace_id, {"linked_mcp_servers": 1})
        links = [link.rsplit(_SEPARATOR, 1) for link in trace.get("linked_mcp_servers", [])]
        if not links:
            return []
        names = list(dict.fromkeys(server_id(name) for name, _ in links))
        servers = servers_in(self.database).find(scoped({"_id": {"$in": names}}), batch_size=BATCH)
        versions = {
            (server["name"], version["version"]): (server, version)
            async for server in servers
            for version in live_versions(server)
        }
        used = [versions[name, version] for name, version in links if (name, version) in versions]
        contents = await contents_of(self.database, [version for _, version in used])
        return [
            version_entity(server, version, contents[version["content"]])
            for server, version in used
            if version["content"] in contents
        ]


def _link(server: "MCPServerVersion") -> str:
    name, version = getattr(server, "name", None), getattr(server, "version", None)
    if not isinstance(name, str) or not isinstance(version, str):
        raise invalid(
            "mcp_servers must be versions of MCP servers, as get_mcp_server_version returns them, not "
            f"{server!r}."
        )
    return f"{name}{_SEPARATOR}{version}"
