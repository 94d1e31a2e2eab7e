"""Fixtures of the tests of trust."""

from collections.abc import Iterator

import pytest

from tests.trust.secure import SecureServer, secure_mongod


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    with secure_mongod(tmp_path_factory.mktemp("secure")) as server:
        yield server
