"""The lock of direct calls under Ctrl-C, which may come between any two instructions."""

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from genesis_flow.mongo.waiting import finish
from genesis_flow.sync.driver import _Lock

# How long a thread waits for a holder that is gone; nobody needs to here.
TIMEOUT = 20
METHODS = {"__aenter__", "__aexit__", "_give_up"}


async def hold(lock: _Lock) -> None:
    async with lock:
        return


class _CtrlC:
    """Comes before the instruction of this number of a lock's methods."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if (
            frame.f_code.co_name not in METHODS
            or frame.f_code.co_filename != sys.modules[_Lock.__module__].__file__
        ):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted(lock: _Lock, number: int) -> bool:
    """Take the lock and give it up; whether Ctrl-C came meanwhile."""
    sys.settrace(_CtrlC(number))
    try:
        finish(hold(lock))
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def excludes(lock: _Lock) -> bool:
    """Whether a second thread waits for the first."""
    entered, leave, second = threading.Event(), threading.Event(), threading.Event()

    async def first() -> None:
        async with lock:
            entered.set()
            leave.wait(30)

    async def other() -> None:
        async with lock:
            second.set()

    threads = [threading.Thread(target=finish, args=(work(),)) for work in (first, other)]
    threads[0].start()
    if not entered.wait(TIMEOUT / 2):
        return False
    threads[1].start()
    waits = not second.wait(0.05)
    leave.set()
    for thread in threads:
        thread.join(30)
    return waits and second.is_set()


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer runs")
def test_ctrl_c_loses_no_lock() -> None:
    number = 1
    while True:
        lock = _Lock(TIMEOUT)
        if not interrupted(lock, number):
            break
        finish(hold(lock))  # the same thread goes on with its next call
        assert excludes(lock), f"not after Ctrl-C at instruction {number}"
        number += 1
    assert number > 20
