"""Fixtures: a directory whose server is stopped afterwards, and a short wait before it stops by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genesis_flow import embedded
from tests.embedded.helpers import LINGER


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_EMBEDDED_LINGER", str(LINGER))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "my data ü"
    yield folder
    for used in (folder, tmp_path / "moved"):
        embedded.stop(used, force=True)
