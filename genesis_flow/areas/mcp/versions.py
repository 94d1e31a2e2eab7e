"""Versions of MCP servers.

Round trips: get by name, by alias and the latest one (the content beside the server), search two (entries,
contents). Create four: the content first, under an id of its own, then the read and the write of the
server whose entry names it, and what it is read by; a content that no entry names is never seen. Update and
delete likewise.
"""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mlflow.entities.mcp_server import MCPStatus
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.semver_utils import encode_prerelease_sort_key, parse_semver
from pymongo.errors import PyMongoError

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.mcp.documents import (
    Contents,
    alias_hint,
    server_id,
    version_entity,
    version_prefix,
)
from genesis_flow.areas.mcp.search import VERSION_KINDS, version_conditions, version_order
from genesis_flow.areas.mcp.servers import check_icons, validate_name
from genesis_flow.areas.mcp.shared import (
    change_server,
    contents_in,
    contents_of,
    no_latest,
    read,
    servers_in,
    unknown_alias,
    unknown_server,
    unknown_version,
)
from genesis_flow.compat.registries import (
    NOT_SET,
    strip_icon_response_fields,
    validate_mcp_initial_status,
    validate_mcp_tool_payloads,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.kit.elements import Elements
from genesis_flow.kit.registered import (
    DELETED,
    LATEST,
    aliased_version,
    check_transition,
    drop_tag,
    given,
    is_done,
    latest_version,
    live_version,
    new_thing,
    new_version,
    put,
    refuse_null_status,
    set_tag,
    touch,
    version_of,
)
from genesis_flow.mongo.operation import Area, call_token, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once

if TYPE_CHECKING:
    from mlflow.entities.mcp_server import MCPTool
    from mlflow.entities.mcp_server_version import ConnectOptionSettings, MCPServerVersion


class MCPVersions(Area):
    @mutation
    async def create_mcp_server_version(
        self,
        server_json: dict[str, Any],
        source: str | None = None,
        status: MCPStatus | None = None,
        tools: "list[MCPTool] | None" = NOT_SET,
        created_by: str | None = None,
        connect_options: "dict[str, ConnectOptionSettings] | None" = None,
    ) -> "MCPServerVersion":
        """Register a version of a server, which is made if it is not there."""
        name, version = server_json.get("name"), server_json.get("version")
        if not name or not version:
            raise invalid("server_json must contain 'name' and 'version' keys")
        validate_name(name)
        server_json = await _checked_server_json(server_json)
        parsed = parse_semver(version, param_name="server_json.version")
        status = status or MCPStatus.DRAFT
        validate_mcp_initial_status(status)
        content = _content(name, version, json.dumps(server_json), await _checked_tools(tools))
        entry = new_version(
            version,
            str(status),
            created_by,
            major=parsed.major,
            minor=parsed.minor,
            patch=parsed.patch,
            prerelease=encode_prerelease_sort_key(parsed),
            content=content["_id"],
            shows=json.dumps(
                {part: server_json[part] for part in ("description", "icons") if part in server_json}
            ),
            connect_options=_options(connect_options),
            source=source,
        )

        def make() -> Document:
            return new_thing(server_id(name), name, created_by, endpoints=[])

        def alter(server: Document) -> None:
            known = version_of(server, version)
            if known is None:
                server["versions"] = [*server["versions"], entry]
            elif not is_done(known):
                raise entities.taken(f"MCP server version '{name}' version '{version}' already exists")()

        _, server = await self._change_content(name, alter, content, make)
        return version_entity(server, live_version(server, version, unknown_version(name, version)), content)

    async def _change_content(
        self,
        name: str,
        alter: Any,
        content: Document,
        make: Any = None,
        absent: entities.Refusal | None = None,
    ) -> tuple[Document | None, Document]:
        """Change a server so that it names ``content``, which is stored first."""
        contents = contents_in(self.database)
        await insert_once(contents, content)
        try:
            return await change_server(self.database, name, alter, absent, make)
        except PyMongoError:
            raise  # it may be named now: the call is made again
        except Exception:
            await contents.delete_one(scoped({"_id": content["_id"]}))
            raise

    @operation
    async def get_mcp_server_version(self, name: str, version: str) -> "MCPServerVersion":
        """A version that is not deleted."""
        _, _, found = await self._server_version(name, version)
        return found

    async def _server_version(self, name: str, version: str) -> tuple[Document, Contents, "MCPServerVersion"]:
        likely = {"_id": children_of(version_prefix(name, version))}

        def wanted(server: Document | None) -> list[Document]:
            entry = version_of(server, version)
            if entry is not None and is_done(entry):
                return [entry]  # also if this call has deleted it
            return [live_version(server, version, unknown_version(name, version))]

        server, (entry,), contents = await read(self.database, name, likely, wanted)
        return entry, contents, version_entity(server, entry, contents[entry["content"]])

    @operation
    async def get_mcp_server_version_by_alias(self, name: str, alias: str) -> "MCPServerVersion":
        """The version that an alias names; `latest` is the latest one."""

        def wanted(server: Document | None) -> list[Document]:
            if alias == LATEST:
                if server is None:
                    raise unknown_server(name)()
                return [latest_version(server, no_latest(name))]
            version = aliased_version(server, alias)
            if version is None:
                raise unknown_alias(name, alias)()
            return [version]

        likely = {"server": server_id(name), "hints": alias_hint(alias)}
        server, (entry,), contents = await read(self.database, name, likely, wanted)
        return version_entity(server, entry, contents[entry["content"]])

    @operation
    async def get_latest_mcp_server_version(self, name: str) -> "MCPServerVersion":
        """The latest active version; the latest of all if none is active."""
        return await self.get_mcp_server_version_by_alias(name, LATEST)

    @operation
    async def search_mcp_server_versions(
        self,
        name: str,
        filter_string: str | None = None,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> "PagedList[MCPServerVersion]":
        """The versions of a server that match, the oldest first unless another order is asked for."""
        validate_max_results(max_results)
        conditions, order = version_conditions(filter_string), version_order(order_by)
        versions = Elements("versions", {"_id": server_id(name)}, ("name", "workspace", "aliases"))
        rows, token = await versions.page(
            servers_in(self.database),
            conditions,
            order,
            max_results,
            page_token,
            ["versions of", name, filter_string, order],
            [VERSION_KINDS[field] for field, _ in order],
        )
        contents = await contents_of(self.database, [row["versions"] for row in rows])
        return PagedList(
            [
                version_entity(row, row["versions"], contents[row["versions"]["content"]])
                for row in rows
                if row["versions"]["content"] in contents
            ],
            token,
        )

    @mutation
    async def update_mcp_server_version(
        self,
        name: str,
        version: str,
        status: MCPStatus | None = NOT_SET,
        tools: "list[MCPTool] | None" = NOT_SET,
        last_updated_by: str | None = None,
        connect_options: "dict[str, ConnectOptionSettings] | None" = NOT_SET,
    ) -> "MCPServerVersion":
        """Change what is given. A version that becomes deleted takes its aliases and endpoints along."""
        new_tools = await _checked_tools(tools) if tools is not NOT_SET else None

        def alter(server: Document) -> None:
            entry = version_of(server, version)
            if entry is not None and is_done(entry):
                return
            entry = live_version(server, version, unknown_version(name, version))
            if status is None:
                raise refuse_null_status()
            if status is not NOT_SET:
                check_transition(entry["status"], status)
                entry["status"] = str(status)
            if connect_options is not NOT_SET:
                put(entry, connect_options=_options(connect_options))
            if content is not None:
                put(entry, content=content["_id"], replaces=entry["content"])
            touch(entry, last_updated_by=last_updated_by)

        absent = unknown_version(name, version)
        content: Document | None = None
        if tools is NOT_SET:
            _, server = await change_server(self.database, name, alter, absent)
            entry = _entry(server, version, absent)
            contents = await contents_of(self.database, [entry])
            return version_entity(server, entry, contents[entry["content"]])
        old, contents, _ = await self._server_version(name, version)
        content = _content(name, version, contents[old["content"]]["server_json"], new_tools)
        _, server = await self._change_content(name, alter, content, absent=absent)
        entry = _entry(server, version, absent)
        await contents_in(self.database).delete_one(scoped({"_id": entry["replaces"]}))
        return version_entity(server, entry, content)

    @mutation
    async def delete_mcp_server_version(self, name: str, version: str) -> None:
        """Delete a version, with its aliases and endpoints. Its number stays taken."""
        unknown = unknown_version(name, version)

        def alter(server: Document) -> None:
            entry = _entry(server, version, unknown)
            if is_done(entry):
                return
            check_transition(entry["status"], DELETED)
            entry["status"] = DELETED
            touch(entry)

        await change_server(self.database, name, alter, unknown)

    @mutation
    async def set_mcp_server_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a version."""
        unknown = unknown_version(name, version)

        def alter(server: Document) -> None:
            set_tag(live_version(server, version, unknown), key, value)

        await change_server(self.database, name, alter, unknown)

    @mutation
    async def delete_mcp_server_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag of a version."""
        unknown = unknown_version(name, version)
        missing = entities.unknown(
            f"Tag '{key}' not found on MCP server version '{name}' version '{version}'"
        )

        def alter(server: Document) -> None:
            drop_tag(live_version(server, version, unknown), key, missing)

        await change_server(self.database, name, alter, unknown)


def _entry(server: Document | None, version: str, unknown: entities.Refusal) -> Document:
    entry = version_of(server, version)
    if entry is None:
        raise unknown()
    return entry


def _content(name: str, version: str, server_json: str, tools: str | None) -> Document:
    return given(
        _id=f"{version_prefix(name, version)}{SEPARATOR}{call_token()}",
        workspace=current_workspace(),
        server=server_id(name),
        server_json=server_json,
        tools=tools,
        hints=[],
    )


async def _checked_server_json(server_json: dict[str, Any]) -> dict[str, Any]:
    if "icons" in server_json:
        icons = strip_icon_response_fields(server_json["icons"], "server_json.icons")
        server_json = {**server_json, "icons": icons}
    await check_icons(server_json.get("icons"), "server_json.icons")
    return server_json


async def _checked_tools(tools: Any) -> str | None:
    """Tools as they are kept; none if they are not given."""
    if tools is None or tools is NOT_SET:
        return None
    tools = [
        replace(tool, icons=strip_icon_response_fields(tool.icons, f"tools[{place}].icons"))
        for place, tool in enumerate(tools)
    ]
    validate_mcp_tool_payloads(tools, "tools")
    for place, tool in enumerate(tools):
        await check_icons(tool.icons, f"tools[{place}].icons")
    return json.dumps([tool.to_dict() for tool in tools])


def _options(options: "dict[str, ConnectOptionSettings] | None") -> str | None:
    return None if options is None else json.dumps({name: asdict(each) for name, each in options.items()})
