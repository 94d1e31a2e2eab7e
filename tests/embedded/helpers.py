"""What the tests of the embedded MongoDB share."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo

from tests.patience import PATIENCE_SECONDS

LINGER = 0.5
# Only guards against hanging.
PATIENCE = PATIENCE_SECONDS


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)


def has_ended(pid: int | None) -> bool:
    """Whether a process is gone, or waits for its parent, which in some containers takes its time."""
    assert pid is not None
    try:
        os.kill(pid, 0)
        return sys.platform == "linux" and "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True


def client(uri: str) -> "pymongo.MongoClient[dict[str, Any]]":
    return pymongo.MongoClient(uri, w="majority", serverSelectionTimeoutMS=120_000)


def uri_of(directory: Path) -> str:
    return "genesis" + directory.as_uri().removeprefix("file")
