"""An embedded MongoDB: a real mongod, private to a directory, that runs while somebody uses it."""

from genesis_flow.embedded.binary import find_mongod
from genesis_flow.embedded.errors import EmbeddedInUse, EmbeddedUnavailable
from genesis_flow.embedded.held import EmbeddedServer
from genesis_flow.embedded.server import Status, acquire, hold, start, status, stop

__all__ = [
    "EmbeddedInUse",
    "EmbeddedServer",
    "EmbeddedUnavailable",
    "Status",
    "acquire",
    "find_mongod",
    "hold",
    "start",
    "status",
    "stop",
]
