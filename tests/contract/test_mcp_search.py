"""Searches of MCP servers, their versions and their endpoints: cases M2, M10 to M12 and more."""

import pytest
from mlflow.entities.mcp_server import MCPRemoteTransportType, MCPStatus

from tests.contract.pair import Pair

ONE, TWO, THREE, NONE = "com.ex/one", "com.ex/two", "COM.ex/Three", "com.ex/none"


@pytest.fixture(scope="module")
def filled(module_pair: Pair) -> Pair:
    pair = module_pair
    pair.create_mcp_server(NONE, "no versions")
    for name, versions in (
        (ONE, ["1.0.0", "1.0.0+b1", "1.1.0-rc.1"]),
        (TWO, ["2.0.0"]),
        (THREE, ["0.1.0", "0.2.0"]),
    ):
        for version in versions:
            pair.create_mcp_server_version({"name": name, "version": version})
    pair.update_mcp_server_version(ONE, "1.0.0", MCPStatus.ACTIVE)
    pair.update_mcp_server_version(TWO, "2.0.0", MCPStatus.ACTIVE)
    pair.update_mcp_server_version(TWO, "2.0.0", MCPStatus.DEPRECATED)
    pair.delete_mcp_server_version(THREE, "0.2.0")
    pair.set_mcp_server_alias(ONE, "prod", "1.1.0-rc.1")
    for name, key, value in (
        (ONE, "a", "x"),
        (ONE, "b", "y"),
        (TWO, "a", "X"),
        (THREE, "a.b", "x"),
        (NONE, "a", ""),
    ):
        pair.set_mcp_server_tag(name, key, value)
    pair.set_mcp_server_version_tag(ONE, "1.0.0", "a", "x")
    for name, target in (
        (ONE, {"server_version": "1.0.0"}),
        (ONE, {"server_alias": "prod", "transport_type": MCPRemoteTransportType.SSE}),
        (TWO, {"server_alias": "latest"}),
    ):
        pair.create_mcp_access_endpoint(name, "https://x", **target)
    pair.update_mcp_server(TWO, display_name="Second 100%")
    return pair


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "name = 'com.ex/one'",
        "name != 'com.ex/one'",
        "name LIKE 'com%'",
        "name ILIKE 'com%'",
        "name > 'com.ex/o'",
        "name <= 'com.ex/one'",
        "name IN ('com.ex/one', 'com.ex/none')",
        "name NOT IN ('com.ex/one')",
        "attributes.name = 'com.ex/one'",
        "display_name = 'Second 100%'",
        "display_name != 'x'",
        "display_name LIKE '%100_'",
        "status = 'active'",
        "status != 'active'",
        "status IN ('active', 'draft')",
        "status NOT IN ('active')",
        "status LIKE '%e%'",
        "status > 'active'",
        "has_access_endpoints = 'true'",
        "has_access_endpoints = 'False'",
        "has_access_endpoints != 'true'",
        "has_access_endpoints = 'maybe'",
        "has_access_endpoints LIKE 'true'",
        "tags.a = 'x'",
        "tags.a != 'x'",
        "tags.a ILIKE 'x'",
        "tags.a = 'x' AND tags.b = 'y'",
        "tags.a = 'x' AND tags.a = 'y'",
        "tags.a != 'x' AND tags.a != ''",
        "tag.`a.b` = 'x'",
        "tags.a > 'A'",
        "tags.a IN ('x')",
        "tags.a IS NULL",
        "created_at > 0",
        "created_at < 5.5",
        "last_updated_at != 1 AND name LIKE '%one'",
        "created_at > 'x'",
        "name = 'a' OR name = 'b'",
        "description = 'x'",
        "metrics.a > 1",
        "params.a = 'x'",
        "name like 'com%'",
        "name",
        "name =",
        "name = com",
        "status IN ()",
        "name = 'a' AND",
    ],
)
def test_servers(filled: Pair, text: str | None) -> None:
    ours, theirs = filled.both("search_mcp_servers", text)
    assert ours.code == theirs.code, (ours, theirs)
    if theirs.error is None:
        filled.pages("search_mcp_servers", text, max_results=2)
        filled.pages("search_mcp_servers", text, max_results=1)


@pytest.mark.parametrize(
    "order",
    [
        ["name DESC"],
        ["created_at DESC"],
        ["last_updated_at", "name DESC"],
        ["name", "name"],
        ["status"],
        ["name up"],
        [""],
        [],
    ],
    ids=str,
)
def test_orders_of_servers(filled: Pair, order: list[str]) -> None:
    ours, theirs = filled.both("search_mcp_servers", order_by=order)
    assert ours.code == theirs.code, (ours, theirs)
    if theirs.error is None:
        filled.pages("search_mcp_servers", order_by=order, max_results=1)


