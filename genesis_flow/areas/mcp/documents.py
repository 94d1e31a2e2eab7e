"""MCP servers."""

import json
from typing import Any

from mlflow.entities.mcp_access_endpoint import MCPAccessEndpoint
from mlflow.entities.mcp_server import MCPRemoteTransportType, MCPServer, MCPStatus, MCPTool
from mlflow.entities.mcp_server_version import ConnectOptionSettings, MCPServerVersion
from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR, unescape_map
from genesis_flow.documents.plain import Document
from genesis_flow.kit.registered import (
    LATEST,
    RegisteredFields,
    Registry,
    VersionEntry,
    aliases_of,
    live_versions,
)
from genesis_flow.mongo.scoping import current_workspace

Contents = dict[str, Document]

ENDPOINT_HINT = "endpoint"


class VersionOfServer(VersionEntry):
    """A version of an MCP server. Its `server.json` and tools are in a document of their own."""

    version: str = Field(description="A semantic version, as it was given.")
    major: int = Field(description="What is before its first point.")
    minor: int = Field(description="What is between its points.")
    patch: int = Field(description="What is behind its second point.")
    prerelease: str = Field(
        description="The rest as a text that sorts as semantic versions do, builds apart."
    )
    content: str = Field(description="The document in `mcp_contents` that has the rest.")
    replaces: str | None = Field(default=None, description="The content before, which is deleted by then.")
    shows: str = Field(description="Description and icons of its `server.json`, JSON.")
    connect_options: str | None = Field(default=None, description="Options of its ways to connect, JSON.")
    source: str | None = Field(default=None, description="Where it comes from.")


class MCPServerFields(RegisteredFields):
    """An MCP server with its versions, and the endpoints by which it can be reached."""

    display_name: str | None = Field(default=None, description="Name to show.")
    versions: list[VersionOfServer] = Field(default_factory=list, description="Its versions, by creation.")
    endpoints: list[dict[str, Any]] = Field(
        default_factory=list,
        description=(
            "Its endpoints, by id, each with the entry of its version. None leads to a version that is gone."
        ),
    )

    class Settings(CollectionSettings):
        name = "mcp_servers"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING)],
                name="by_name",
                serves="The page of servers in the order of the UI.",
            ),
            Index(
                [("workspace", ASCENDING), ("latest.status", ASCENDING), ("name", ASCENDING)],
                name="by_status",
                serves="The same of one status.",
            ),
            Index(
                [("workspace", ASCENDING), ("last_update_time", ASCENDING), ("name", ASCENDING)],
                name="by_update",
                serves="The servers, the longest unchanged first.",
            ),
            Index(
                [("workspace", ASCENDING), ("last_update_time", DESCENDING), ("name", ASCENDING)],
                name="by_newest",
                serves="The servers, the last changed first.",
            ),
            Index(
                [("endpoints.id", ASCENDING)],
                name="by_endpoint",
                sparse=True,
                serves="The server of an endpoint, and all servers that have some.",
            ),
        ]
        keep_nulls = False


class MCPContentFields(Declared):
    """The long part of a version of an MCP server. It never changes: new tools are a new document."""

    id: str = Field(
        alias="_id", description="`server|version|call`; the server's entry of the version names it."
    )
    workspace: str = Field(description="Workspace; every query names it.")
    server: str = Field(description="The server's `_id`.")
    server_json: str = Field(description="Its `server.json`, as JSON.")
    tools: str | None = Field(default=None, description="Its tools, as JSON.")
    hints: list[str] = Field(
        default_factory=list,
        description=(
            "By what it is read: `latest`, `alias …`, `endpoint`. Hints that the server's document confirms."
        ),
    )

    class Settings(CollectionSettings):
        name = "mcp_contents"
        refers = {"server": "mcp_servers"}
        indexes = [
            Index(
                [("server", ASCENDING), ("hints", ASCENDING)],
                name="by_hint",
                serves="The content of the version that an alias names, read beside the server.",
            ),
        ]
        keep_nulls = False


def server_id(name: str) -> str:
    return f"{current_workspace()}{SEPARATOR}{name}"


def version_prefix(name: str, version: str) -> str:
    """What the ids of a version's contents begin with."""
    return f"{server_id(name)}{SEPARATOR}{version}"


def alias_hint(alias: str) -> str:
    return LATEST if alias == LATEST else f"alias {alias}"


