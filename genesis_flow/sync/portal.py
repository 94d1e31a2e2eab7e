"""The way from blocking code into async code: one event loop on one daemon thread per process."""

import asyncio
import concurrent.futures
import contextvars
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable

# Python refuses the first import of this module once it is exiting, when MLflow still ends its runs.
from concurrent.futures.thread import ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

from genesis_flow.core.errors import GenesisFlowError

P = ParamSpec("P")
T = TypeVar("T")

_logger = logging.getLogger(__name__)

# A waiting caller looks this often whether the loop that shall answer it still exists.
_HEALTH_CHECK_SECONDS = 1.0
# How long a caller that gives up waits for its coroutine to clean up behind itself.
_CANCEL_GRACE_SECONDS = 2.0


class PortalError(GenesisFlowError, RuntimeError):
    """The background loop could not finish a call."""


class PortalTimeout(GenesisFlowError, TimeoutError):
    """A call did not finish in the time that its caller allowed."""


class Portal:
    """Runs coroutines for blocking callers, from any number of threads.

    The loop starts with the first call and is never closed: the thread is a daemon, so exit handlers can
    still make calls and the interpreter does not wait for it. A forked child forgets the loop of its parent
    and starts its own when it needs one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _LoopThread | None = None
        self._generation = 0
        # Loops that are lost (dead, or left in the parent) are kept for two reasons: collecting a loop
        # unregisters its pipe from an epoll object that a child shares with its parent, and a new loop must
        # not get the id of an old one, since clients are kept by loop.
        self._lost: list[_LoopThread] = []
        if hasattr(os, "register_at_fork"):
            forget = weakref.WeakMethod(self._forget_parent)
            os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    @property
    def generation(self) -> int:
        """A number that changes whenever state tied to the loop is void: after a fork or the loop's death."""
        return self._generation

    def run(self, work: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Call ``work`` on the loop, in the caller's context, and wait for what its awaitable returns.

        Raises what the awaitable raises; PortalTimeout when that takes more than ``timeout`` seconds.
        """
        worker = self._worker
        if worker is None or not worker.alive:
            worker = self._start()
        if worker.thread.ident == threading.get_ident():
            raise RuntimeError(
                "A blocking store was called on genesis_flow's own event loop and would wait for itself. "
                "Await the store of genesis_flow.aio there, or call this one through asyncio.to_thread()."
            )
        call = _Call(work)
        try:
            worker.submit(call)
            finished = self._wait(worker, call, timeout)
        except BaseException:  # a KeyboardInterrupt most of all
            self._cancel(worker, call)
            raise
        if not finished:
            finished = self._cancel(worker, call) and not isinstance(call.error, asyncio.CancelledError)
        if not finished:
            raise PortalTimeout(
                f"The call did not finish within {timeout:g} s and was cancelled: what it was to write may "
                "or may not be stored. Check the connection to MongoDB and try again."
            ) from call.take_error()
        return call.outcome()

    def _wait(self, worker: "_LoopThread", call: "_Call[T]", timeout: float | None) -> bool:
        """Whether ``call`` finished in time; raises if it cannot finish any more."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            patience = _HEALTH_CHECK_SECONDS
            if deadline is not None:
                patience = min(patience, max(0.0, deadline - time.monotonic()))
            if call.done.acquire(timeout=patience):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not self._can_finish(worker, call):
                if call.done.acquire(blocking=False):  # it finished between the two looks
                    return True
                raise PortalError(
                    "genesis_flow's event loop stopped, or this process was forked, during the call: what it "
                    "was to write may or may not be stored. Call again."
                ) from worker.failure
            if call.task is None:
                worker.wake()

    def _can_finish(self, worker: "_LoopThread", call: "_Call[T]") -> bool:
        if worker is not self._worker or not worker.alive:
            return False
        return call.task is None or not call.task.done()

    def _cancel(self, worker: "_LoopThread", call: "_Call[T]") -> bool:
        """Ask the loop to cancel ``call``; whether it came to an end shortly afterwards."""
        if not self._can_finish(worker, call):
            return False  # above all, a forked child must never touch its parent's loop
        worker.loop.call_soon_threadsafe(worker.cancel, call)
        return call.done.acquire(timeout=_CANCEL_GRACE_SECONDS)

    def _start(self) -> "_LoopThread":
        with self._lock:
            worker = self._worker
            if worker is not None and worker.alive:
                return worker
            if worker is not None:
                self._lost.append(worker)
                self._generation += 1
            self._worker = worker = _LoopThread()
            return worker

    def _forget_parent(self) -> None:
        """Start afresh in a forked child, where the loop's thread does not exist and the lock may be held."""
        self._lock = threading.Lock()
        if self._worker is not None:
            self._lost.append(self._worker)
        self._worker = None
        self._generation += 1


class _LoopThread:
    """An event loop, the thread that runs it and the calls that it has not started yet."""

    def __init__(self) -> None:
        # Not asyncio.new_event_loop(): servers replace its policy, and asking for the policy takes a lock
        # that another thread may hold at a fork.
        self.loop = asyncio.SelectorEventLoop()
        self.loop.set_default_executor(_ExitProofExecutor(thread_name_prefix="genesis-flow-worker"))
        self.alive = True
        self.failure: Exception | None = None
        self._waiting: deque[_Call[Any]] = deque()
        self._drain_scheduled = False
        self.thread = threading.Thread(target=self._main, name="genesis-flow-loop", daemon=True)
        self.thread.start()

    def submit(self, call: "_Call[Any]") -> None:
        """Have the loop start ``call``; callers that come together share one wake-up, a system call."""
        self._waiting.append(call)
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self.wake()

    def wake(self) -> None:
        """Have the loop start what waits. Also the cure for a wake-up that a KeyboardInterrupt prevented."""
        self.loop.call_soon_threadsafe(self._drain)

    def cancel(self, call: "_Call[Any]") -> None:
        """Cancel ``call``, on the loop's thread."""
        self._drain()
        call.cancel()

    def _drain(self) -> None:
        self._drain_scheduled = False  # first, so that whoever comes from now on wakes the loop again
        while self._waiting:
            self._waiting.popleft().start(self.loop)

    def _main(self) -> None:
        try:
            while not self.loop.is_closed():
                try:
                    self.loop.run_forever()
                except (KeyboardInterrupt, SystemExit):
                    # A task raised it and holds it for whoever awaits the task; the loop itself is sound.
                    continue
        except Exception as failure:
            self.failure = failure
            _logger.exception("genesis_flow's event loop failed; the next call starts a new one.")
        finally:
            self.alive = False


class _Call(Generic[T]):
    """One call on its way through the loop; ``done`` is locked until it has ended.

    A bare lock and a wrapping coroutine instead of the two chained futures of
    asyncio.run_coroutine_threadsafe(): a quarter less time a call, twice the calls with 64 threads.
    """

    __slots__ = ("_result", "_started", "cancelled", "context", "done", "error", "task", "work")

    _result: T

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.work = work
        self.context = contextvars.copy_context()
        self.done = threading.Lock()
        self.done.acquire()
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self._started = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._drive(), context=self.context)

    async def _drive(self) -> None:
        self._started = True
        try:
            if self.cancelled:
                raise asyncio.CancelledError
            self._result = await self.work()
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.error = error
        finally:
            self.done.release()

    def cancel(self) -> None:
        """Cancel the task if it runs; one cancelled before its first step would never release ``done``."""
        self.cancelled = True
        if self.task is not None and self._started:
            self.task.cancel()

    def take_error(self) -> BaseException | None:
        """The error, no longer held here: its traceback leads to this object, which would be a cycle."""
        error, self.error = self.error, None
        return error

    def outcome(self) -> T:
        error = self.take_error()
        if error is None:
            return self._result
        try:
            if isinstance(error, asyncio.CancelledError):
                raise PortalError(
                    "The call was cancelled on genesis_flow's event loop: what it was to write may or may "
                    "not be stored. Call again."
                ) from error
            raise error
        finally:
            del error


class _ExitProofExecutor(ThreadPoolExecutor):
    """Runs jobs in place when the interpreter is exiting and threads take no more of them.

    The driver resolves host names in the loop's executor, and MLflow ends its runs in an exit handler:
    without this a run that needs a new connection there would stay RUNNING for ever.
    """

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> "concurrent.futures.Future[T]":
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future: concurrent.futures.Future[T] = concurrent.futures.Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - whoever awaits the job raises it
                future.set_exception(error)
            return future


portal = Portal()
