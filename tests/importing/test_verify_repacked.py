"""Histories that were repacked after an import are still proven, and damage in them is found."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genesis_flow.cli.migrate import cli
from genesis_flow.documents.keys import is_open
from tests.importing.small_trees import Tree
from tests.importing.verifying import bring, changed, check, leaves, with_change
from tests.migration.helpers import database

POINTS = 3000


@pytest.fixture
def repacked(store_uri: str, tmp_path: Path) -> str:
    """The source of what was imported and then repacked."""
    tree = Tree(tmp_path / "mlruns")
    tree.experiment()
    tree.run(1, points=POINTS)
    bring(store_uri, tree.uri)
    assert CliRunner().invoke(cli, ["--uri", store_uri, "repack"]).exit_code == 0
    with database(store_uri) as db:
        assert sum(not is_open(block["_id"]) for block in db.metrics.find()) == POINTS // 1024
    return tree.uri


def test_repacked_histories_are_equal(store_uri: str, repacked: str) -> None:
    found = check(store_uri, repacked)
    assert found.outcome.differences == []
    assert found.equal
    assert found.outcome.source_checksum == found.outcome.target_checksum


def test_a_change_of_any_field_of_a_block_is_found(store_uri: str, repacked: str) -> None:
    missed = []
    made = 0
    with database(store_uri) as db:
        for block in list(db.metrics.find()):
            for path, value in leaves(block):
                if path == ("_id",):
                    continue
                other: Any = with_change(block, path, changed(value))
                db.metrics.replace_one({"_id": block["_id"]}, other)
                made += 1
                if check(store_uri, repacked).equal:
                    missed.append((block["_id"], path))
            db.metrics.replace_one({"_id": block["_id"]}, block)
    assert missed == []
    assert made >= 15
    assert check(store_uri, repacked).equal


def test_any_damage_of_packed_points_is_found(store_uri: str, repacked: str) -> None:
    with database(store_uri) as db:
        block = db.metrics.find_one({"_id": {"$regex": r"\|s00000000$"}})
        assert block is not None
        data = block["data"]
        for cut in (data[:-1], data[:3], b"", data + b"x", data[: len(data) // 2] + b"\x00" * 8):
            db.metrics.update_one({"_id": block["_id"]}, {"$set": {"data": cut}})
            assert not check(store_uri, repacked).equal


def test_a_missing_settled_block_is_found_and_named(store_uri: str, repacked: str) -> None:
    with database(store_uri) as db:
        db.metrics.delete_one({"_id": {"$regex": r"\|s00000000$"}})
    found = check(store_uri, repacked)
    assert not found.equal
    assert any("s00000000 is missing before it" in each.reason for each in found.outcome.damaged)
