"""MCP servers."""

from genesis_flow.areas.mcp.documents import MCPContentFields, MCPServerFields
from genesis_flow.areas.mcp.endpoints import MCPEndpoints
from genesis_flow.areas.mcp.links import MCPLinks
from genesis_flow.areas.mcp.servers import MCPServers
from genesis_flow.areas.mcp.versions import MCPVersions
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "mcp",
    documents=(MCPServerFields, MCPContentFields),
    tracking=(MCPServers, MCPVersions, MCPEndpoints, MCPLinks),
)
