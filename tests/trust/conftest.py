"""Fixtures of the tests of trust."""

from collections.abc import Iterator

import pytest

from genesis_flow.mongo import error_edge
from tests.trust.secure import SecureServer, secure_mongod
from tests.trust.tour import Undisturbed


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    with secure_mongod(tmp_path_factory.mktemp("secure")) as server:
        yield server


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(str(tmp_path_factory.mktemp("tour") / "artifacts"))


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts, for hundreds of calls that are repeated; test_throttling.py has the real ones."""
    monkeypatch.setattr(error_edge, "_FIRST_DELAY", error_edge._FIRST_DELAY / 10)
    monkeypatch.setattr(error_edge, "_LONGEST_DELAY", error_edge._LONGEST_DELAY / 100)
