"""The tests of the areas use one database one after the other."""

import pytest

from genesis_flow.areas.traces.sums import departures
from genesis_flow.areas.traces.sums import kept as kept_sums


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def keen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers keep sums of however few traces, every time, and nothing is in doubt for long."""
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 0)
    monkeypatch.setattr(kept_sums, "RETRY_SECONDS", -2)
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 0)
