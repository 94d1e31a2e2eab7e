"""Every public call about MCP servers and skills, once. See ``every_call``."""

from collections.abc import Awaitable, Callable
from typing import Any

from mlflow.entities.mcp_server import MCPStatus

from tests.versions import SINCE_3_18

Call = Callable[..., Awaitable[Any]]
SERVER, OTHER = "com.example/tool", "com.example/other"
DIGEST = "0123456789abcdef" * 4


async def mcp_servers(call: Call) -> None:
    await call("create_mcp_server", OTHER, "words", created_by="me")
    await call("update_mcp_server", OTHER, "other words")
    for version in ("1.0.0", "2.0.0"):
        await call("create_mcp_server_version", {"name": SERVER, "version": version})
    await call("update_mcp_server_version", SERVER, "1.0.0", MCPStatus.ACTIVE)
    await call("update_mcp_server_version", SERVER, "1.0.0", tools=[])
    await call("set_mcp_server_tag", SERVER, "k", "v")
    await call("set_mcp_server_version_tag", SERVER, "1.0.0", "k", "v")
    await call("set_mcp_server_alias", SERVER, "a", "1.0.0")
    made = await call("create_mcp_access_endpoint", SERVER, "https://x", server_alias="a")
    await call("update_mcp_access_endpoint", SERVER, made.id, url="https://y")
    await call("get_mcp_server", SERVER)
    await call("search_mcp_servers", "tags.k = 'v'")
    await call("get_mcp_server_version", SERVER, "1.0.0")
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
    await call("delete_mcp_server", OTHER)


async def skills(call: Call) -> None:
    if not SINCE_3_18:
        return
    await call("create_skill", "a", "org", "words", created_by="me")
    await call("update_skill", "a", "org", "other words")
    for _ in range(2):
        await call("create_skill_version", "a", "org", "zip", "https://x/a.zip", created_by="me")
    await call("create_skill_version", "b", "", "zip", "https://x/a.zip", status="draft")
    definition = {"name": "c", "source": "https://x/a.git", "digest": DIGEST}
    await call("bulk_register_skills", [definition], "org", "me")
    await call("update_skill_version", "a", 1, "org", "deprecated")
    await call("set_skill_tag", "a", "k", "v", "org")
    await call("set_skill_version_tag", "a", 2, "k", "v", "org")
    await call("set_skill_alias", "a", "prod", 2, "org")
    await call("get_skill", "a", "org")
    await call("search_skills", "tags.k = 'v'", include_skill_identities=[("org", "a")])
    await call("get_skill_version", "a", 2, "org")
    await call("get_skill_version_by_alias", "a", "prod", "org")
    await call("get_latest_skill_version", "a", "org")
    await call("search_skill_versions", "a", "org", "version > 0")
    await call("delete_skill_alias", "a", "prod", "org")
    await call("delete_skill_version_tag", "a", 2, "k", "org")
    await call("delete_skill_tag", "a", "k", "org")
    await call("delete_skill_version", "a", 1, "org")
    await call("delete_skill", "b")
    await call("delete_skill_and_collect_artifacts", "c", "org")
