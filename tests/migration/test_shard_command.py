"""``genesis-migrate shard``: the plan of any server, and what is issued to a router.

No router can be had here: one is played by answers that were written by MongoDB's manual.
"""

import json
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner

from genesis_flow.cli.migrate import cli
from genesis_flow.documents.sharding import ShardKey
from genesis_flow.migrate import shards
from genesis_flow.migrate.config import load_config
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.stores.areas import DECLARED


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["shard", *arguments])


def test_a_plan_of_a_server_that_is_no_cluster(store_uri: str) -> None:
    run_up(store_uri)
    done = run("--uri", store_uri, "--shards", "4", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert (plan["shards"], plan["on_cluster"], plan["applied"], plan["problems"]) == (4, False, False, [])
    by_name = {each["collection"]: each for each in plan["spread"]}
    database = pymongo.uri_parser.parse_uri(store_uri)["database"]
    assert by_name["traces"]["commands"] == [
        {"shardCollection": f"{database}.traces", "key": {"_id": 1}},
        *({"split": f"{database}.traces", "middle": {"_id": f"tr-{at}"}} for at in ("4000", "8000", "c000")),
    ]
    assert "experiments" in plan["whole"]
    assert {*by_name, *plan["whole"]} == {each.Settings.name for each in DECLARED}


def test_a_plan_to_read_has_commands_for_mongosh(store_uri: str) -> None:
    run_up(store_uri)
    done = run("--uri", store_uri)
    assert done.exit_code == 0
    assert "no cluster: only a plan" in done.output
    lines = [line for line in done.output.splitlines() if line.startswith("db.adminCommand(")]
    assert len(lines) > 10
    json.loads(lines[0].removeprefix("db.adminCommand(").removesuffix(")"))


def test_nothing_is_applied_to_a_server_that_is_no_cluster(store_uri: str) -> None:
    run_up(store_uri)
    done = run("--uri", store_uri, "--apply")
    assert done.exit_code == 1
    assert "is no router of a sharded cluster: give the URI of a mongos" in done.output
    assert run("--uri", store_uri, "--apply", "--shards", "3").exit_code == 64


def test_an_index_that_no_cluster_can_keep_is_named(store_uri: str) -> None:
    run_up(store_uri)
    with pymongo.MongoClient[Any](store_uri) as client:
        client.get_default_database()["runs"].create_index("name", unique=True, name="own")
    done = run("--uri", store_uri)
    assert done.exit_code == 1
    assert "runs has the unique index own on name" in done.output


def run_up(uri: str) -> None:
    done = CliRunner().invoke(cli, ["up", "--uri", uri])
    assert done.exit_code == 0, done.output


class Router:
    """As much of a client on a router as the command asks for; the rest is the real database's."""

    def __init__(self, real: Any, shards: int, spread: dict[str, Any]) -> None:
        self._real = real
        self._shards = shards
        self.spread = spread
        self.issued: list[Any] = []
        self.admin = self.config = self.collections = self

    def command(self, command: Any) -> Any:
        match command:
            case "hello":
                return {"msg": "isdbgrid"}
            case "listShards":
                return {"shards": [{"_id": f"shard{number}"} for number in range(self._shards)]}
            case {"shardCollection": space, "key": key}:
                self.spread[space] = key
        self.issued.append(command)
        return {"ok": 1}

    def find(self, query: Any, _fields: Any) -> list[Any]:
        bounds = query["_id"]
        return [
            {"_id": space, "key": key}
            for space, key in self.spread.items()
            if bounds["$gte"] <= space < bounds["$lt"]
        ]


@pytest.fixture
def router(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Router:
    run_up(store_uri)
    made = Router(None, 3, {})
    opened = shards.opened

    def on_router(config: Any, **options: Any) -> Any:
        context = opened(config, **options)
        target = context.__enter__()
        real = target.db

        class Database:
            client, name = made, real.name

            def __getitem__(self, name: str) -> Any:
                return real[name]

        target.db = Database()
        return _Left(target, context)

    monkeypatch.setattr(shards, "opened", on_router)
    return made


class _Left:
    def __init__(self, target: Any, context: Any) -> None:
        self._target, self._context = target, context

    def __enter__(self) -> Any:
        return self._target

    def __exit__(self, *error: object) -> Any:
        return self._context.__exit__(*error)


def test_what_is_left_is_applied_and_once(store_uri: str, router: Router) -> None:
    config = load_config(store_uri, environ={})
    database = pymongo.uri_parser.parse_uri(store_uri)["database"]
    router.spread[f"{database}.runs"] = {"_id": 1}
    router.spread[f"{database}-other.runs"] = {"name": 1}
    done = shards.apply(config, DECLARED)
    assert done.commands == router.issued
    assert not any(f"{database}.runs" in command.values() for command in router.issued)
    assert {"split": f"{database}.metrics", "middle": {"_id": "5555"}} in router.issued
    router.issued.clear()
    assert all(each.done for each in shards.apply(config, DECLARED).spread)
    assert router.issued == []


def test_another_key_is_left_alone(store_uri: str, router: Router) -> None:
    database = pymongo.uri_parser.parse_uri(store_uri)["database"]
    router.spread[f"{database}.runs"] = {"experiment_id": 1}
    with pytest.raises(MigrationError, match=r"Nothing was done.*runs is spread by .*experiment_id"):
        shards.apply(load_config(store_uri, environ={}), DECLARED)
    assert router.issued == []


def test_commands_of_a_collection() -> None:
    assert list(shards.commands_for("db.runs", ShardKey("_id", ""), 2)) == [
        {"shardCollection": "db.runs", "key": {"_id": 1}},
        {"split": "db.runs", "middle": {"_id": "8000"}},
    ]
