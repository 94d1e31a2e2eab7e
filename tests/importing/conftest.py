"""Fixtures of the import tests."""

from pathlib import Path

import pytest

from tests.importing.jobs import Job
from tests.importing.small_trees import Tree, small_tree
from tests.importing.sql_databases import unpacked


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    """Imports begin with a database at head that has no documents; the next test empties it."""
    return emptied_uri


@pytest.fixture
def job(store_uri: str) -> Job:
    return Job(store_uri)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return small_tree(tmp_path / "mlruns")


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """A database of the newest MLflow."""
    return unpacked("3.17.2", tmp_path)
