"""Endpoints by which MCP servers can be reached.

They are in the document of their server, each with the version that it leads to, so a version or an alias
that goes takes them along in the same update.

Round trips: get one (the content beside the server), search two. A change two, and one for the content.
"""

from typing import TYPE_CHECKING, Any

from mlflow.entities.mcp_server import MCPRemoteTransportType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.experiments.guards import validate_max_results
from genesis_flow.areas.mcp.documents import ENDPOINT_HINT, endpoint_entity, server_id
from genesis_flow.areas.mcp.search import ENDPOINT_KINDS, endpoint_conditions, endpoint_order
from genesis_flow.areas.mcp.shared import (
    change_server,
    contents_of,
    no_latest,
    read,
    servers_in,
    unknown_alias,
    unknown_version,
)
from genesis_flow.compat.registries import NOT_SET
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import stored_text
from genesis_flow.documents.plain import Document
from genesis_flow.kit.elements import Elements
from genesis_flow.kit.entities import Refusal, unknown
from genesis_flow.kit.registered import (
    DELETED,
    LATEST,
    aliased_version,
    given,
    latest_version,
    put,
    version_of,
)
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

if TYPE_CHECKING:
    from mlflow.entities.mcp_access_endpoint import MCPAccessEndpoint


class MCPEndpoints(Area):
    @mutation
    async def create_mcp_access_endpoint(
        self,
        server_name: str,
        url: str,
        transport_type: MCPRemoteTransportType = MCPRemoteTransportType.STREAMABLE_HTTP,
        server_version: str | None = None,
        server_alias: str | None = None,
        created_by: str | None = None,
    ) -> "MCPAccessEndpoint":
        """Say where a version, or whatever an alias names, can be reached."""
        if (server_version is None) == (server_alias is None):
            raise invalid("Exactly one of server_version or server_alias must be provided")
        _check_url(url)
        now = get_current_time_millis()
        endpoint = given(
            id=f"ae-{call_token()}",
            url=url,
            transport_type=transport_type.value,
            server_version=server_version,
            server_alias=stored_text(server_alias),
            created_by=created_by,
            last_updated_by=created_by,
            creation_time=now,
            last_update_time=now,
        )

        def alter(server: Document) -> None:
            if _endpoint(server, endpoint["id"]) is not None:
                return  # by an earlier attempt of this call
            _check_target(server, server_version, server_alias, "create")
            server["endpoints"] = sorted([*server["endpoints"], endpoint], key=lambda each: each["id"])

        return await self._changed_endpoint(server_name, endpoint["id"], alter)

    async def _changed_endpoint(
        self, server_name: str, endpoint_id: str, alter: Any, absent: Refusal | None = None
    ) -> "MCPAccessEndpoint":
        _, server = await change_server(self.database, server_name, alter, absent)
        endpoint = _known_endpoint(server, endpoint_id, unknown(f"MCPAccessEndpoint {endpoint_id} not found"))
        return endpoint_entity(server, endpoint, await contents_of(self.database, [endpoint["resolved"]]))

    @operation
    async def get_mcp_access_endpoint(self, server_name: str, endpoint_id: str) -> "MCPAccessEndpoint":
        """An endpoint of a server, with the version that it leads to."""
        missing = _not_here(f"MCPAccessEndpoint {endpoint_id} not found")

        def wanted(server: Document | None) -> list[Document]:
            return [_known_endpoint(server, endpoint_id, missing)["resolved"]]

        likely = {"server": server_id(server_name), "hints": ENDPOINT_HINT}
        try:
            server, _, contents = await read(self.database, server_name, likely, wanted)
        except _NotHere as error:
            raise await self._elsewhere(server_name, endpoint_id, error) from None
        return endpoint_entity(server, _known_endpoint(server, endpoint_id, missing), contents)

    async def _elsewhere(self, server_name: str, endpoint_id: str, error: MlflowException) -> MlflowException:
        """The error for an endpoint that a server has not: another one may have it."""
        other = await servers_in(self.database).find_one(scoped({"endpoints.id": endpoint_id}), {"_id": 1})
        if other is None:
            return unknown(error.message)()
        return unknown(f"MCPAccessEndpoint {endpoint_id} does not belong to server '{server_name}'")()

    @operation
    async def search_mcp_access_endpoints(
        self,
        server_name: str | None = None,
        server_version: str | None = None,
        server_alias: str | None = None,
        filter_string: str | None = None,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> "PagedList[MCPAccessEndpoint]":
        """The endpoints that match, of one server or of all."""
        validate_max_results(max_results)
        conditions, order = endpoint_conditions(filter_string), endpoint_order(order_by)
        for field, value in (("server_version", server_version), ("server_alias", server_alias)):
            if value is not None:
                conditions.append({f"endpoints.{field}": value})
        of: Document = {"endpoints.id": {"$exists": True}}
        if server_name is not None:
            of["_id"] = server_id(server_name)
        endpoints = Elements("endpoints", of, ("name", "workspace", "aliases"))
        rows, token = await endpoints.page(
            servers_in(self.database),
            conditions,
            order,
            max_results,
            page_token,
            ["endpoints", server_name, server_version, server_alias, filter_string, order],
            [ENDPOINT_KINDS[field] for field, _ in order],
        )
        contents = await contents_of(self.database, [row["endpoints"]["resolved"] for row in rows])
        return PagedList(
            [
                endpoint_entity(row, row["endpoints"], contents)
                for row in rows
                if row["endpoints"]["resolved"]["content"] in contents
            ],
            token,
        )

    @mutation
    async def update_mcp_access_endpoint(
        self,
        server_name: str,
        endpoint_id: str,
        server_version: str | None = NOT_SET,
        server_alias: str | None = NOT_SET,
        url: str | None = NOT_SET,
        transport_type: MCPRemoteTransportType | None = NOT_SET,
        last_updated_by: str | None = None,
    ) -> "MCPAccessEndpoint":
        """Change what is given. Of version and alias, the one that is set clears the other."""
        version, alias = (None if each is NOT_SET else each for each in (server_version, server_alias))
        if version is not None and alias is not None:
            raise invalid("Cannot set both server_version and server_alias in a single update")
        missing = _not_here(f"MCPAccessEndpoint not found (id='{endpoint_id}')")

        def alter(server: Document) -> None:
            endpoint = _known_endpoint(server, endpoint_id, missing)
            if version is not None or alias is not None:
                _check_target(server, version, alias, "update")
                put(endpoint, server_version=version, server_alias=stored_text(alias))
            if url is None:
                raise invalid("MCP access endpoint url cannot be None")
            if url is not NOT_SET:
                _check_url(url)
                endpoint["url"] = url
            if isinstance(transport_type, MCPRemoteTransportType):
                endpoint["transport_type"] = transport_type.value
            put(endpoint, last_updated_by=last_updated_by, last_update_time=get_current_time_millis())

        try:
            return await self._changed_endpoint(server_name, endpoint_id, alter, missing)
        except _NotHere as error:
            raise await self._elsewhere(server_name, endpoint_id, error) from None

    @mutation
    async def delete_mcp_access_endpoint(self, server_name: str, endpoint_id: str) -> None:
        """Delete an endpoint of a server."""
        missing = _not_here(f"MCPAccessEndpoint not found (id='{endpoint_id}')")

        def alter(server: Document) -> None:
            gone = _known_endpoint(server, endpoint_id, missing)
            server["endpoints"] = [each for each in server["endpoints"] if each is not gone]

        try:
            await change_server(self.database, server_name, alter, missing)
        except _NotHere as error:
            if not is_repetition():
                raise await self._elsewhere(server_name, endpoint_id, error) from None


class _NotHere(MlflowException):
    """A server has no such endpoint."""


def _not_here(text: str) -> Refusal:
    return lambda: _NotHere(text, RESOURCE_DOES_NOT_EXIST)


def _endpoint(server: Document | None, endpoint_id: str) -> Document | None:
    endpoints = server["endpoints"] if server else []
    return next((each for each in endpoints if each["id"] == endpoint_id), None)


def _known_endpoint(server: Document | None, endpoint_id: str, missing: Refusal) -> Document:
    endpoint = _endpoint(server, endpoint_id)
    if endpoint is None:
        raise missing()
    return endpoint


def _check_url(url: str) -> None:
    if not isinstance(url, str) or not url.strip():
        raise invalid(f"MCP access endpoint url cannot be empty or just whitespace: {url!r}")


def _check_target(server: Document, version: str | None, alias: str | None, verb: str) -> None:
    """Refuse a version or an alias that leads nowhere."""
    name = server["name"]
    if version is not None:
        version_there = version_of(server, version)
        if version_there is None:
            raise unknown_version(name, version)()
        if version_there["status"] == DELETED:
            raise invalid(
                f"Cannot {verb} MCP access endpoint to deleted MCP server version '{name}' "
                f"version '{version}'"
            )
    elif alias == LATEST:
        latest_version(server, no_latest(name))
    elif alias is not None and aliased_version(server, alias) is None:
        raise unknown_alias(name, alias)()
