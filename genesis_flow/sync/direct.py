"""Calls that blocking callers run in their own thread, not by way of the event loop; see ADR 14.

Opening a database, and bringing back what a retry needs, still happens on the loop: once, and on bad days.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, connect
from genesis_flow.mongo.waiting import blocking, finish
from genesis_flow.sync.driver import BlockingDatabase

T = TypeVar("T")


class OnLoop(Protocol):
    """Runs async work on the event loop for a blocking caller."""

    def __call__(self, work: Callable[[], Awaitable[T]], /) -> T: ...


def run(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a direct call to its end, in this thread."""
    with blocking():
        return finish(call())


class _Direct(Area):
    """What makes the areas of a store work in the threads of its callers."""

    # The same store on the event loop, and the way to it.
    _beside: Area
    _on_loop: OnLoop

    async def _open(self) -> Database:
        opened = self._on_loop(lambda: connect(self._beside))
        return BlockingDatabase(opened)

    async def opened(self) -> None:
        """The store on the event loop has done it."""

    async def revive(self) -> None:
        self._on_loop(self._beside.revive)


def direct_store(store: Area, on_loop: OnLoop) -> Area:
    """A twin of an async store whose direct calls may be made by any thread."""
    twin: _Direct = type(f"Direct{type(store).__name__}", (_Direct, type(store)), {})(store.settings)
    twin._beside = store
    twin._on_loop = on_loop
    twin.remember_with(store)
    return twin