@pytest.mark.parametrize("most", [0, -1, 1001, None])
def test_sizes_of_pages(filled: Pair, most: int | None) -> None:
    filled.refused("search_mcp_servers", max_results=most)


@pytest.mark.parametrize("most", [0, 50_001])
@pytest.mark.parametrize("call", [("search_mcp_server_versions", ONE), ("search_mcp_access_endpoints",)])
def test_sizes_of_other_pages(filled: Pair, call: tuple[str, ...], most: int) -> None:
    filled.refused(*call, max_results=most)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "version = '1.0.0'",
        "version != '1.0.0'",
        "version = '1'",
        "version < '1.1.0'",
        "version <= '1.0.0'",
        "version > '1.0.0-x'",
        "version >= '1.0.0'",
        "version > '1'",
        "version LIKE '1%'",
        "version IN ('1.0.0')",
        "status = 'draft'",
        "status IN ('draft', 'active')",
        "status != 'draft'",
        "name = 'com.ex/one'",
        "name ILIKE '%ONE'",
        "created_at > 0",
        "tags.a = 'x'",
        "source = 'x'",
    ],
)
def test_versions(filled: Pair, text: str | None) -> None:
    """M11: builds are told apart only by equality. M12: tags are no key."""
    for name in (ONE, THREE, NONE, "no/such"):
        ours, theirs = filled.both("search_mcp_server_versions", name, text)
        assert ours.code == theirs.code, (ours, theirs)
        if theirs.error is None:
            filled.pages("search_mcp_server_versions", name, text, max_results=2)


@pytest.mark.parametrize(
    "order",
    [["`version` ASC"], ["`version` DESC", "created_at DESC"], ["last_updated_at"], ["name"], ["status"]],
    ids=str,
)
def test_orders_of_versions(filled: Pair, order: list[str]) -> None:
    ours, theirs = filled.both("search_mcp_server_versions", ONE, order_by=order)
    assert ours.code == theirs.code, (ours, theirs)
    if theirs.error is None:
        filled.pages("search_mcp_server_versions", ONE, order_by=order, max_results=1)


@pytest.mark.parametrize(
    ("server", "version", "alias", "text"),
    [
        (None, None, None, None),
        (ONE, None, None, None),
        (ONE, "1.0.0", None, None),
        (ONE, "1.1.0-rc.1", None, None),
        (None, None, "prod", None),
        (None, None, "latest", None),
        (None, "1.0.0", "prod", None),
        ("no/such", None, None, None),
        (None, None, None, "status = 'active'"),
        (None, None, None, "status IN ('active')"),
        (None, None, None, "server_name = 'com.ex/two'"),
        (None, None, None, "server_name IN ('com.ex/two', 'x')"),
        (None, None, None, "server_name NOT IN ('com.ex/two', 'x')"),
        (None, None, None, "transport_type = 'sse'"),
        (None, None, None, "transport_type != 'sse' AND server_name LIKE '%o%'"),
        (None, None, None, "created_at >= 0"),
        (None, None, None, "url = 'https://x'"),
        (None, None, None, "tags.a = 'x'"),
    ],
)
def test_endpoints(
    filled: Pair, server: str | None, version: str | None, alias: str | None, text: str | None
) -> None:
    args = (server, version, alias, text)
    ours, theirs = filled.both("search_mcp_access_endpoints", *args)
    assert ours.code == theirs.code, (ours, theirs)
    if theirs.error is None:
        filled.pages("search_mcp_access_endpoints", *args, max_results=1)


@pytest.mark.parametrize(
    "order", [["id DESC"], ["created_at DESC", "id"], ["last_updated_at"], ["url"]], ids=str
)
def test_orders_of_endpoints(filled: Pair, order: list[str]) -> None:
    ours, theirs = filled.both("search_mcp_access_endpoints", order_by=order)
    assert ours.code == theirs.code, (ours, theirs)
    if theirs.error is None:
        filled.pages("search_mcp_access_endpoints", order_by=order, max_results=1)


def test_long_lists_of_names(filled: Pair) -> None:
    """As MLflow's server asks for those that somebody may read."""
    names = ", ".join(f"'com.ex/{number}'" for number in range(2000))
    for text in (f"name IN ({names}, '{ONE}')", f"name NOT IN ({names}, '{ONE}')"):
        filled.search_mcp_servers(text)
    filled.search_mcp_access_endpoints(filter_string=f"server_name IN ({names}, '{ONE}')")
