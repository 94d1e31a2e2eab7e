"""The requests that a worker of the server answers, by the template of their route.

A template, a method and a status are the only labels: the path itself is what a user chose, and would make a
time series of each run. A path of no route is ``other``, a method that HTTP does not define too.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

from genesis_flow.mongo import counting

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
# Longer paths, which nobody has twice, are looked up each time.
_LONGEST_KEPT = 200

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class CountedRequests:
    """Counts what ``application`` answers; ``find`` knows its routes, ``own`` are paths beside those."""

    def __init__(
        self, application: Application, find: Callable[[str, str], str | None], own: Iterable[str] = ()
    ) -> None:
        self._application = application
        self._own = frozenset(own)
        self._find = find
        self._kept = lru_cache(maxsize=1024)(find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        status = "500"  # of an application that raises, which uvicorn answers so

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        # Others may change the path in it.
        given, path = scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))
        begun = time.perf_counter()
        counting.requests_in_flight.inc()
        try:
            await self._application(scope, receive, noting)
        finally:
            counting.requests_in_flight.dec()
            method, route = self.labels(given, path)
            counting.requests.labels(method, route, status).inc()
            counting.request_durations.labels(method, route).observe(time.perf_counter() - begun)

    def labels(self, method: str, path: str) -> tuple[str, str]:
        if method not in METHODS:
            return counting.OTHER, counting.OTHER
        if path in self._own:
            return method, path
        find = self._kept if len(path) <= _LONGEST_KEPT else self._find
        return method, find(method, path) or counting.OTHER
