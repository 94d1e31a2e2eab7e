"""Fixtures for the migration tests."""

from pathlib import Path

import pytest

from genesis_flow.migrate.config import MigrateConfig
from tests.migration.helpers import make_config, simple_step


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """A folder of three small reversible steps: one, two and three."""
    folder = tmp_path / "steps"
    for number, name in enumerate(("one", "two", "three"), 1):
        simple_step(folder, f"2027010100000{number}", name)
    return folder


@pytest.fixture
def config(store_uri: str, location: Path) -> MigrateConfig:
    """The fresh database with the small steps."""
    return make_config(store_uri, location)


@pytest.fixture
def real(store_uri: str) -> MigrateConfig:
    """The fresh database with the project's own steps."""
    return make_config(store_uri)
