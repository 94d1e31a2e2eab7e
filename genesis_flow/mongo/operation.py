"""What every public call of a store gets: an open database, a deadline, retries, errors in MLflow's terms."""

import asyncio
import contextlib
import functools
import logging
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Concatenate, ParamSpec, Protocol, Self, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, ErrorCode
from pymongo.errors import PyMongoError

from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.settings import Settings
from genesis_flow.mongo import audit, observed
from genesis_flow.mongo.arguments import (
    check_entities,
    check_texts,
    is_slip,
    parameters,
    slipped,
    text_parameters,
)
from genesis_flow.mongo.connection import Database, close_database, open_database, revive
from genesis_flow.mongo.error_edge import (
    UNSTORABLE,
    Meanwhile,
    has_run_out,
    meanwhile_delay,
    retry_delay,
    server_works,
    translate,
)
from genesis_flow.mongo.patience import Methods, Patience, Write, debts, pay
from genesis_flow.mongo.strict import check_strictly
from genesis_flow.mongo.waiting import LeftToLoop, aside, pause

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]

_logger = logging.getLogger(__name__)
_DEADLINE_EXCEEDED = ErrorCode.Name(DEADLINE_EXCEEDED)

# The identity of the store whose call is running: a call that it makes to itself shares the deadline, the
# retries and the error edge of the outer one. Not the store itself: each connection that is made in the call
# keeps the call's context, and would keep the store.
_inside: "ContextVar[object | None]" = ContextVar("genesis_flow_inside", default=None)


@dataclass(slots=True, eq=False)
class _Call:
    token: str = ""
    attempt: int = 0
    # The values that earlier attempts drew, by name: a repetition must not draw again.
    drawn: dict[str, Any] = field(default_factory=dict)
    # The database of the running attempt from its begin to its end, even if the store is closed meanwhile.
    database: Database | None = None
    # Whether an attempt began anew since what it had to make first took long.
    was_late: bool = False
    # Writes that its attempts have left to the next one.
    owed: list[Write] = field(default_factory=list)
    # The database of the caller's thread, if that makes the attempt.
    threaded: Database | None = None
    # Of what its caller's thread begins: the loop may go on with it.
    patience: Patience | None = None
    # Whether the caller has made this for the public call that it is about to make.
    is_handed: bool = False

    def end(self) -> None:
        """The end of an attempt."""
        if self.database is not None:
            self.database.leave(self)
            self.database = None


_call: ContextVar[_Call] = ContextVar("genesis_flow_call")


