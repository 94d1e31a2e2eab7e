"""MCP servers: the cases M1 to M13 and bad input. What is better than SQL is in test_mcp_differences.py."""

from typing import Any

import pytest
from mlflow.entities.mcp_server import MCPRemoteTransportType, MCPStatus, MCPTool
from mlflow.entities.mcp_server_version import ConnectOptionSettings

from tests.contract.pair import Pair

NAME = "com.example/tool"
ACTIVE, DRAFT, DEPRECATED, DELETED = (
    MCPStatus.ACTIVE,
    MCPStatus.DRAFT,
    MCPStatus.DEPRECATED,
    MCPStatus.DELETED,
)


@pytest.fixture(autouse=True)
def icons_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is looked up: these addresses are this machine's."""
    monkeypatch.setenv("MLFLOW_ICON_URL_ALLOW_PRIVATE_IPS", "true")


def icon(theme: str | None = None, name: str = "a", **more: str) -> dict[str, str]:
    return {"src": f"https://127.0.0.1/{name}.png", **({"theme": theme} if theme else {}), **more}


def add(pair: Pair, version: str, name: str = NAME, status: MCPStatus | None = None, **json: Any) -> Any:
    return pair.create_mcp_server_version({"name": name, "version": version, **json}, status=status)


@pytest.mark.parametrize(
    "name",
    [
        "ab/cd",
        "a/bc",
        "ab/c",
        "ab",
        "ab/cd/ef",
        "",
        "/",
        "ab/versions",
        "ab/tags",
        "a.b-c/d_e.f",
        "-a/bc",
        "ab/cd ",
        "AB/CD",
        "ab/c|d",
        "x" * 200 + "/" + "y" * 200,
    ],
)
def test_names(pair: Pair, name: str) -> None:
    """M1."""
    ours, theirs = pair.both("create_mcp_server", name)
    assert ours.code == theirs.code
    if ours.error is None:
        pair.get_mcp_server(name)
        pair.refused("create_mcp_server", name)


def test_servers(pair: Pair) -> None:
    pair.create_mcp_server(NAME, "words", [icon("light")], "me")
    pair.create_mcp_server(NAME.upper())
    pair.refused("create_mcp_server", NAME)
    pair.get_mcp_server(NAME)
    for change in (
        {"description": "other", "last_updated_by": "you"},
        {"display_name": "Tool"},
        {"icons": []},
        {"icons": None, "description": None},
        {"description": "", "display_name": ""},
        {},
    ):
        pair.update_mcp_server(NAME, **change)
        pair.get_mcp_server(NAME)
    for call in (("get_mcp_server",), ("update_mcp_server",), ("delete_mcp_server",)):
        pair.refused(*call, "no/such")
    pair.delete_mcp_server(NAME)
    pair.refused("get_mcp_server", NAME)
    pair.create_mcp_server(NAME)


def test_shown_by_the_latest_version(pair: Pair) -> None:
    """M8, and that None is what falls back, not an empty text."""
    add(pair, "1.0.0", description="of one", icons=[icon("light", "one"), icon("dark", "one")])
    add(pair, "2.0.0", description="of two", icons=[icon(None, "two")])
    pair.get_mcp_server(NAME)
    pair.update_mcp_server_version(NAME, "1.0.0", ACTIVE)
    assert pair.get_mcp_server(NAME).description == "of one"
    for icons in ([icon("light", "own")], [icon("light", source="server")], [], None):
        pair.update_mcp_server(NAME, icons=icons)
        pair.get_mcp_server(NAME)
    pair.update_mcp_server(NAME, description="")
    pair.get_mcp_server(NAME)


@pytest.mark.parametrize(
    "icons",
    [
        "text",
        [1],
        [{}],
        [icon()] * 101,
        [{"src": "http://127.0.0.1/a"}],
        [icon(mimeType="text/html")],
        [icon(mimeType="image/png")],
        [icon(source="version")],
        [icon(source="other", more="kept")],
    ],
    ids=lambda icons: str(icons)[:40],
)
def test_icons(pair: Pair, icons: Any) -> None:
    ours, theirs = pair.both("create_mcp_server", NAME, None, icons)
    assert ours.code == theirs.code
    if ours.error is None:
        pair.get_mcp_server(NAME)
    json = {"name": "other/one", "version": "1.0.0", "icons": icons}
    ours, theirs = pair.both("create_mcp_server_version", json)
    assert ours.code == theirs.code
    tools = [MCPTool("t", icons=icons)]
    ours, theirs = pair.both("create_mcp_server_version", {**json, "icons": None}, tools=tools)
    assert ours.code == theirs.code


