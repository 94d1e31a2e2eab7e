"""Commands that a server refuses, delays or cuts off, by MongoDB's fail points."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymongo


@contextmanager
def failing(
    uri: str, *commands: str, times: int | None = None, app: str = "genesis_flow", **how: Any
) -> Iterator[None]:
    """Such commands of clients of this name fail: so many times, or to the end of the block.

    ``how`` is in MongoDB's words: ``closeConnection=True``, ``errorCode=16500``.
    """
    mode = "alwaysOn" if times is None else {"times": times}
    failure = {"failCommands": commands, "appName": app, **how}
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": failure})
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
