"""How a call waits: on its event loop or, where its thread makes the call itself, by blocking the thread.

A blocking caller's thread may run the coroutine of a call without a loop, on a database whose commands block
(``threaded.py``): nothing then suspends it. Whatever else calls wait for must know of that, and is here.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")

# After so many turns of the loop the driver has sent a command that a task has just begun.
_TURNS = 3

# Of the thread, and not of its context, which other threads may run with a copy of.
_thread = threading.local()


class LeftToLoop(Exception):
    """A call that its thread cannot make to its end, for the loop to make, or to make again."""

    def __init__(self, *, has_written: bool) -> None:
        """``has_written``: an attempt may have changed something, so that the next one is a repetition."""
        super().__init__()
        self.has_written = has_written


def is_blocking() -> bool:
    """Whether this thread makes a call itself."""
    return bool(getattr(_thread, "makes_call", False))


def make(call: Coroutine[Any, Any, T]) -> T:
    """Make a call in this thread: nothing in it may wait for a loop."""
    before, _thread.makes_call = is_blocking(), True
    try:
        return finish(call)
    finally:
        _thread.makes_call = before


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


async def pause(seconds: float) -> None:
    """Wait before something is tried again. What went wrong once is the loop's to set right."""
    if is_blocking():
        time.sleep(seconds)  # noqa: ASYNC251 - no loop waits for this thread
        raise LeftToLoop(has_written=True)
    await asyncio.sleep(seconds)


def prefer_loop() -> None:
    """Leave a call to the loop that is about to send much at once, for which the loop waits only once.

    Before its first command, or behind one that makes no difference when it is made again.
    """
    if is_blocking():
        raise LeftToLoop(has_written=False)


async def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns, which may take long: the loop does not wait for it."""
    return work() if is_blocking() else await asyncio.to_thread(work)


async def both(first: Coroutine[Any, Any, S], second: Coroutine[Any, Any, T]) -> tuple[S, T]:
    """The results of what need not wait for each other."""
    if not is_blocking():
        results: tuple[S, T] = await asyncio.gather(first, second)
        return results
    try:
        one = await first
    except BaseException:
        second.close()
        raise
    return one, await second


async def meanwhile(asked: Coroutine[Any, Any, S], make: Callable[[], T]) -> tuple[S, T]:
    """What the server answers, and what ``make`` makes until then, which needs no answer."""
    if is_blocking():
        return await asked, make()

    async def made() -> T:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return make()

    answer, other = await asyncio.gather(asked, made())
    return answer, other
