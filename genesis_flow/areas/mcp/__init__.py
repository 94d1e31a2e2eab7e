"""MCP servers: a registry of servers, their versions, and where they can be reached."""