@pytest.mark.parametrize(
    "json",
    [
        {},
        {"name": NAME},
        {"version": "1.0.0"},
        {"name": "bad", "version": "1.0.0"},
        *(
            {"name": NAME, "version": version}
            for version in ("1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0+")
        ),
        {"name": NAME, "version": "1.0.0-" + "x" * 123},
        {"name": NAME, "version": "2147483648.0.0"},
        {"name": NAME, "version": 5},
    ],
    ids=str,
)
def test_bad_versions(pair: Pair, json: dict[str, Any]) -> None:
    pair.refused("create_mcp_server_version", json)
    assert pair.search_mcp_servers() == []


def test_versions(pair: Pair) -> None:
    tool = MCPTool("t", "title", "words", {"type": "object"}, annotations={"a": {"b.c": [1, None]}})
    json = {"name": NAME, "version": "1.0.0-RC.1", "_meta": {"a.b": {"$c": [1, 2.5, None, True]}}, "x": ""}
    options = {"local": ConnectOptionSettings(hidden=True)}
    pair.create_mcp_server_version(json, "there", None, [tool], "me", options)
    pair.refused("create_mcp_server_version", json)
    add(pair, "1.0.0-rc.1")
    for status in (DEPRECATED, DELETED):
        pair.refused("create_mcp_server_version", {"name": NAME, "version": "9.0.0"}, status=status)
    pair.get_mcp_server_version(NAME, "1.0.0-RC.1")
    pair.refused("get_mcp_server_version", NAME, "1.0.0")
    pair.refused("get_mcp_server_version", "no/such", "1.0.0")
    for change in (
        {"tools": []},
        {"tools": None, "last_updated_by": "you"},
        {"tools": [tool, MCPTool("u")], "status": ACTIVE},
        {"connect_options": {"remote": ConnectOptionSettings()}},
        {"connect_options": None},
        {},
    ):
        pair.update_mcp_server_version(NAME, "1.0.0-RC.1", **change)
        pair.get_mcp_server_version(NAME, "1.0.0-RC.1")
        pair.get_mcp_server(NAME)
    pair.refused("update_mcp_server_version", NAME, "1.0.0-RC.1", None)
    pair.refused("update_mcp_server_version", NAME, "1.0.0-RC.1", tools=[MCPTool("t")] * 1001)
    pair.refused("update_mcp_server_version", NAME, "3.0.0", ACTIVE)


@pytest.mark.parametrize("start", [DRAFT, ACTIVE])
@pytest.mark.parametrize("second", [DRAFT, ACTIVE, DEPRECATED])
@pytest.mark.parametrize("third", [DRAFT, ACTIVE, DEPRECATED])
def test_status(pair: Pair, start: MCPStatus, second: MCPStatus, third: MCPStatus) -> None:
    add(pair, "1.0.0", status=start)
    for status in (second, third):
        ours, theirs = pair.both("update_mcp_server_version", NAME, "1.0.0", status)
        assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
        pair.get_mcp_server(NAME)
    ours, theirs = pair.both("delete_mcp_server_version", NAME, "1.0.0")
    assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))
    pair.get_mcp_server(NAME)
    ours, theirs = pair.both("delete_mcp_server", NAME)
    assert (ours.code, str(ours.error)) == (theirs.code, str(theirs.error))


def test_deleted_versions(pair: Pair) -> None:
    """M3 and M4: the number stays taken, until the server goes; a second deletion is a wrong transition."""
    add(pair, "1.0.0")
    pair.delete_mcp_server_version(NAME, "1.0.0")
    pair.refused("delete_mcp_server_version", NAME, "1.0.0")
    pair.refused("delete_mcp_server_version", NAME, "2.0.0")
    pair.refused("delete_mcp_server_version", "no/such", "2.0.0")
    pair.refused("get_mcp_server_version", NAME, "1.0.0")
    pair.refused("update_mcp_server_version", NAME, "1.0.0", ACTIVE)
    pair.refused("create_mcp_server_version", {"name": NAME, "version": "1.0.0"})
    pair.refused("get_latest_mcp_server_version", NAME)
    pair.refused("get_latest_mcp_server_version", "no/such")
    pair.refused("set_mcp_server_alias", NAME, "a", "1.0.0")
    pair.refused("set_mcp_server_version_tag", NAME, "1.0.0", "k", "v")
    pair.refused("delete_mcp_server_version_tag", NAME, "1.0.0", "k")
    pair.refused("create_mcp_access_endpoint", NAME, "https://x", server_version="1.0.0")
    pair.refused("create_mcp_access_endpoint", NAME, "https://x", server_alias="latest")
    pair.delete_mcp_server(NAME)
    add(pair, "1.0.0")


