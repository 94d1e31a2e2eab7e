"""MCP servers, their versions and their endpoints."""

from mlflow.entities.mcp_server import MCPStatus

from tests.contract.trace_scenes import stated, trace_id
from tests.scenes.stage import Stage

SERVER, DOOMED = "com.example/tool", "com.example/doomed"
TRACE = trace_id(20)


async def scene(stage: Stage) -> None:
    call = stage.track
    await call("create_mcp_server", DOOMED, "words", created_by="me")
    await call("update_mcp_server", DOOMED, "other words")
    for version in ("1.0.0", "2.0.0"):
        await call("create_mcp_server_version", {"name": SERVER, "version": version, "description": version})
    await call("update_mcp_server_version", SERVER, "1.0.0", MCPStatus.ACTIVE)
    await call("set_mcp_server_alias", SERVER, "kept", "1.0.0")
    await call("update_mcp_server_version", SERVER, "1.0.0", tools=[])
    await call("set_mcp_server_tag", SERVER, "a.b", "c")
    await call("set_mcp_server_tag", SERVER, "k", "v")
    await call("set_mcp_server_version_tag", SERVER, "1.0.0", "a.b", "c")
    await call("set_mcp_server_version_tag", SERVER, "1.0.0", "k", "v")
    await call("set_mcp_server_alias", SERVER, "a", "1.0.0")
    made = await call("create_mcp_access_endpoint", SERVER, "https://x", server_alias="a")
    await call("create_mcp_access_endpoint", SERVER, "https://x", server_alias="latest")
    await call("update_mcp_access_endpoint", SERVER, made.id, url="https://y")
    await call("get_mcp_server", SERVER)
    await call("search_mcp_servers", "tags.k = 'v'")
    version = await call("get_mcp_server_version", SERVER, "1.0.0")
    await call("start_trace", stated(TRACE))
    await call("link_mcp_server_versions_to_trace", TRACE, [version])
    await call("get_mcp_server_versions_for_trace", TRACE)
    await call("get_mcp_server_version_by_alias", SERVER, "a")
    await call("get_latest_mcp_server_version", SERVER)
    await call("search_mcp_server_versions", SERVER)
    await call("get_mcp_access_endpoint", SERVER, made.id)
    await call("search_mcp_access_endpoints", SERVER)
    await call("delete_mcp_access_endpoint", SERVER, made.id)
    await call("delete_mcp_server_alias", SERVER, "a")
    await call("delete_mcp_server_version_tag", SERVER, "1.0.0", "k")
    await call("delete_mcp_server_tag", SERVER, "k")
    await call("delete_mcp_server_version", SERVER, "2.0.0")
    await call("delete_mcp_server", DOOMED)