def _settle_endpoints(server: Document) -> None:
    """Say of each endpoint what it leads to, and drop those that lead nowhere."""
    versions = {version["version"]: version for version in live_versions(server)}
    targets = {each["alias"]: each["version"] for each in server["aliases"]}
    if "latest" in server:
        targets[LATEST] = server["latest"]["version"]
    kept = []
    for endpoint in server["endpoints"]:
        target = endpoint.get("server_version")
        if target is None:
            target = targets.get(endpoint["server_alias"])
        if target in versions:
            kept.append({**endpoint, "resolved": versions[target]})
    server["endpoints"] = kept


def _precedence(version: Document) -> tuple[Any, ...]:
    """Of versions that differ by their build only, the later made one is later."""
    parts = ("major", "minor", "patch", "prerelease", "creation_time", "version")
    return tuple(version[part] for part in parts)


SERVERS = Registry(order=_precedence, of_latest=("version", "status", "shows"), settle_more=_settle_endpoints)


def hints(server: Document | None) -> dict[str, list[str]]:
    """By content, what it can be read by."""
    if server is None:
        return {}
    latest = (server.get("latest") or {}).get("version")
    reached = {endpoint["resolved"]["version"] for endpoint in server["endpoints"]}
    return {
        version["content"]: [
            *([LATEST] if version["version"] == latest else []),
            *(alias_hint(alias) for alias in aliases_of(server, version["version"])),
            *([ENDPOINT_HINT] if version["version"] in reached else []),
        ]
        for version in live_versions(server)
    }


def version_entity(server: Document, version: Document, content: Document) -> MCPServerVersion:
    tools = content.get("tools")
    options = json.loads(version.get("connect_options", "{}"))
    return MCPServerVersion(
        name=server["name"],
        version=version["version"],
        server_json=json.loads(content["server_json"]),
        status=MCPStatus(version["status"]),
        tools=None if tools is None else [MCPTool.from_dict(tool) for tool in json.loads(tools)],
        aliases=aliases_of(server, version["version"]),
        tags=unescape_map(version["tags"]),  # type: ignore[arg-type]  # None, as in MLflow's store
        connect_options={name: ConnectOptionSettings(**option) for name, option in options.items()},
        source=version.get("source"),
        workspace=server["workspace"],
        created_by=version.get("created_by"),
        last_updated_by=version.get("last_updated_by"),
        creation_timestamp=int(version["creation_time"]),
        last_updated_timestamp=int(version["last_update_time"]),
    )


def endpoint_entity(server: Document, endpoint: Document, contents: Contents) -> MCPAccessEndpoint:
    version = endpoint["resolved"]
    return MCPAccessEndpoint(
        id=endpoint["id"],
        server_name=server["name"],
        url=endpoint["url"],
        transport_type=MCPRemoteTransportType(endpoint["transport_type"]),
        server_version=endpoint.get("server_version"),
        server_alias=endpoint.get("server_alias"),
        resolved_version=version_entity(server, version, contents[version["content"]]),
        workspace=server["workspace"],
        created_by=endpoint.get("created_by"),
        last_updated_by=endpoint.get("last_updated_by"),
        creation_timestamp=int(endpoint["creation_time"]),
        last_updated_timestamp=int(endpoint["last_update_time"]),
    )


def server_entity(server: Document, contents: Contents) -> MCPServer:
    latest = server.get("latest")
    shown = json.loads(latest["shows"]) if latest else {}
    return MCPServer(
        name=server["name"],
        display_name=server.get("display_name"),
        description=server.get("description", shown.get("description")),
        icons=_icons(server.get("icons"), shown.get("icons")),
        workspace=server["workspace"],
        status=MCPStatus(latest["status"]) if latest else None,
        tags=unescape_map(server["tags"]),  # type: ignore[arg-type]  # None, as in MLflow's store
        aliases={each["alias"]: each["version"] for each in server["aliases"]},
        access_endpoints=[
            endpoint_entity(server, endpoint, contents)
            for endpoint in server["endpoints"]
            if endpoint["resolved"]["content"] in contents
        ],
        latest_version=latest["version"] if latest else None,
        created_by=server.get("created_by"),
        last_updated_by=server.get("last_updated_by"),
        creation_timestamp=int(server["creation_time"]),
        last_updated_timestamp=int(server["last_update_time"]),
    )


def _icons(own: str | None, of_version: Any) -> list[dict[str, Any]] | None:
    """The server's icons, and those of its latest version for other themes; an empty list means none."""
    icons = None if own is None else json.loads(own)
    if icons == []:
        return []
    shown = [{**icon, "source": "server"} for icon in icons or ()]
    themes = {icon.get("theme") for icon in shown}
    for icon in of_version or ():
        if isinstance(icon, dict) and icon.get("theme") not in themes:
            shown.append({**icon, "source": "version"})
    return shown or None
