"""How a call waits: on its event loop or, where its thread runs the call itself, by blocking the thread.

A blocking caller may run the coroutine of a call without an event loop, on a database whose commands block:
nothing then ever suspends it. What a call awaits besides commands must know of that, and is here.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# A thread rather than a flag: tasks and threads that such a call starts inherit its context.
_blocked: ContextVar[int | None] = ContextVar("genesis_flow_blocked_thread", default=None)


@contextmanager
def blocking() -> Iterator[None]:
    """Calls that this thread runs within block it."""
    token = _blocked.set(threading.get_ident())
    try:
        yield
    finally:
        _blocked.reset(token)


def _is_blocking() -> bool:
    return _blocked.get() == threading.get_ident()


async def pause(seconds: float) -> None:
    if _is_blocking():
        time.sleep(seconds)  # noqa: ASYNC251 - no loop waits for this thread
    else:
        await asyncio.sleep(seconds)


async def both(first: Awaitable[S], second: Awaitable[T]) -> tuple[S, T]:
    """The results of two pieces of work that need not wait for each other."""
    if not _is_blocking():
        return await asyncio.gather(first, second)
    try:
        one = await first
    except BaseException:
        if isinstance(second, Coroutine):
            second.close()
        raise
    return one, await second


async def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns, which may take long: on an event loop a thread does it, and the loop goes on."""
    return work() if _is_blocking() else await asyncio.to_thread(work)


class PrefersLoop(Exception):
    """A call that has sent nothing yet would rather run on the loop."""


def prefer_loop() -> None:
    """For a direct call, before its first command, that is about to do many things at once."""
    if _is_blocking():
        raise PrefersLoop


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that nothing suspends to its end."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError(
        "A call that was to run without an event loop waits for one. This is a mistake in genesis_flow, not "
        "in your code: please report it."
    )
