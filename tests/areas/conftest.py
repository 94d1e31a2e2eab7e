"""The tests of the areas use one database one after the other."""

import pytest


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri
