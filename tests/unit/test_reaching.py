"""When a server that does not answer is given up."""

import pytest
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError
from pymongo.server_description import ServerDescription

from genesis_flow.core.reaching import Search
from genesis_flow.core.settings import WATCHING, Settings

REFUSED = "[Errno 111] Connection refused"
UNKNOWN = "[Errno -2] Name or service not known"
SILENT = "timed out"
ANSWERS = None


def server(error: str | None) -> ServerDescription:
    return ServerDescription(
        ("db", 27017), error=None if error is None else AutoReconnect(f"db:27017: {error}")
    )


@pytest.mark.parametrize(
    ("servers", "query", "hopeless"),
    [
        ([REFUSED, REFUSED], "", True),
        ([UNKNOWN], "", True),
        ([REFUSED, UNKNOWN], "", True),
        ([REFUSED, ANSWERS], "", False),  # no primary yet
        ([REFUSED, SILENT], "", False),
        ([SILENT], "", False),
        ([REFUSED], "?serverSelectionTimeoutMS=30000", False),
    ],
)
def test_what_cannot_change_is_hopeless(servers: list[str | None], query: str, hopeless: bool) -> None:
    settings = Settings.resolve(f"mongodb://db/mlflow{query}", environ={})
    search = Search(settings)
    seen = [server(error) for error in servers]
    assert search._is_hopeless(seen) is hopeless
    assert search.go_on(ServerSelectionTimeoutError("no"), seen)
    left = search._step_until - search._begun
    assert left == (5 if hopeless else 30)


def test_an_embedded_server_may_be_starting() -> None:
    search = Search(Settings.resolve("genesis:///tmp/never-made", environ={}))
    assert not search._is_hopeless([server(REFUSED)])


def test_stores_watch_their_server_closely_unless_the_uri_says_how() -> None:
    _, options = Settings.resolve("mongodb://h/d", environ={}).client_options()
    assert options.items() >= WATCHING.items()
    assert sum(WATCHING.values()) <= 15_000, "a dead server is noticed within 15 seconds"
    settings = Settings.resolve("mongodb://h/d?connectTimeoutMS=40000", environ={})
    assert settings.client_options()[1]["connectTimeoutMS"] == 40_000
    assert settings.client_options("", patient=True)[1]["connectTimeoutMS"] == 40_000
    _, options = Settings.resolve("mongodb://h/d", environ={}).client_options(patient=True)
    assert not WATCHING.keys() & options.keys()
