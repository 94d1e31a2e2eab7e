"""How long one attempt of a call waits for the server; see ADR 16.

A connection that swallows what is sent looks like a server that works. So an attempt has a share of the time
of its call, and a command without an answer is sent again, on another connection. A command that is cut twice
needs longer: it has all the time that is left, and so have later calls of the same method.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from genesis_flow.core.reaching import tell

# Of a call with the usual deadline of a minute. A stall of three seconds then costs five.
SHARE_SECONDS = 5.0
_LARGEST_SHARE = 0.25
_SHARES = 2
_REMEMBERED_SECONDS = 600.0
_SILENT_SECONDS = 2.0
_LEAST_SECONDS = 0.001

Write = Callable[[], Awaitable[Any]]
# Writes that attempts of the running call have left to the next one.
debts: ContextVar[list[Write]] = ContextVar("genesis_flow_debts")


def owe(write: Write) -> Callable[[], None]:
    """Have ``write`` made before a repetition of the running call, unless what this returns is called."""
    owed = debts.get()
    owed.append(write)
    return lambda: owed.remove(write)


@contextmanager
def in_order(undo: Write) -> Iterator[None]:
    """Owe ``undo`` if the time of the attempt passes in this block: the server may have begun something."""
    try:
        yield
    except PyMongoError as error:
        if error.timeout:
            owe(undo)
        raise


async def pay() -> None:
    """Make the writes that are owed; those that fail stay owed."""
    owed = debts.get()
    while owed:
        await owed[0]()
        del owed[0]


_attempt_ends: ContextVar[float] = ContextVar("genesis_flow_attempt_ends", default=math.inf)


def attempt_ends() -> float:
    """When the running attempt ends, on the monotonic clock: for what is sent in another context for it."""
    return _attempt_ends.get()


class for_seconds:
    """Commands in this block have so much time together, and no more than the block around it gives them.

    No generator, which would cost more: every call has two of these.
    """

    __slots__ = ("_ends", "_timeout", "_token")

    def __init__(self, seconds: float) -> None:
        self._ends = min(_attempt_ends.get(), time.monotonic() + seconds)
        self._timeout = pymongo.timeout(seconds)

    def __enter__(self) -> None:
        self._token = _attempt_ends.set(self._ends)
        self._timeout.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timeout.__exit__(kind, error, trace)
        _attempt_ends.reset(self._token)


class Methods:
    """Which methods of a store have needed more than their share, lately."""

    def __init__(self) -> None:
        self._long_until: dict[str, float] = {}

    def call(self, name: str, timeout: float) -> "Patience":
        return Patience(self, name, timeout)

    def is_long(self, name: str) -> bool:
        return self._long_until.get(name, 0.0) > time.monotonic()

    def is_found_long(self, name: str) -> None:
        self._long_until[name] = time.monotonic() + _REMEMBERED_SECONDS


class Patience:
    """The time of one call."""

    def __init__(self, methods: Methods, name: str, timeout: float) -> None:
        self.deadline = time.monotonic() + timeout
        self._methods = methods
        self._name = name
        self.share = min(SHARE_SECONDS, timeout * _LARGEST_SHARE)
        self._begun = time.monotonic()
        self._has_told = False
        self.shares = 0 if methods.is_long(name) else _SHARES

    def rest(self) -> for_seconds:
        """The time that is left."""
        return for_seconds(max(self.deadline - time.monotonic(), _LEAST_SECONDS))

    def attempt(self) -> "_Attempt":
        return _Attempt(self)

    def has_taken(self, seconds: float) -> None:
        """An attempt has ended well, which had all the time that was left if shares were too short."""
        if not self.shares and seconds > self.share:
            self._methods.is_found_long(self._name)

    def is_cut(self) -> bool:
        """Whether an attempt that ran out of time may be made again; notes that one did."""
        if not self.shares:
            return False
        self.shares -= 1
        return True

    def server_works(self) -> None:
        """It said itself that it needs more time."""
        self.shares = 0

    def tell(self, where: str, error: Exception) -> None:
        """Once, when a call has taken so long that somebody may wonder."""
        now = time.monotonic()
        if not self._has_told and now - self._begun > _SILENT_SECONDS:
            self._has_told = True
            tell(where, error, self.deadline - now)

    def leaves(self, seconds: float) -> bool:
        """Whether there is time for an attempt in so many seconds."""
        return time.monotonic() + seconds < self.deadline


class _Attempt:
    """A block in which commands have a share of the time of their call."""

    __slots__ = ("_begun", "_patience", "_time")

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def __enter__(self) -> None:
        patience, self._begun = self._patience, time.monotonic()
        left = max(patience.deadline - self._begun, _LEAST_SECONDS)
        self._time = for_seconds(min(patience.share, left) if patience.shares else left)
        self._time.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._time.__exit__(kind, error, trace)
        if error is None:
            self._patience.has_taken(time.monotonic() - self._begun)
