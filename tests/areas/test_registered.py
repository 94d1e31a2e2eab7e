"""MCP servers and skills: races, what reads cost, and what a crash leaves."""

import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pymongo
import pytest
from mlflow.entities.mcp_server import MCPStatus
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.mcp.documents import SERVERS, MCPContentFields, MCPServerFields, hints, server_id
from genesis_flow.areas.skills.documents import SKILLS, SkillFields, skill_id
from genesis_flow.sync.tracking import MongoDBStore as BlockingStore
from tests.areas.explain import Query, profiled
from tests.mongod import Mongod
from tests.versions import since_3_18

NAME = "com.example/tool"
MANY, VERSIONS, PAGE = 10_000, 20, 50


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls come to, made by a thread each that all begin together."""
    found: list[Any] = [None] * len(calls)
    begin = threading.Barrier(len(calls))

    def make(place: int) -> None:
        begin.wait(60)
        try:
            found[place] = calls[place]()
        except MlflowException as error:
            found[place] = error

    threads = [threading.Thread(target=make, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


@since_3_18
def test_racing_versions_of_a_skill_get_dense_numbers(store_uri: str) -> None:
    store = BlockingStore(store_uri)
    made = at_once([lambda: store.create_skill_version("a") for _ in range(32)])
    assert sorted(each.version for each in made) == list(range(1, 33))
    assert store.get_skill("a").latest_version == 32


def test_of_racing_versions_of_one_number_one_wins(store_uri: str) -> None:
    store = BlockingStore(store_uri)
    for number in range(5):
        json = {"name": NAME, "version": f"{number}.0.0"}
        made = at_once([lambda json=json: store.create_mcp_server_version(json) for _ in range(8)])
        errors = [each.error_code for each in made if isinstance(each, MlflowException)]
        assert errors == ["RESOURCE_ALREADY_EXISTS"] * 7
    assert len(store.search_mcp_server_versions(NAME)) == 5


def test_no_reader_sees_an_alias_to_a_version_that_is_gone(store_uri: str) -> None:
    store = BlockingStore(store_uri)
    store.create_mcp_server_version({"name": NAME, "version": "0.0.0"})
    for number in range(1, 11):
        version = f"{number}.0.0"
        store.create_mcp_server_version({"name": NAME, "version": version})
        store.create_mcp_access_endpoint(NAME, "https://x", server_version=version)

        def look() -> list[Any]:
            return [store.get_mcp_server(NAME) for _ in range(5)]

        changes = [
            lambda version=version: store.set_mcp_server_alias(NAME, "a", version),
            lambda version=version: store.delete_mcp_server_version(NAME, version),
        ]
        *_, seen, _ = at_once([*changes, look, look])
        for server in seen:
            live = {each.server_version for each in server.access_endpoints}
            assert not server.aliases or version in live, server
        assert store.get_mcp_server(NAME).aliases == {}


def test_of_racing_tools_one_is_whole(store_uri: str) -> None:
    store = BlockingStore(store_uri)
    store.create_mcp_server_version({"name": NAME, "version": "1.0.0"})
    for _ in range(5):
        changes = [lambda: store.update_mcp_server_version(NAME, "1.0.0", tools=[]) for _ in range(6)]
        made = at_once([*changes, lambda: store.get_mcp_server_version(NAME, "1.0.0")])
        assert not [each for each in made if isinstance(each, MlflowException)], made
    with pymongo.MongoClient(store_uri) as client:
        contents = client.get_default_database()["mcp_contents"]
        assert contents.count_documents({}) == 1


@since_3_18
def test_many_skills_that_race_with_one(store_uri: str) -> None:
    store = BlockingStore(store_uri)
    definitions = [{"name": f"n{number}", "source": "https://x", "digest": "0" * 64} for number in range(20)]
    made = at_once(
        [
            *(lambda: store.bulk_register_skills(definitions) for _ in range(3)),
            *(lambda: store.create_skill_version("n7") for _ in range(3)),
        ]
    )
    assert not [each for each in made if isinstance(each, MlflowException)], made
    assert {each.version for each in store.bulk_register_skills(definitions[:7])} == {1}
    versions = [each.version for each in store.search_skill_versions("n7")]
    assert versions == [1, 2, 3, 4]


@since_3_18
def test_a_standalone_server_is_told_that_it_cannot_do_many(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genesis_flow.mongo.connection import Database

    async def as_it_is(_: Database, write: Callable[[None], Any]) -> Any:
        return await write(None)

    store = BlockingStore(store_uri)
    store.search_experiments()
    monkeypatch.setattr(Database, "atomically", as_it_is)
    with pytest.raises(MlflowException, match="replica set of one") as caught:
        store.bulk_register_skills([{"name": "a", "source": "https://x", "digest": "0" * 64}])
    assert caught.value.error_code == "NOT_IMPLEMENTED"
    assert store.search_skills() == []


# What reads cost


def _version(number: int, **fields: Any) -> dict[str, Any]:
    common = {"status": "active" if number == 7 else "draft", "tags": {}, "call": "c", **fields}
    return {**common, "creation_time": number, "last_update_time": number}


def _thing(key: str, number: int, **fields: Any) -> dict[str, Any]:
    common = {"_id": key, "workspace": "default", "tags": {}, "revision": 1, "born": "b", **fields}
    return {**common, "creation_time": number, "last_update_time": number * 7919 % MANY}


def _server(number: int) -> dict[str, Any]:
    name = f"com.example/{number:05}"
    key = server_id(name)
    versions = [
        _version(
            each,
            version=f"{each}.0.0",
            content=f"{key}|{each}.0.0|x",
            shows="{}",
            major=each,
            minor=0,
            patch=0,
            prerelease="2",
        )
        for each in range(VERSIONS)
    ]
    server = _thing(key, number, name=name, versions=versions, endpoints=[])
    server["aliases"] = [{"alias": "best", "version": "3.0.0"}]
    if number % 100 == 0:
        server["endpoints"] = [{**_ENDPOINT, "id": f"ae-{number:05}"}]
    SERVERS.settle(server)
    return server


_ENDPOINT = {
    "url": "https://x",
    "transport_type": "sse",
    "server_alias": "latest",
    "creation_time": 1,
    "last_update_time": 1,
}


def _contents(server: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"_id": key, "workspace": "default", "server": server["_id"], "server_json": "{}", "hints": told}
        for key, told in hints(server).items()
    ]


def _skill(number: int) -> dict[str, Any]:
    name = f"s{number:05}"
    versions = [_version(each, version=each) for each in range(1, VERSIONS + 1)]
    skill = _thing(skill_id(name, ""), number, name=name, organization="", versions=versions)
    skill |= {"aliases": [{"alias": "best", "version": 3}], "search_text": name}
    SKILLS.settle(skill)
    return skill


@pytest.fixture(scope="module")
async def large(mongod: Mongod) -> AsyncIterator[MongoDBStore]:
    """Ten thousand servers and skills with twenty versions each."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    store = MongoDBStore(f"{mongod.database_uri(name)}&appName=explain")
    await store.open()
    for begin in range(0, MANY, 1000):
        servers = [_server(number) for number in range(begin, begin + 1000)]
        skills = [_skill(number) for number in range(begin, begin + 1000)]
        contents = [each for server in servers if server["endpoints"] for each in _contents(server)]
        for declared, documents in (
            (MCPServerFields, servers),
            (MCPContentFields, contents),
            (SkillFields, skills),
        ):
            await store.database.collection(declared).insert_many(documents)
    yield store
    await store.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


