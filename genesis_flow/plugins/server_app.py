"""MLflow's server with health endpoints beside it: ``mlflow server --app-name genesis-flow``, or basic-auth.

They are answered before MLflow's own application sees the request: a probe names the address of a pod in its
Host header, which MLflow's protection against DNS rebinding may refuse.
"""

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pymongo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, ErrorCode
from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

from genesis_flow.core import options
from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Settings
from genesis_flow.mongo import observed
from genesis_flow.mongo.connection import open_database
from genesis_flow.sync.portal import portal

LIVE = "/genesis/live"
READY = "/genesis/ready"
# A probe that waits longer than this is worth as much as one that fails.
READY_SECONDS = 2.0

_STATIC_PREFIX_VARIABLE = "_MLFLOW_STATIC_PREFIX"
_logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[int, dict[str, Any]]


def create_app() -> Application:
    """MLflow's application for uvicorn, made anew in each worker."""
    from mlflow.server.fastapi_app import app

    return with_endpoints(app)


def with_endpoints(app: Application) -> Application:
    """An application of MLflow's whose calls go to the store, with the health endpoints before it.

    Its requests are counted, health included, where metrics are on.
    """
    from genesis_flow.plugins.hooks import apply_hooks

    apply_hooks()
    settings = Settings.resolve(os.environ.get(BACKEND_STORE_URI_ENV_VAR))
    prefix = os.environ.get(_STATIC_PREFIX_VARIABLE, "").rstrip("/")
    extended = HealthEndpoints(app, Readiness(settings), prefix)
    if not options.value(observed.VARIABLE):
        return extended
    from genesis_flow.compat.routes import finder
    from genesis_flow.metrics.requests import CountedRequests

    return CountedRequests(extended, finder(app), own=(prefix + LIVE, prefix + READY))


class Readiness:
    """Whether the database answers; one question at a time, however many ask."""

    def __init__(self, settings: Settings, patience: float = READY_SECONDS) -> None:
        self._settings = settings
        self._patience = patience
        self._asking: asyncio.Task[None] | None = None
        self._was_ready = True

    async def answer(self) -> Answer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._asking is None or self._asking.done():
            self._asking = loop.create_task(asyncio.to_thread(self._ping))
        try:
            await asyncio.wait_for(asyncio.shield(self._asking), self._patience)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server is not ready
            return 503, {"status": "not ready", "reason": self._reason(error)}
        if not self._was_ready:
            self._was_ready = True
            _logger.warning("The database answers again.")
        return 200, {"status": "ready", "milliseconds": round((loop.time() - began) * 1000, 1)}

    def _ping(self) -> None:
        """Through the client that MLflow's calls use, which this opens if none has yet."""

        async def ping() -> None:
            database = await open_database(self._settings, self)
            with pymongo.timeout(self._patience):
                await database.client.admin.command("ping")

        portal.run(ping, self._settings.open_timeout + 2 * self._patience)

    def _reason(self, error: Exception) -> str:
        """A sentence for whoever may ask, so without hosts; the log has the details, once."""
        if self._was_ready:
            self._was_ready = False
            _logger.warning("Not ready: %s", mask(f"{type(error).__name__}: {error}".rstrip(": ")))
        if isinstance(error, TimeoutError):
            return f"The database did not answer within {self._patience:g} s."
        if isinstance(error, MlflowException) and error.error_code == ErrorCode.Name(INVALID_STATE):
            return "The schema of the database is not the one this version works with: see genesis-migrate."
        return "The database cannot be used; the log of the server says why."


class HealthEndpoints:
    """Answers its two paths, and hands everything else to ``application``."""

    def __init__(self, application: Application, readiness: Readiness, prefix: str = "") -> None:
        self._application = application
        self._answers: dict[str, Callable[[], Awaitable[Answer]]] = {
            prefix + LIVE: _alive,
            prefix + READY: readiness.answer,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None:
            await self._application(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await _send_json(send, await answer(), with_body=scope["method"] == "GET")
        else:
            await _send_json(send, (405, {"status": "only GET and HEAD are answered here"}), with_body=True)


async def _alive() -> Answer:
    """The event loop turns; the database is no reason to restart the server."""
    return 200, {"status": "alive"}


async def _send_json(send: Send, answer: Answer, *, with_body: bool) -> None:
    status, content = answer
    body = json.dumps(content).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if with_body else b""})
