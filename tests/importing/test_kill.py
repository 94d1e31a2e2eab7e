"""An import that is killed at any moment and run again leaves what one clean run leaves.

GENESIS_FLOW_IMPORT_KILLS says how many kills (12, shared between a tree and a database).
"""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow.migrate import command
from tests.importing.killing import (
    PROCESSES,
    config_for,
    counted_child,
    dump,
    import_small,
    killed_child,
    run_child,
    take_lock_away,
)
from tests.importing.trees import unpack
from tests.importing.verifying import check, unpack_sql
from tests.mongod import Mongod, unique

KILLS = int(os.environ.get("GENESIS_FLOW_IMPORT_KILLS", "12"))


def _empty(uri: str) -> None:
    """Without documents, but with its schema: that it is made whatever happens is a matter of migrations."""
    with pymongo.MongoClient(uri) as client:
        database = client.get_default_database()
        for each in database.list_collections(filter={"type": "collection"}):
            if not each["name"].startswith(("system.", "schema_")):
                database[each["name"]].delete_many({})


def _drop(uri: str) -> None:
    with pymongo.MongoClient(uri) as client:
        client.drop_database(client.get_default_database().name)


class Scene:
    """A source with what one clean import of it leaves."""

    def __init__(self, uri: str, source: str, artifacts: Path | None) -> None:
        self.uri, self.source, self.artifacts = uri, source, artifacts
        self.options: dict[str, Any] = {}
        if artifacts is not None:
            self.options = {"artifacts": "copy", "artifact_root": artifacts.as_uri()}
        command.up(config_for(uri))
        self.clean, self.commands = self._clean()

    def _clean(self) -> tuple[dict[str, Any], int]:
        receiver, sender = PROCESSES.Pipe(duplex=False)
        assert run_child(counted_child, self.uri, self.source, self.options, sender) == 0
        clean = dump(self.uri, self.artifacts)
        self.reset()
        return clean, receiver.recv()

    def reset(self) -> None:
        _empty(self.uri)
        if self.artifacts is not None:
            shutil.rmtree(self.artifacts, ignore_errors=True)

    def killed(self, number: int, moment: str, seconds: float | None) -> bool:
        """Whether it was killed before it was through."""
        code = run_child(killed_child, self.uri, self.source, self.options, number, moment, seconds)
        assert code in (-9, 0)
        return code == -9

    def again(self) -> dict[str, Any]:
        take_lock_away(self.uri)
        import_small(self.uri, self.source, self.options)
        return dump(self.uri, self.artifacts)


@pytest.fixture(scope="module", params=["tree", "sql"])
def scene(request: Any, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("kill")
    uri = mongod.database_uri(unique(f"test_kill_{request.param}"))
    if request.param == "tree":
        made = Scene(uri, str(unpack("3.17.2", folder)), folder / "target")
    else:
        made = Scene(uri, unpack_sql("3.17.2", folder), None)
    yield made
    _drop(uri)


def test_killed_anywhere_and_run_again(scene: Scene) -> None:
    chance = random.Random(20261121)
    killed = 0
    for number in range(max(1, KILLS // 2)):
        scene.reset()
        if number % 4 == 3:
            killed += scene.killed(0, "", chance.uniform(0.02, 1.0))
        else:
            killed += scene.killed(
                chance.randint(1, scene.commands), chance.choice(["started", "answered"]), None
            )
        again = scene.again()
        assert again.keys() == scene.clean.keys()
        for name in again:
            assert again[name] == scene.clean[name], name
    assert killed >= KILLS // 2 * 3 // 4
    assert check(scene.uri, scene.source).equal


def test_killed_again_and_again(scene: Scene) -> None:
    """Each attempt goes on where the last one was killed, so it comes to an end."""
    scene.reset()
    chance = random.Random(7)
    killed = 0
    for _ in range(4):
        killed += scene.killed(chance.randint(scene.commands // 4, scene.commands // 2), "answered", None)
        take_lock_away(scene.uri)
    print(f"{killed} of 4 killed within {scene.commands} commands")
    assert killed >= 2
    assert scene.again() == scene.clean
