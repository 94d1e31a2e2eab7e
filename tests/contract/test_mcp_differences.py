"""MCP servers: what is wanted to be other than in SQL. docs/differences.md has a row for each."""

from typing import Any

import pytest
from mlflow.entities.mcp_server import MCPStatus
from mlflow.exceptions import MlflowException

from tests.contract.pair import Pair
from tests.contract.trace_scenes import stated, trace_id

NAME = "com.example/tool"


def add(store: Any, version: str) -> None:
    store.create_mcp_server_version({"name": NAME, "version": version})


def test_a_status_of_deleted_is_a_deletion(pair: Pair) -> None:
    """M5: SQL keeps the alias and the endpoints of a version that got this status as ghosts."""
    for store in (pair.ours, pair.oracle):
        add(store, "1.0.0")
        add(store, "2.0.0")
        store.set_mcp_server_alias(NAME, "a", "1.0.0")
        store.create_mcp_access_endpoint(NAME, "https://x", server_version="1.0.0")
        store.create_mcp_access_endpoint(NAME, "https://x", server_alias="a")
        store.update_mcp_server_version(NAME, "1.0.0", MCPStatus.DELETED)
    ours, theirs = pair.both("get_mcp_server", NAME)
    assert (ours.result.aliases, ours.result.access_endpoints) == ({}, [])
    assert theirs.result.aliases == {"a": "1.0.0"}
    pair.refused("delete_mcp_server_alias", "no/such", "a")
    ours, theirs = pair.both("delete_mcp_server_alias", NAME, "a")
    assert (ours.code, theirs.code) == ("RESOURCE_DOES_NOT_EXIST", None)


@pytest.mark.parametrize("order", ["version", "version DESC"])
def test_versions_are_ordered_without_backticks(pair: Pair, order: str) -> None:
    """M10."""
    for store in (pair.ours, pair.oracle):
        for version in ("1.10.0", "1.9.0", "1.10.0-rc.1"):
            add(store, version)
    ours, theirs = pair.both("search_mcp_server_versions", NAME, order_by=[order])
    assert theirs.code == "INVALID_PARAMETER_VALUE"
    wanted = ["1.9.0", "1.10.0-rc.1", "1.10.0"]
    found = [each.version for each in ours.result]
    assert found == (wanted[::-1] if order.endswith("DESC") else wanted)


def test_an_alias_has_a_name(pair: Pair) -> None:
    for store in (pair.ours, pair.oracle):
        add(store, "1.0.0")
    ours, theirs = pair.both("set_mcp_server_alias", NAME, None, "1.0.0")
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    pair.set_mcp_server_alias(NAME, 5, "1.0.0")
    assert pair.get_mcp_server(NAME).aliases == {"5": "1.0.0"}


def test_endpoints_are_ordered_by_server_without_backticks(pair: Pair) -> None:
    ours, theirs = pair.both("search_mcp_access_endpoints", order_by=["server_name"])
    assert (ours.code, theirs.code) == (None, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("text", ["created_at LIKE 5", "last_updated_at ILIKE 5"])
def test_numbers_are_not_like_anything(pair: Pair, text: str) -> None:
    ours, theirs = pair.both("search_mcp_servers", text)
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", None)


def test_a_trace_keeps_which_servers_it_used(pair: Pair) -> None:
    """SQL declares both calls and has neither."""
    ours, trace, other = pair.ours, trace_id(1), "com.example/other"
    with pytest.raises(NotImplementedError):
        pair.oracle.get_mcp_server_versions_for_trace(trace)
    for number in (1, 2):
        ours.start_trace(stated(trace_id(number)))
    made = [ours.create_mcp_server_version({"name": NAME, "version": f"{number}.0.0"}) for number in (1, 2)]
    made.append(ours.create_mcp_server_version({"name": other, "version": "1.0.0-rc.1+build.5"}))
    ours.link_mcp_server_versions_to_trace(trace, [])
    ours.link_mcp_server_versions_to_trace(trace, [made[2], made[1]])
    ours.link_mcp_server_versions_to_trace(trace, [made[1], made[0]])
    assert ours.get_mcp_server_versions_for_trace(trace) == [made[2], made[1], made[0]]
    assert ours.get_mcp_server_versions_for_trace(trace_id(2)) == []
    ours.delete_mcp_server_version(NAME, "1.0.0")
    ours.delete_mcp_server(other)
    assert ours.get_mcp_server_versions_for_trace(trace) == [made[1]]


@pytest.mark.parametrize("servers", [["com.example/tool/1.0.0"], [None]])
def test_only_versions_of_servers_are_linked_to_traces_that_are_there(pair: Pair, servers: Any) -> None:
    ours = pair.ours
    ours.start_trace(stated(trace_id(1)))
    with pytest.raises(MlflowException, match="as get_mcp_server_version returns them") as caught:
        ours.link_mcp_server_versions_to_trace(trace_id(1), servers)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    version = ours.create_mcp_server_version({"name": NAME, "version": "1.0.0"})
    for call in (
        lambda: ours.link_mcp_server_versions_to_trace("tr-none", [version]),
        lambda: ours.get_mcp_server_versions_for_trace("tr-none"),
    ):
        with pytest.raises(MlflowException, match="not found") as caught:
            call()
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