def assert_cheap(queries: list[Query], *, examined: int) -> None:
    assert queries
    for query in queries:
        assert not query.scans_collection, query
        assert not query.blocking_sort, query
        assert query.documents <= examined, query
        assert query.keys <= 2 * examined + 10, query


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"order_by": ["name DESC"]},
        {"order_by": ["last_updated_at"]},
        {"order_by": ["last_updated_at DESC"]},
        {"filter_string": "status = 'active'"},
        {"filter_string": "name IN ('com.example/00001', 'com.example/00002')"},
    ],
    ids=str,
)
async def test_pages_of_servers(large: MongoDBStore, search: dict[str, Any]) -> None:
    page = await large.search_mcp_servers(max_results=PAGE, **search)
    async with profiled(large.database) as queries:
        await large.search_mcp_servers(max_results=PAGE, page_token=page.token, **search)
    assert_cheap(queries, examined=2 * PAGE)
    assert len(queries) <= 2  # the second one is for what endpoints lead to


async def test_reads_of_one_server(large: MongoDBStore) -> None:
    name = "com.example/00500"
    for read, version in (
        (large.get_mcp_server_version(name, "5.0.0"), "5.0.0"),
        (large.get_mcp_server_version_by_alias(name, "best"), "3.0.0"),
        (large.get_latest_mcp_server_version(name), "7.0.0"),
    ):
        async with profiled(large.database) as queries:
            assert (await read).version == version
        # Side by side: one round trip.
        assert sorted(query.collection for query in queries) == ["mcp_contents", "mcp_servers"]
        assert_cheap(queries, examined=1)
    async with profiled(large.database) as queries:
        assert (await large.get_mcp_server(name)).access_endpoints[0].resolved_version.version == "7.0.0"
    assert sorted(query.collection for query in queries) == ["mcp_contents", "mcp_servers"]
    assert_cheap(queries, examined=1)