class ThreadCall:
    """A public call that its caller's thread begins, and the loop goes on with if need be."""

    def __init__(self) -> None:
        self._call = _Call()

    def left(self, reason: LeftToLoop) -> None:
        """The loop makes the next attempt."""
        self._call.attempt = max(self._call.attempt, int(reason.has_written))

    def by(self, database: Database | None) -> Self:
        """The call that begins in the block uses the database of a thread, or that of the loop."""
        self._call.threaded, self._call.is_handed = database, True
        return self

    def __enter__(self) -> None:
        self._token = _call.set(self._call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _call.reset(self._token)


def is_repetition() -> bool:
    """Whether an earlier attempt of the running call may have made the very change that is missed or found.

    The call itself may then have deleted what it does not find, or created what it finds.
    """
    return _call.get().attempt > 0


def call_token() -> str:
    """A name of the running call in the database: the same for every repetition, and for no other call."""
    call = _call.get()
    # Made when it is asked for: most calls of a training loop need none.
    call.token = call.token or uuid.uuid4().hex
    return call.token


async def drawn_once(name: str, draw: Callable[[], Awaitable[T]]) -> T:
    """The result of ``draw`` when the running call first asked for it, in this attempt or an earlier one."""
    drawn = _call.get().drawn
    if name not in drawn:
        drawn[name] = await draw()
    result: T = drawn[name]
    return result


# Less than the share of an attempt, and more than the processor works for a call before its first command.
LATE_SECONDS = 2.0


class _Late(Exception):
    """An attempt that has sent nothing yet has spent its time, and begins anew."""


async def made_first(make: Callable[[], T]) -> T:
    """The result of ``make``, which an attempt needs before its first command and which may ask the network.

    The event loop does not wait for it. Where it took long, the attempt begins anew, once: else the server
    would be thought not to answer. ``make`` is called again then, and should have its answers at hand.
    """
    call, begun = _call.get(), time.monotonic()
    made = await aside(make)
    if time.monotonic() - begun > LATE_SECONDS and not call.was_late:
        call.was_late = True
        raise _Late
    return made


class Closing(Protocol):
    """Something that ends with the store that it belongs to."""

    async def close(self) -> None: ...


class Area:
    """The base of the area classes: plain async code over one lazily opened database."""

    store: ClassVar[str] = ""
    """The store that an area belongs to, tracking or registry, as the audit trail names it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._identity = object()
        self._database: Database | None = None
        self.methods = Methods()
        # What ends when the store is closed.
        self.until_closed: weakref.WeakSet[Closing] = weakref.WeakSet()

    @property
    def database(self) -> Database:
        """The open database; the operation that runs has opened it."""
        database = _call.get().database if _inside.get() is self._identity else self._database
        if database is None:
            raise RuntimeError("The database is opened by an @operation; call one of those.")
        return database

    @property
    def connected(self) -> bool:
        return self._database is not None

    @property
    def last_opened(self) -> Database | None:
        """For other threads than the loop's; it may be closed."""
        return self._database

    async def open(self) -> None:
        """Open the database on the running loop, unless it is open there; the running call holds it."""
        if _inside.get() is not self._identity:
            await connect(self)  # ``connect`` is a call, and comes back here
            return
        call, database, is_new = _call.get(), self._database, False
        if call.threaded is not None:
            if not call.threaded.enter(call):
                raise LeftToLoop(has_written=False)
            call.database = call.threaded
            return
        if database is not None and not database.is_usable():
            database = None
        while database is None or not database.enter(call):
            database, is_new = await open_database(self.settings, self), True
        call.database = database
        if is_new:
            await self.opened()
            self._database = database

    async def opened(self) -> None:
        """A hook for what a store needs in a database that it has just opened."""

    async def close(self) -> None:
        """Leave the connection, which the last store to leave closes; a later call opens it again."""
        for each in list(self.until_closed):
            await each.close()
        self._database = None
        await close_database(self.settings, self)


# Deleting an experiment with all its runs takes longer than a call of a training loop may.
LONG = 20
# How long a call may wait for an audit record. The blocking stores' backstop allows for two.
_RECORD_SECONDS = 7.0


def operation(function: Method[P, T]) -> Method[P, T]:
    """Make an area's method, which changes nothing, a public call."""
    return _public(function, patience=1, changes=False)


def mutation(function: Method[P, T]) -> Method[P, T]:
    """Make a method that changes something a public call, which the audit trail records.

    The call may be run again after a passing failure, so it must be written such that a repetition of a
    half-done call ends in the state of one whole call.
    """
    return _public(function, patience=1, changes=True)


def heartbeat(function: Method[P, T]) -> Method[P, T]:
    """Make a mutation by which a program says, every few seconds, that it is alive: no record of each."""
    return _public(function, patience=1, changes=True, recorded=False)


def long_mutation(function: Method[P, T]) -> Method[P, T]:
    """Make a mutation whose work grows with the number of runs: its deadline is LONG times as far."""
    return _public(function, patience=LONG, changes=True)


def direct(public: Method[P, T]) -> Method[P, T]:
    """Let a blocking caller's thread make a public call itself, which spares the way to the loop.

    For what waits for nothing but its database and what ``waiting.py`` has, and mostly for one command after
    another. What it remembers of earlier calls, other threads may change at the same time.
    """
    public.is_joined = False  # type: ignore[attr-defined]
    return public


def direct_joined(public: Method[P, T]) -> Method[P, T]:
    """As ``direct``, for what usually is one update that may be joined with those of other threads."""
    public.is_joined = True  # type: ignore[attr-defined]
    return public


def _public(function: Method[P, T], *, patience: int, changes: bool, recorded: bool = True) -> Method[P, T]:
    texts = text_parameters(function)
    names = [parameter.name for parameter in parameters(function)]

    def check(settings: Settings, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_texts(texts, args, kwargs)
        if changes:
            check_entities(args, kwargs)
        if settings.strict_input is not None:
            check_strictly(settings.strict_input, function.__name__, names, args, kwargs)

    @functools.wraps(function)
    async def public(self: Area, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if _inside.get() is self._identity:
            return await function(self, *args, **kwargs)
        given = _call.get(None)
        if given is None or not given.is_handed:
            given = _Call()
        given.is_handed = False
        inside, call, owed = _inside.set(self._identity), _call.set(given), debts.set(given.owed)
        try:
            trail = None
            if changes and recorded and self.settings.audit:
                trail = _Trail(self, function, audit.target_of(function, args, kwargs), patience > 1)
            # Written out: a helper for each of these would be a frame more in the traceback of every error.
            async with trail or contextlib.nullcontext():
                try:
                    check(self.settings, args, kwargs)
                    timeout = self.settings.timeout * patience
                    result = await _within(
                        self, function.__name__, lambda: function(self, *args, **kwargs), timeout
                    )
                except Exception as error:
                    if is_slip(function, args, kwargs, error):
                        raise slipped(function, args, kwargs, error) from error
                    raise
                if trail is not None:
                    trail.result = result
            return result
        finally:
            _inside.reset(inside)
            _call.reset(call)
            debts.reset(owed)

    public.changes_data = changes  # type: ignore[attr-defined]
    public.check = check  # type: ignore[attr-defined]
    return public


class _Trail:
    """The records of one call in the audit trail; its work is the block of ``async with``."""

    def __init__(
        self, area: Area, function: Callable[..., Any], target: dict[str, Any], announced: bool
    ) -> None:
        self.area = area
        self.store = area.store
        self.name = function.__name__
        self.target = target
        self.announced = announced
        self.result: Any = None

    async def __aenter__(self) -> None:
        """Long work, which may be killed, says its begin."""
        await self._write(
            lambda: audit.introduce(self.area.database, self.store), self.area.settings.open_timeout
        )
        if self.announced:
            await self._record(audit.BEGUN)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self._record_success()
        elif isinstance(error, MlflowException):
            await self._record_failure({"outcome": audit.FAILED, "error": error.error_code})
        elif isinstance(error, asyncio.CancelledError):
            await self._record_failure({"outcome": audit.INTERRUPTED})
        elif isinstance(error, Exception):
            await self._record_failure({"outcome": audit.FAILED, "error": type(error).__name__})

    async def _record_success(self) -> None:
        self.target |= self._made()
        try:
            await self._record(audit.DONE)
        except MlflowException as error:
            raise MlflowException(
                f"{self.name} did its work, but its audit record could not be written. {error.message}",
                ErrorCode.Value(error.error_code),
            ) from error

    def _made(self) -> dict[str, Any]:
        if self.name == "create_experiment":  # the one creation that returns a bare id
            return {"experiment_id": self.result}
        return audit.made_by(self.result)

    async def _record(self, outcome: str, **more: Any) -> None:
        entry = audit.record(self.area.settings, self.store, self.name, self.target, outcome) | more
        await self._write(lambda: audit.write(self.area.database, entry))

    async def _record_failure(self, how: dict[str, Any]) -> None:
        """The error of the call itself counts; one of its record is only logged."""
        try:
            await self._record(**how)
        except MlflowException as error:
            _logger.warning(
                "%s failed, and its audit record could not be written: %s", self.name, error.message
            )

    async def _write(self, work: Callable[[], Coroutine[Any, Any, None]], opening: float = 0) -> None:
        await _within(self.area, "audit", work, opening + _RECORD_SECONDS)


async def _within(area: Area, name: str, work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """Run ``work`` on the open database, again after passing failures, for so many seconds."""
    attempts = _call.get()
    delay: float | None
    patience = attempts.patience or area.methods.call(name, timeout)
    if attempts.threaded is not None:
        attempts.patience = patience
    # What a thread sends, it sends in its attempt, which has a time of its own.
    with patience.rest() if attempts.threaded is None else contextlib.nullcontext():
        while True:
            try:
                if attempts.attempt:
                    await revive(area.settings)
                await area.open()
                with patience.attempt():
                    await pay()
                    return await work()
            except _Late:
                delay = 0.0
            except Meanwhile:
                delay = meanwhile_delay(attempts.attempt)
                if delay is None or not patience.leaves(delay):
                    raise
                observed.retried(name)
            except MlflowException:
                raise
            except PyMongoError as error:
                delay = _delay(error, attempts.attempt, patience, connected=area.connected)
                if delay is None or not patience.leaves(delay):
                    failure = translate(error, area.settings.store_uri, timeout)
                    if failure.error_code == _DEADLINE_EXCEEDED:
                        observed.missed_deadline(name)
                    raise failure from error
                observed.retried(name)
                patience.tell(area.settings.store_uri, error)
            except (*UNSTORABLE, GenesisFlowError) as error:
                raise translate(error, area.settings.store_uri, timeout) from error
            finally:
                attempts.end()
            attempts.attempt += 1
            await pause(delay)


def _delay(error: PyMongoError, attempt: int, patience: Patience, *, connected: bool) -> float | None:
    """Seconds to wait before the next attempt, or None if there is to be none."""
    if not has_run_out(error):
        return retry_delay(error, attempt, connected=connected)
    if not patience.is_cut():
        return None
    if server_works(error):
        patience.server_works()
    return 0.0


@operation
async def connect(area: Area) -> Database:
    """Open the database as every call does first, with its retries and its errors."""
    return area.database
