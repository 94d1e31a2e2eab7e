"""What every public call of a store gets: an open database, a deadline, retries, errors in MLflow's terms."""

import asyncio
import functools
import time
import uuid
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

import pymongo
from mlflow.exceptions import MlflowException
from pymongo.errors import PyMongoError

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.settings import Settings
from genesis_flow.database.connection import Database, close_database, open_database, revive
from genesis_flow.database.error_edge import UNSTORABLE, retry_delay, translate

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]

# The store whose call is running: a call that it makes to itself shares the deadline, the retries and the
# error edge of the outer one.
_inside: "ContextVar[Area | None]" = ContextVar("genesis_flow_inside", default=None)


@dataclass(slots=True)
class _Call:
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    attempt: int = 0


_call: ContextVar[_Call] = ContextVar("genesis_flow_call")


def is_repetition() -> bool:
    """Whether an earlier attempt of the running call may have made the very change that is missed or found.

    What a user deletes may then be gone, and what a user creates may be there, by this call itself.
    """
    return _call.get().attempt > 0


def call_token() -> str:
    """What names the running call in the database: the same for every repetition, for no other call."""
    return _call.get().token


class Area:
    """The base of the area classes: plain async code over one lazily opened database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._database: Database | None = None

    @property
    def database(self) -> Database:
        """The open database; the operation that runs has opened it."""
        if self._database is None:
            raise RuntimeError("The database is opened by an @operation; call one of those.")
        return self._database

    @property
    def connected(self) -> bool:
        return self._database is not None

    async def open(self) -> None:
        """Open the database on the running loop, unless it is open there."""
        database = self._database
        if database is None or database.closed or database.loop is not asyncio.get_running_loop():
            self._database = await open_database(self.settings)
            await self.opened()

    async def opened(self) -> None:
        """A hook for what a store needs in a database that it has just opened."""

    async def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._database = None
        await close_database(self.settings)


# Deleting an experiment with all its runs takes longer than a call of a training loop may.
LONG = 20


def operation(function: Method[P, T]) -> Method[P, T]:
    """Make an area's method a public call.

    The call may be run again after a passing failure, so it must be written such that a repetition of a
    half-done call ends in the state of one whole call.
    """
    return _public(function, patience=1)


def long_operation(function: Method[P, T]) -> Method[P, T]:
    """The same for a call whose work grows with the number of runs: its deadline is LONG times as far."""
    return _public(function, patience=LONG)


def _public(function: Method[P, T], patience: int) -> Method[P, T]:
    @functools.wraps(function)
    async def public(self: Area, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if _inside.get() is self:
            return await function(self, *args, **kwargs)
        inside, call = _inside.set(self), _call.set(_Call())
        timeout = self.settings.timeout * patience
        try:
            with pymongo.timeout(timeout):
                return await _attempts(self, lambda: function(self, *args, **kwargs), timeout)
        finally:
            _inside.reset(inside)
            _call.reset(call)

    return public


async def _attempts(area: Area, call: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    deadline = time.monotonic() + timeout
    attempts = _call.get()
    while True:
        try:
            await area.open()
            return await call()
        except MlflowException:
            raise
        except PyMongoError as error:
            delay = retry_delay(error, attempts.attempt, connected=area.connected)
            if delay is None or time.monotonic() + delay >= deadline:
                raise translate(error, area.settings.store_uri, timeout) from error
        except (*UNSTORABLE, GenesisFlowError) as error:
            raise translate(error, area.settings.store_uri, timeout) from error
        attempts.attempt += 1
        await asyncio.sleep(delay)
        await revive(area.settings)
