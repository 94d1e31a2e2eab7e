"""The first word with a server: how long to wait for it, and what is said meanwhile."""

import errno
import logging
import socket
import time
from collections.abc import Iterable

from pymongo.errors import PyMongoError
from pymongo.server_description import ServerDescription

from genesis_flow.core.driver_text import error_numbers, plain_text
from genesis_flow.core.settings import Embedded, Settings

_logger = logging.getLogger(__name__)

# Then somebody who waits is told. Later steps are longer: a far server may need more to log somebody in.
_FIRST_STEP_SECONDS = 2.0
# A name that nobody knows and a port at which nobody listens: long enough for a server that is restarted.
_HOPELESS_SECONDS = 5.0
_HOPELESS = {errno.ECONNREFUSED, socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class Search:
    """For a server that has not answered yet. It is looked for in steps; between them is thought about it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begun = time.monotonic()
        self._until = self._step_until = self._begun + settings.server_selection_timeout
        self._seconds = _FIRST_STEP_SECONDS
        self._has_told = False

    def step(self) -> float:
        """Seconds of the next step."""
        seconds, self._seconds = self._seconds, 2 * self._seconds
        return max(min(seconds, self._step_until - time.monotonic()), 0.001)

    def go_on(self, error: PyMongoError, servers: Iterable[ServerDescription]) -> bool:
        """Whether another step is worth it; tells once that there is one."""
        until = self._until
        if self._is_hopeless(servers):
            until = min(until, self._begun + _HOPELESS_SECONDS)
        self._step_until = until
        left = until - time.monotonic()
        if left <= 0:
            return False
        if not self._has_told:
            self._has_told = True
            tell(self._settings.store_uri, error, left)
        return True

    def _is_hopeless(self, servers: Iterable[ServerDescription]) -> bool:
        """Whether waiting will not help. A user who set the time to wait may expect a server to come."""
        if isinstance(self._settings.target, Embedded) or not self._waits_by_default():
            return False
        answers = [error_numbers(str(server.error)) for server in servers]
        return bool(answers) and all(numbers and _HOPELESS.issuperset(numbers) for numbers in answers)

    def _waits_by_default(self) -> bool:
        return self._settings.sources.get("server_selection_timeout", "default") == "default"


def tell(where: str, error: Exception, left: float) -> None:
    """Tell somebody who waits what is tried, and until when."""
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
    _logger.warning(
        "%s does not answer (%s). Trying again until %s, %.0f s from now.",
        where,
        plain_text(error),
        clock,
        left,
    )