async def test_endpoints_read_no_server_without_them(large: MongoDBStore) -> None:
    async with profiled(large.database) as queries:
        assert len(await large.search_mcp_access_endpoints(max_results=PAGE)) == PAGE
    assert not any(query.scans_collection for query in queries)
    assert max(query.documents for query in queries) <= MANY // 100


@since_3_18
@pytest.mark.parametrize(
    "search", [{}, {"order_by": ["last_updated_at DESC"]}, {"filter_string": "status = 'active'"}], ids=str
)
async def test_pages_of_skills(large: MongoDBStore, search: dict[str, Any]) -> None:
    page = await large.search_skills(max_results=PAGE, **search)
    async with profiled(large.database) as queries:
        await large.search_skills(max_results=PAGE, page_token=page.token, **search)
    assert_cheap(queries, examined=2 * PAGE)
    assert len(queries) == 1


@since_3_18
async def test_reads_of_one_skill(large: MongoDBStore) -> None:
    for read, version in (
        (large.get_skill_version("s00500", 5), 5),
        (large.get_skill_version_by_alias("s00500", "best"), 3),
        (large.get_latest_skill_version("s00500"), 7),
    ):
        async with profiled(large.database) as queries:
            assert (await read).version == version
        assert len(queries) == 1
        assert_cheap(queries, examined=1)


async def test_a_stale_hint_costs_a_read_and_nothing_else(store_uri: str) -> None:
    store = MongoDBStore(store_uri)
    for version in ("1.0.0", "2.0.0"):
        await store.create_mcp_server_version({"name": NAME, "version": version})
    await store.set_mcp_server_alias(NAME, "a", "1.0.0")
    await store.update_mcp_server_version(NAME, "1.0.0", MCPStatus.ACTIVE)
    with pymongo.MongoClient(store_uri) as client:
        client.get_default_database()["mcp_contents"].update_many({}, {"$set": {"hints": []}})
    assert (await store.get_mcp_server_version_by_alias(NAME, "a")).version == "1.0.0"
    assert (await store.get_latest_mcp_server_version(NAME)).version == "1.0.0"
    await store.close()


async def test_a_content_that_nothing_names_is_never_seen(store_uri: str) -> None:
    """What a crash between the two writes of a creation leaves."""
    store = MongoDBStore(store_uri)
    await store.create_mcp_server_version({"name": NAME, "version": "1.0.0", "x": 1})
    with pymongo.MongoClient(store_uri) as client:
        contents = client.get_default_database()["mcp_contents"]
        kept = contents.find_one()
        for version in ("1.0.0", "2.0.0"):
            contents.insert_one({**kept, "_id": f"{server_id(NAME)}|{version}|0", "server_json": "{}"})
    assert (await store.get_mcp_server_version(NAME, "1.0.0")).server_json["x"] == 1
    assert (await store.get_latest_mcp_server_version(NAME)).version == "1.0.0"
    with pytest.raises(MlflowException, match="not found"):
        await store.get_mcp_server_version(NAME, "2.0.0")
    await store.create_mcp_server_version({"name": NAME, "version": "2.0.0"})
    await store.close()
