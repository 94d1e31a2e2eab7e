"""The portal under forks, signals and interpreter exit, each in a Python of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.signals import heed_interrupts

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")

PREAMBLE = """
import asyncio, atexit, os, signal, sys, threading, time
from genesis_flow.sync.portal import Portal, PortalError, portal

async def answer(value=42, delay=0.0):
    await asyncio.sleep(delay)
    return value

def in_child(body):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid

def expect_success(pid):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")
"""


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., str]:
    """Runs a script in a Python of its own that must end silently and well; returns what it printed."""

    def run(body: str, *flags: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(PREAMBLE + body)
        done = subprocess.run([sys.executable, *flags, script], capture_output=True, text=True, timeout=150)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


def test_importing_starts_no_thread(run_script: Callable[..., str]) -> None:
    assert run_script("print(threading.active_count())") == "1\n"


def test_the_death_of_the_loop_is_reported_and_survived(run_script: Callable[..., str]) -> None:
    # A program that closes all files, as daemons do, takes the loop's selector with it.
    printed = run_script("""
import logging
logging.disable()

async def close_all_files():
    os.closerange(3, 64)
    await asyncio.sleep(60)

portal.run(answer)
before = portal.generation
try:
    portal.run(close_all_files, timeout=60)
except PortalError as error:
    print(type(error.__cause__).__name__)
print(portal.run(answer, timeout=60), portal.generation - before)
os._exit(0 if not sys.stdout.flush() else 1)
""")
    assert printed == "OSError\n42 1\n"


def test_an_interrupt_cancels_the_coroutine_and_leaves_a_working_portal(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PREAMBLE
        + """
async def forever():
    print("waiting", flush=True)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
try:
    portal.run(forever)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(portal.run(answer, timeout=60))
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=150)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "cancelled\ninterrupted\n42\n", "")


def test_exit_is_silent_with_calls_in_flight(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
portal.run(answer)
for _ in range(3):
    threading.Thread(target=lambda: portal.run(lambda: answer(delay=60)), daemon=True).start()
def busy():
    while True:
        portal.run(answer)
threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
print("done")
""",
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert printed == "done\n"


def test_exit_handlers_can_make_calls_even_ones_that_need_the_executor(
    run_script: Callable[..., str],
) -> None:
    # The driver resolves host names in the executor; MLflow ends runs in an exit handler.
    printed = run_script(
        """
async def resolve():
    return len(await asyncio.get_running_loop().getaddrinfo("localhost", 27017)) > 0

def at_exit():
    print(portal.run(answer, timeout=60), portal.run(resolve, timeout=60))
    try:
        portal.run(lambda: asyncio.to_thread(int, "x"), timeout=60)
    except ValueError:
        print("error kept")

atexit.register(at_exit)
portal.run(answer)
portal.run(resolve)
""",
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert printed == "42 True\nerror kept\n"


@pytest.mark.skipif(
    sys.version_info[:3] in [(3, 12, 0), (3, 12, 1)], reason="no threads in exit handlers there"
)
def test_the_first_call_may_come_from_an_exit_handler(run_script: Callable[..., str]) -> None:
    assert run_script("atexit.register(lambda: print(portal.run(answer)))") == "42\n"


@needs_fork
def test_50_forks_while_other_threads_make_calls(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
failures = []
def busy():
    while not stop.is_set():
        if portal.run(lambda: answer(delay=0.0005), timeout=60) != 42:
            failures.append("wrong")
stop = threading.Event()
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()

def child():
    assert portal.run(answer, timeout=60) == 42
    others = [threading.Thread(target=lambda: portal.run(answer, timeout=60)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()

for _ in range(50):
    expect_success(in_child(child))
stop.set()
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
print(failures, portal.run(answer, timeout=60))
""",
        "-W",
        "ignore",
    )
    assert printed == "[] 42\n"


@needs_fork
def test_children_that_exit_in_the_ordinary_way_leave_the_parents_loop_alone(
    run_script: Callable[..., str],
) -> None:
    # They collect what they inherited: closing the loop there would unregister the parent's pipe.
    printed = run_script(
        """
import gc
portal.run(answer)
for use_it in (True, False) * 3:
    pid = os.fork()
    if pid == 0:
        if use_it:
            portal.run(answer, timeout=60)
        gc.collect()
        sys.exit(0)
    expect_success(pid)
    assert portal.run(answer, timeout=60) == 42
print("fine")
""",
        "-W",
        "ignore",
    )
    assert printed == "fine\n"


@needs_fork
def test_a_fork_in_the_middle_of_the_loops_start(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
class SlowLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        super().__init__()
        starting.set()
        forked.wait(60)

starting, forked = threading.Event(), threading.Event()
real, asyncio.SelectorEventLoop = asyncio.SelectorEventLoop, SlowLoop
thread = threading.Thread(target=lambda: portal.run(answer, timeout=60))
thread.start()
starting.wait()
asyncio.SelectorEventLoop = real
assert portal._lock.locked()
pid = os.fork()
if pid == 0:
    assert portal.run(answer, timeout=60) == 42
    sys.exit(0)
forked.set()
expect_success(pid)
thread.join(60)
print(portal.run(answer, timeout=60))
""",
        "-W",
        "ignore",
    )
    assert printed == "42\n"


@needs_fork
def test_a_signal_handler_that_forks_during_a_call_does_not_hang_the_child(
    run_script: Callable[..., str],
) -> None:
    printed = run_script(
        """
children = []
signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
async def answer_behind_the_fork():
    await asyncio.sleep(0.2)  # the caller waits by now
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
    while not children:
        await asyncio.sleep(0.01)
    return 42
try:
    value = portal.run(answer_behind_the_fork, timeout=60)
except PortalError:
    value = "lost"
if children == [0]:
    os._exit(0 if (value, portal.run(answer, timeout=60)) == ("lost", 42) else 1)
expect_success(children[0])
print(value, portal.run(answer, timeout=60))
""",
        "-W",
        "ignore",
    )
    assert printed == "42 42\n"


@needs_fork
def test_a_child_gets_a_new_generation(run_script: Callable[..., str]) -> None:
    printed = run_script(
        """
before = portal.generation
def child():
    assert portal.generation == before + 1
expect_success(in_child(child))
assert portal.generation == before
print("fine")
""",
        "-W",
        "ignore",
    )
    assert printed == "fine\n"


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_multiprocessing(method: str, run_script: Callable[..., str]) -> None:
    printed = run_script(
        f"""
import multiprocessing

def work(value):
    return portal.run(lambda: answer(value), timeout=60)

if __name__ == "__main__":
    portal.run(answer)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(pool.map(work, range(6)))
    print(portal.run(answer, timeout=60))
""",
        "-W",
        "ignore",
    )
    assert printed == "[0, 1, 2, 3, 4, 5]\n42\n"