@pytest.mark.parametrize(
    "versions",
    [
        ["1.0.0", "1.0.0+z", "1.0.0+a"],
        ["1.0.0-rc.9", "1.0.0-rc.10", "1.0.0-RC.1", "1.0.0-1", "1.0.0-alpha"],
        ["2.0.0-rc.10", "1.0.0 active", "3.0.0-alpha"],
        ["10.0.0", "9.0.0", "9.10.0", "9.9.100"],
        ["1.0.0 active", "2.0.0 active", "2.0.0-x.7.z.92 active"],
    ],
    ids=str,
)
def test_latest(pair: Pair, versions: list[str]) -> None:
    for text in versions:
        version, _, status = text.partition(" ")
        add(pair, version, status=MCPStatus(status) if status else None)
        latest = pair.get_latest_mcp_server_version(NAME)
        assert pair.get_mcp_server(NAME).latest_version == latest.version
        pair.get_mcp_server_version_by_alias(NAME, "latest")
    for order in ("created_at", "created_at DESC", "`version` ASC", "`version` DESC"):
        pair.pages("search_mcp_server_versions", NAME, order_by=[order], max_results=2)


def test_aliases(pair: Pair) -> None:
    """M6, and that an alias moves."""
    add(pair, "1.0.0")
    add(pair, "2.0.0")
    for alias, version in (
        ("b", "1.0.0"),
        ("a", "1.0.0"),
        ("Latest", "2.0.0"),
        ("b", "2.0.0"),
        ("x.$|y", "1.0.0"),
    ):
        pair.set_mcp_server_alias(NAME, alias, version)
        pair.get_mcp_server(NAME)
        pair.get_mcp_server_version_by_alias(NAME, alias)
        pair.get_mcp_server_version(NAME, version)
    pair.pages("search_mcp_server_versions", NAME)
    pair.refused("set_mcp_server_alias", NAME, "latest", "1.0.0")
    pair.refused("set_mcp_server_alias", NAME, "c", "3.0.0")
    pair.refused("set_mcp_server_alias", "no/such", "c", "3.0.0")
    for alias in ("latest", "c"):
        pair.refused("delete_mcp_server_alias", NAME, alias)
        pair.refused("delete_mcp_server_alias", "no/such", alias)
    pair.refused("get_mcp_server_version_by_alias", NAME, "c")
    pair.refused("get_mcp_server_version_by_alias", "no/such", "c")
    pair.delete_mcp_server_alias(NAME, "b")
    pair.refused("get_mcp_server_version_by_alias", NAME, "b")
    pair.delete_mcp_server_version(NAME, "1.0.0")
    pair.get_mcp_server(NAME)
    pair.refused("get_mcp_server_version_by_alias", NAME, "a")


def test_tags(pair: Pair) -> None:
    add(pair, "1.0.0")
    for call, of in (("mcp_server_tag", [NAME]), ("mcp_server_version_tag", [NAME, "1.0.0"])):
        for key, value in (
            ("k", "v"),
            ("k", "w"),
            ("a.b$", ""),
            ("", "empty"),
            ("long", "x" * 6000),
            ("n", None),
        ):
            getattr(pair, f"set_{call}")(*of, key, value)
        pair.get_mcp_server(NAME)
        pair.get_mcp_server_version(NAME, "1.0.0")
        getattr(pair, f"delete_{call}")(*of, "k")
        pair.refused(f"delete_{call}", *of, "k")
        pair.refused(f"set_{call}", "no/such", *of[1:], "k", "v")
        pair.refused(f"delete_{call}", "no/such", *of[1:], "k")
    pair.get_mcp_server(NAME)
    pair.get_mcp_server_version(NAME, "1.0.0")


