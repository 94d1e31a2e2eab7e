"""The tests of the areas use one database one after the other."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.emptied import EmptiedDatabase


@pytest.fixture
async def store_uri(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """An empty database at head: a fresh one for a test that asks for its name, too.

    The portable profile has no command to find out what is to be emptied.
    """
    if "database_name" in request.fixturenames or os.environ.get("GENESIS_FLOW_PROFILE") == "portable":
        yield request.getfixturevalue("fresh_uri")
        return
    emptied: EmptiedDatabase = request.getfixturevalue("emptied")
    yield await emptied.uri()
    emptied.give_back()
