"""The portal in one process: results, errors, threads, timeouts."""

import asyncio
import contextvars
import gc
import socket
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from genesis_flow.sync import portal as portals
from genesis_flow.sync.portal import Portal, PortalError, PortalTimeout, portal


async def echo(value: object) -> object:
    await asyncio.sleep(0)
    return value


def test_the_result_comes_back() -> None:
    assert portal.run(lambda: echo("x")) == "x"


def test_an_exception_keeps_its_traceback() -> None:
    async def failing_deep_inside() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken") as caught:
        portal.run(failing_deep_inside)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "failing_deep_inside"


def test_an_exception_leaves_no_reference_cycle() -> None:
    class Witness:
        pass

    witnesses: list[weakref.ref[Witness]] = []

    async def failing() -> None:
        witness = Witness()
        witnesses.append(weakref.ref(witness))
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            with pytest.raises(ValueError):
                portal.run(failing)
        portal.run(lambda: echo(None))  # the loop lets go of the last task when it takes up the next
        assert [witness() for witness in witnesses] == [None] * 5
    finally:
        gc.enable()


def test_the_callers_context_is_visible_and_stays_as_it_was() -> None:
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("caller")

    async def look_and_change() -> str:
        seen = variable.get()
        variable.set("coroutine")
        return seen

    assert portal.run(look_and_change) == "caller"
    assert variable.get() == "caller"


def test_64_threads_get_their_own_answers_in_their_own_contexts() -> None:
    caller = contextvars.ContextVar[int]("caller")

    async def answer(i: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return caller.get(), i

    def calls(thread: int) -> list[tuple[int, int]]:
        caller.set(thread)
        return [portal.run(lambda i=i: answer(i), timeout=120) for i in range(200)]

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(calls, range(64)))
    assert results == [[(thread, i) for i in range(200)] for thread in range(64)]


def test_calls_from_inside_a_running_loop_work() -> None:
    async def like_a_notebook_cell() -> object:
        return portal.run(lambda: echo("x"))

    assert asyncio.run(like_a_notebook_cell()) == "x"


def test_a_call_from_the_portals_own_loop_is_refused() -> None:
    async def calls_back() -> object:
        return portal.run(lambda: echo("x"))

    with pytest.raises(RuntimeError, match="would wait for itself"):
        portal.run(calls_back, timeout=60)
    assert portal.run(lambda: echo("still alive")) == "still alive"


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cancelled has all the time that it needs to end, on a busy machine, too."""
    monkeypatch.setattr(portals, "_CANCEL_GRACE_SECONDS", 60.0)


def run_out_of_time(work: Callable[[], Awaitable[object]], begun: threading.Event) -> object:
    """Give the work hardly more time than it needs to begin, however much that is."""
    timeout = 0.05
    while True:
        try:
            return portal.run(work, timeout=timeout)
        except PortalTimeout:
            if begun.is_set():
                raise
        timeout *= 2


def test_a_timeout_cancels_and_says_so(lenient: None) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(PortalTimeout, match=r"did not finish within [\d.]+ s and was cancelled") as caught:
        run_out_of_time(forever, begun)
    assert cancelled.is_set()
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_a_result_that_was_there_after_all_beats_the_timeout(lenient: None) -> None:
    begun = threading.Event()

    async def finishes_what_it_began() -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "stored"
        return "never"

    assert run_out_of_time(finishes_what_it_began, begun) == "stored"


def test_a_timeout_while_the_loop_is_stuck_does_not_wait_for_it() -> None:
    async def blocks_the_loop() -> None:
        over.wait(60)  # that is the mistake to survive

    over = threading.Event()
    own = Portal()
    with pytest.raises(PortalTimeout):
        own.run(blocks_the_loop, timeout=0.05)
    over.set()


def test_a_call_that_timed_out_before_it_began_never_begins(
    lenient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Portal()
    free, blocked = threading.Event(), threading.Event()
    begun: list[str] = []

    async def blocks_the_loop() -> None:
        blocked.set()
        free.wait(60)

    async def comes_too_late() -> None:
        begun.append("begun")

    thread = threading.Thread(target=own.run, args=(blocks_the_loop,), daemon=True)
    thread.start()
    assert blocked.wait(60)
    worker = own._worker
    assert worker is not None
    cancel = worker.cancel

    def cancel_and_free(call: Any) -> None:
        cancel(call)
        free.set()

    monkeypatch.setattr(worker, "cancel", cancel_and_free)
    with pytest.raises(PortalTimeout) as caught:
        own.run(comes_too_late, timeout=0.05)
    thread.join(60)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert begun == []


def test_a_call_cancelled_on_the_loop_does_not_cancel_the_caller() -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(PortalError, match="was cancelled"):
        portal.run(cancels_itself)


def test_a_task_cancelled_before_its_first_step_does_not_hang_the_caller() -> None:
    own = Portal()
    own.run(lambda: echo(None))
    began = threading.Event()

    async def cancels_all_others() -> None:
        began.set()
        while not (others := asyncio.all_tasks() - {asyncio.current_task()}):  # noqa: ASYNC110
            await asyncio.sleep(0)  # once the other task exists, it is one step behind this one
        for task in others:
            task.cancel()

    thread = threading.Thread(target=own.run, args=(cancels_all_others,), daemon=True)
    thread.start()
    assert began.wait(60)
    with pytest.raises(PortalError):
        own.run(lambda: echo(None), timeout=60)
    thread.join(60)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_the_loop_outlives_what_ends_programs(error: type[BaseException]) -> None:
    async def exits() -> None:
        raise error("bye")

    async def in_a_task_of_its_own() -> None:
        await asyncio.create_task(exits())

    generation = portal.generation
    for work in (exits, in_a_task_of_its_own):
        with pytest.raises(error, match="bye"):
            portal.run(work, timeout=60)
    assert portal.run(lambda: echo("x"), timeout=60) == "x"
    assert portal.generation == generation


def test_a_wake_up_that_an_interrupt_prevented_is_made_up_for() -> None:
    own = Portal()
    own.run(lambda: echo(None))
    assert own._worker is not None
    own._worker._drain_scheduled = True
    assert own.run(lambda: echo("x"), timeout=60) == "x"


def test_a_portal_that_nobody_uses_any_more_can_go() -> None:
    own = Portal()
    gone = weakref.ref(own)
    del own
    assert gone() is None


def test_the_executor_takes_jobs_in_ordinary_times() -> None:
    async def resolve() -> bool:
        thread = await asyncio.to_thread(threading.current_thread)
        found = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 1, type=socket.SOCK_STREAM)
        return thread.name.startswith("genesis-flow-worker") and bool(found)

    assert portal.run(resolve, timeout=60)