def test_endpoints(pair: Pair) -> None:
    add(pair, "1.0.0")
    add(pair, "2.0.0", status=ACTIVE)
    pair.set_mcp_server_alias(NAME, "a", "1.0.0")
    made = [
        pair.create_mcp_access_endpoint(NAME, "https://x", created_by="me", **target)
        for target in (
            {"server_version": "1.0.0"},
            {"server_alias": "a"},
            {"server_alias": "latest"},
            {"server_alias": "latest", "transport_type": MCPRemoteTransportType.SSE},
        )
    ]
    pair.get_mcp_server(NAME)
    pair.search_mcp_servers()
    for endpoint in made:
        pair.get_mcp_access_endpoint(NAME, endpoint.id)
    pair.pages("search_mcp_access_endpoints", max_results=3)
    by_version, by_alias, latest, _ = (each.id for each in made)
    for change in (
        {"url": "https://y", "last_updated_by": "you"},
        {"server_alias": "latest"},
        {"server_version": "2.0.0"},
        {"server_version": None, "server_alias": None},
        {"transport_type": MCPRemoteTransportType.SSE},
        {"transport_type": None},
        {},
    ):
        pair.update_mcp_access_endpoint(NAME, by_version, **change)
        pair.get_mcp_access_endpoint(NAME, by_version)
    for change in (
        {"server_version": "1.0.0", "server_alias": "a"},
        {"server_version": "3.0.0"},
        {"server_alias": "none"},
        {"url": None},
        {"url": " "},
    ):
        pair.refused("update_mcp_access_endpoint", NAME, by_version, **change)
    pair.create_mcp_server("other/one")
    for call in ("get", "update", "delete"):
        for server, endpoint in (("other/one", latest), ("no/such", latest), (NAME, "ae-none")):
            pair.refused(f"{call}_mcp_access_endpoint", server, endpoint)
    pair.set_mcp_server_alias(NAME, "a", "2.0.0")
    pair.get_mcp_access_endpoint(NAME, by_alias)
    pair.delete_mcp_access_endpoint(NAME, latest)
    pair.refused("delete_mcp_access_endpoint", NAME, latest)
    pair.get_mcp_server(NAME)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"server_version": "1.0.0", "server_alias": "a"},
        {"server_version": "2.0.0"},
        {"server_alias": "none"},
        {"server_version": "1.0.0", "url": ""},
        {"server_version": "1.0.0", "url": " "},
        {"server_name": "no/such", "server_version": "1.0.0"},
    ],
    ids=str,
)
def test_bad_endpoints(pair: Pair, given: dict[str, Any]) -> None:
    add(pair, "1.0.0")
    pair.refused("create_mcp_access_endpoint", **{"server_name": NAME, "url": "x", **given})


def test_endpoints_go_with_what_they_lead_to(pair: Pair) -> None:
    """M7, and deleted versions."""
    for version in ("1.0.0", "2.0.0"):
        add(pair, version)
    pair.set_mcp_server_alias(NAME, "a", "1.0.0")
    for target in ({"server_version": "1.0.0"}, {"server_version": "2.0.0"}, {"server_alias": "a"}):
        pair.create_mcp_access_endpoint(NAME, "https://x", **target)
    pair.create_mcp_access_endpoint(NAME, "https://x", server_alias="latest")
    pair.delete_mcp_server_alias(NAME, "a")
    assert len(pair.get_mcp_server(NAME).access_endpoints) == 3
    pair.delete_mcp_server_version(NAME, "2.0.0")
    assert len(pair.get_mcp_server(NAME).access_endpoints) == 2
    pair.delete_mcp_server_version(NAME, "1.0.0")
    assert pair.get_mcp_server(NAME).access_endpoints == []
    assert pair.search_mcp_access_endpoints() == []
    pair.delete_mcp_server(NAME)


def test_version_changes_do_not_touch_the_server(pair: Pair) -> None:
    """M13, and M9: who does not say who they are is nobody."""
    server = pair.create_mcp_server(NAME, created_by="me")
    add(pair, "1.0.0")
    pair.update_mcp_server_version(NAME, "1.0.0", ACTIVE)
    pair.set_mcp_server_alias(NAME, "a", "1.0.0")
    found = pair.get_mcp_server(NAME)
    assert (found.last_updated_timestamp, found.last_updated_by) == (server.last_updated_timestamp, "me")
    assert pair.update_mcp_server(NAME).last_updated_by is None
